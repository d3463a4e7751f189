"""What networks are for, and how that is told: to the Hub, on a card, in a table.

The zoo itself asks a `Task` for whatever depends on inputs and outputs. `register_task` adds one of your own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spiking.arguments import did_you_mean
from zoo.task_facts import agent_facts, estimate_facts, image_facts, plain_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measured quantity, logged as ``test/NAME``.

    Attributes:
        label: what it is called.
        unit: of its value.
        share: whether it lies between 0 and 1 and is written in percent.
        hub: its type in the Hub's ``model-index``; missing: it is not listed there.
    """

    label: str
    unit: str = ""
    share: bool = False
    hub: str | None = None

    def text(self, value: float) -> str:
        """The value as people read it; what is tiny in mJ is told in nJ."""
        if self.unit.startswith("mJ") and 0.0 < value < 1e-4:
            return f"{value * 1e6:.6g} nJ{self.unit.removeprefix('mJ')}"
        return f"{value:.2%}" if self.share else f"{value:.6g} {self.unit}".rstrip()


# measured with networks of every task; `spiking.profile_energy` defines them
COSTS: Mapping[str, Metric] = {
    "firing_rate": Metric(label="firing rate", unit="spikes per neuron and step", hub="firing_rate"),
    "sops": Metric(label="synaptic operations", unit="per sample", hub="sops"),
    "macs": Metric(label="multiply-accumulates", unit="per sample", hub="macs"),
    "energy_mj": Metric(label="energy", unit="mJ per sample", hub="energy_mj"),
    "paper_energy_mj": Metric(label="energy at the paper's constants", unit="mJ per sample"),
    "ann_energy_mj": Metric(
        label="energy of the same network as an ANN", unit="mJ per sample", hub="ann_energy_mj"
    ),
}


def costs(task: Task) -> Mapping[str, Metric]:
    """`COSTS` in the words of a task: an agent's are those of a decision."""
    return {k: replace(m, unit=m.unit.replace("per sample", f"per {task.per}")) for k, m in COSTS.items()}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a kind of network is for.

    Attributes:
        name: what `zoo.register_model` and `zoo.list_models` take.
        noun: what such a network is called.
        pipeline_tag: of the Hub, see https://huggingface.co/tasks.
        tags: further tags of its repositories.
        metrics: how well it does, by the name under which it is logged; the most important ones first.
        headline: the metric that counts most; ``HEADLINE_t3`` is its value after three steps.
        call: the lines of Python that use ``model``, where the entry's ``cfg`` has none under that name.
        tested: a sentence of where the metrics were measured, with ``{}`` for the data.
        unknown: what remains unknown beyond these data.
        quality: what time steps change.
        item: what is counted where the metrics were measured.
        per: what operations and energies are told of.
        same_samples: what a card says where the samples that were measured also chose the checkpoint, with
            ``{}`` for `quality`.
        facts: rows about inputs and outputs, from the entry's ``cfg``.
        defaults: of ``cfg``, where an entry does not say otherwise.
        demo: whether ``fulgurite demo`` has a page for it.
        timm: whether ``timm.create_model`` can build it.
    """

    name: str
    noun: str
    pipeline_tag: str
    metrics: Mapping[str, Metric]
    headline: str
    call: str
    tested: str = "On the test set of {}."
    unknown: str = "how it does on other data is unknown"
    quality: str = "quality"
    item: str = "sample"
    per: str = "sample"
    same_samples: str = (
        "The checkpoint was chosen on the same samples that it is reported on, so the {} on others is likely"
        " to be lower."
    )
    tags: Sequence[str] = ()
    facts: Callable[[Mapping[str, Any]], Rows] = field(default_factory=lambda: plain_facts)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    demo: bool = False
    timm: bool = False

    @property
    def noun_phrase(self) -> str:
        """``noun`` with its article: "an agent"."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def step_of(self, key: str) -> int | None:
        """T of ``test/HEADLINE_tT``, the headline after T steps; None for every other name."""
        found = re.search(rf"(?:^|/){re.escape(self.headline)}_t(\d+)$", key)
        return int(found.group(1)) if found else None


CLASSIFICATION = Task(
    name="classification",
    noun="image classifier",
    pipeline_tag="image-classification",
    tags=("image-classification", "timm"),
    metrics={
        "acc1": Metric(label="top-1 accuracy", share=True, hub="accuracy"),
        "acc5": Metric(label="top-5 accuracy", share=True, hub="accuracy"),
        "ann_acc1": Metric(label="top-1 accuracy of the ANN", share=True),
        "agreement": Metric(label="same top-1 as the ANN", share=True),
    },
    headline="acc1",
    call="logits = model(images)",
    unknown="accuracy on other images is unknown",
    quality="accuracy",
    facts=image_facts,
    defaults={"input_size": (3, 224, 224), "num_classes": 1000},
    demo=True,
    timm=True,
)
CONTROL = Task(
    name="control",
    noun="agent",
    pipeline_tag="reinforcement-learning",
    tags=("reinforcement-learning",),
    metrics={
        "return": Metric(label="mean return of an episode", hub="mean_reward"),
        "return_std": Metric(label="standard deviation of the return over episodes"),
        "episode_steps": Metric(label="mean length of an episode", unit="decisions"),
    },
    headline="return",
    call="actions = model(observations)",
    tested="In {}.",
    unknown="its return in other environments is unknown",
    quality="return",
    item="episode",
    per="decision",
    facts=agent_facts,
)
REGRESSION = Task(
    name="regression",
    noun="network that estimates numbers",
    pipeline_tag="other",
    tags=("regression",),
    metrics={
        "mae": Metric(label="mean absolute error", hub="mae"),
        "rmse": Metric(label="root mean squared error", hub="rmse"),
        "r2": Metric(label="R2, the share of the variance explained", hub="r_squared"),
    },
    headline="mae",
    call="numbers = model(images)",
    unknown="its errors on other images are unknown",
    quality="mean absolute error",
    facts=estimate_facts,
)
MULTI_LABEL = Task(
    name="multi-label",
    noun="multi-label classifier",
    pipeline_tag="image-classification",
    tags=("image-classification", "multi-label"),
    metrics={
        "map": Metric(label="mean average precision", share=True, hub="map"),
        "f1": Metric(label="F1, mean over the classes", share=True, hub="f1"),
        "exact": Metric(label="samples with all labels right", share=True),
    },
    headline="map",
    call="probabilities = model(images).sigmoid()",
    unknown="its precision on other images is unknown",
    quality="mean average precision",
    facts=image_facts,
)
SEGMENTATION = Task(
    name="segmentation",
    noun="segmentation network",
    pipeline_tag="image-segmentation",
    tags=("image-segmentation",),
    metrics={
        "miou": Metric(label="mean IoU of the classes", share=True, hub="mean_iou"),
        "pixel_acc": Metric(label="pixels right", share=True, hub="accuracy"),
    },
    headline="miou",
    call="classes = model(images).argmax(1)  # of every pixel",
    unknown="how it does on other images is unknown",
    quality="mean IoU",
    facts=image_facts,
    defaults={"input_size": (3, 224, 224), "num_classes": 21},
)
IMAGE_QUALITY = {
    "psnr": Metric(label="PSNR", unit="dB", hub="psnr"),
    "ssim": Metric(label="SSIM", hub="ssim"),
    "lpips": Metric(label="LPIPS", hub="lpips"),
    "fid": Metric(label="FID", hub="fid"),
}
IMAGE_TO_IMAGE = Task(
    name="image-to-image",
    noun="image-to-image network",
    pipeline_tag="image-to-image",
    metrics={
        **IMAGE_QUALITY,
        "inside_acc": Metric(label="changed pixels right", share=True),
        "building_iou": Metric(label="IoU of building inside the change"),
        "pixel_acc": Metric(label="all pixels right", share=True),
        "copy_psnr": Metric(label="PSNR of the image before", unit="dB"),
        "copy_ssim": Metric(label="SSIM of the image before"),
    },
    headline="psnr",
    call="made = model(images)",
    demo=True,
)
RECONSTRUCTION = Task(
    name="reconstruction",
    noun="reconstruction network",
    pipeline_tag="image-to-3d",
    metrics={
        **IMAGE_QUALITY,
        "psnr_sequence": Metric(label="PSNR over the exposure", unit="dB"),
        "ssim_sequence": Metric(label="SSIM over the exposure"),
        "recon_psnr": Metric(label="PSNR of Recon-Net", unit="dB"),
        "recon_ssim": Metric(label="SSIM of Recon-Net"),
        "recon_psnr_sequence": Metric(label="PSNR of Recon-Net over the exposure", unit="dB"),
        "short_tfp_psnr": Metric(label="PSNR of the mean of 41 frames", unit="dB"),
        "tfp_psnr": Metric(label="PSNR of the long exposure", unit="dB"),
    },
    headline="psnr",
    call="images = model(inputs)  # what these are: help(type(model).forward)",
    tested="On {}.",
    unknown="it knows no other scene",
    same_samples=(
        "A scene is fitted to the views that it is reported on. The loss, which sees no true image, chose the"
        " checkpoint; true images only measured it."
    ),
)
LANGUAGE = Task(
    name="language",
    noun="language model",
    pipeline_tag="text-generation",
    metrics={
        "perplexity": Metric(label="perplexity", hub="perplexity"),
        "accuracy": Metric(label="next-token accuracy", share=True, hub="accuracy"),
        "loss": Metric(label="cross-entropy", unit="nats per token"),
        "dida_loss": Metric(label="cross-entropy of noisy image codes", unit="nats per code"),
        "score": Metric(label="images drawn token by token that a judge recognises", share=True),
        "image_passes": Metric(label="passes of an image drawn token by token"),
        "image_seconds": Metric(label="time of an image drawn token by token", unit="s"),
        "dida_score": Metric(label="images drawn at once (DiDA) that a judge recognises", share=True),
        "dida_image_passes": Metric(label="passes of an image drawn at once"),
        "dida_image_seconds": Metric(label="time of an image drawn at once", unit="s"),
    },
    headline="perplexity",
    call="logits = model(tokens)",
    unknown="how likely it finds other texts and images is unknown",
    quality="perplexity",
    demo=True,
)

_TASKS = {
    task.name: task
    for task in (
        CLASSIFICATION,
        REGRESSION,
        MULTI_LABEL,
        SEGMENTATION,
        CONTROL,
        IMAGE_TO_IMAGE,
        RECONSTRUCTION,
        LANGUAGE,
    )
}


def register_task(task: Task) -> Task:
    """Add a task, so that entries may name it.

    Raises:
        ValueError: another task has this name.
    """
    if _TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"there is a task {task.name!r} already")
    return task


def list_tasks() -> list[str]:
    """Names of all tasks."""
    return list(_TASKS)


def get_task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _TASKS:
        raise ValueError(
            f"unknown task {name!r}; {did_you_mean(name, _TASKS)}known: {', '.join(_TASKS)};"
            " zoo.register_task adds one"
        )
    return _TASKS[name]
