"""What is known about a model without building it in earnest: sizes, operations, weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from spiking import Neuron
from zoo.rebuild import build_timm
from zoo.registry import get_entry, split_tag
from zoo.tasks import CLASSIFICATION, get_task
from zoo.timm_bridge.names import PREFIX, arxiv_id, no_timm, timm_family, timm_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from zoo.files.weights import WeightsCfg
    from zoo.registry import Entry


@dataclass(frozen=True)
class Description:
    """What ``zoo.describe`` answers; ``str()`` of it is a readable card.

    Attributes:
        name: of the entry, or ``timm/NAME``.
        family: the file it is written in.
        task: what it is for.
        parameters: their number; None if a library is missing to build it and the entry does not say.
        spiking: whether it has neurons and takes T; the analog ones do not.
        time_steps: T for still images; 1 for analog networks.
        num_classes: K of the default classifier; None for other tasks.
        input_size: ``(C, H, W)`` of the default input; None where it is no image.
        facts: what else the entry says of inputs and outputs, as (label, value); of image classifiers none.
        paper: arXiv id.
        weights: by tag, the one that ``zoo.load`` takes first.
    """

    name: str
    family: str
    task: str
    parameters: int | None
    spiking: bool
    time_steps: int
    num_classes: int | None
    input_size: tuple[int, int, int] | None
    paper: str | None
    facts: tuple[tuple[str, str], ...] = ()
    weights: dict[str, WeightsCfg] = field(default_factory=dict)
    build: Callable[..., nn.Module] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates of one dense pass, as in an ANN: T = 1, one sample.

        Counted when asked for, on the meta device: convolutions, linear layers and matrix products,
        attention included. None if the network cannot run there.
        """
        if self.build is None or self.input_size is None:
            return None
        return count_macs(self.build, self.input_size, self.spiking)

    @property
    def sops(self) -> float | None:
        """Synaptic operations of one sample over all T, as measured with the first weights that record it.

        They depend on the weights and the images, so an entry without weights has none;
        ``spiking.profile_energy(model, images)`` measures them.
        """
        recorded = (w.metrics.get("test/sops") for w in self.weights.values())
        return next((value for value in recorded if value is not None), None)

    def __str__(self) -> str:
        macs = "unknown" if self.macs is None else f"{_short(self.macs)} (one dense pass, T = 1)"
        rows = [
            ("family", self.family),
            ("task", self.task),
            ("parameters", "unknown" if self.parameters is None else f"{self.parameters:,}"),
            ("MACs", macs),
            ("time steps", f"T = {self.time_steps}" if self.spiking else "none, an ANN"),
            *self._inputs(),
            ("paper", f"arXiv {self.paper}" if self.paper else "-"),
        ]
        if self.spiking:
            sops = "depend on weights and images: spiking.profile_energy(model, images)"
            if self.sops is not None:
                sops = f"{_short(self.sops)} a sample over all T, measured with the first weights"
            rows.insert(4, ("SOPs", sops))
        for tag, cfg in self.weights.items():
            facts = [f"{k} {v:g}" for k, v in cfg.metrics.items() if get_task(self.task).step_of(k) is None]
            facts += [_measured_on(cfg)] if cfg.metrics and (cfg.measured or cfg.dataset) else []
            facts += [f"licence {cfg.licence}"] if cfg.licence else []
            rows.append(("weights", f"{self.name}.{tag}" + (f" ({', '.join(facts)})" if facts else "")))
        if not self.weights:
            rows.append(("weights", "none"))
        return "\n".join([self.name, *(f"  {key:<11} {value}" for key, value in rows)])

    def _inputs(self) -> list[tuple[str, str]]:
        rows = [(label.lower(), value) for label, value in self.facts]
        if self.input_size is not None:
            channels, height, width = self.input_size
            rows.append(("input", f"C = {channels}, H = {height}, W = {width}"))
        if self.num_classes is not None:
            rows.append(("classes", f"K = {self.num_classes}"))
        return rows


def describe(name: str) -> Description:
    """Sizes, T, input, paper and weights of an entry or of ``timm/NAME``; built on the meta device.

    >>> describe("spiking-cnn-nano").parameters
    117882
    """
    if name.startswith(PREFIX):
        return _describe_timm(name.removeprefix(PREFIX))
    entry = get_entry(name)
    weights = entry.weights
    if not entry.listed and weights:
        return _describe_weights(entry, weights, split_tag(name)[1])
    model = None if entry.parameters is not None else _on_meta(entry.fn)
    size = entry.cfg.get("input_size")
    classes = getattr(model, "num_classes", entry.cfg.get("num_classes"))
    task = get_task(entry.task)
    return Description(
        name=entry.name,
        family=entry.family,
        task=entry.task,
        parameters=entry.parameters if model is None else sum(p.numel() for p in model.parameters()),
        spiking="time_steps" in getattr(model, "model_args", {}),
        time_steps=int(getattr(model, "time_steps", 1)),
        num_classes=None if classes is None else int(classes),
        input_size=None if size is None else (int(size[0]), int(size[1]), int(size[2])),
        paper=entry.paper,
        facts=() if task == CLASSIFICATION else tuple(task.facts(entry.cfg)),
        weights=weights,
        build=entry.fn,
    )


def _describe_weights(entry: Entry, weights: dict[str, WeightsCfg], tag: str | None) -> Description:
    """An entry that means nothing without arguments: what its weights, which bring them, record.

    Those of the tag, or the first.
    """
    told = weights.get(tag or "") or next(iter(weights.values()))
    return Description(
        name=entry.name,
        family=entry.family,
        task=entry.task,
        parameters=told.parameters,
        spiking=told.time_steps is not None,
        time_steps=told.time_steps or 1,
        num_classes=told.num_classes,
        input_size=told.input_size,
        paper=told.paper,
        weights=weights,
    )


def _on_meta(build: Callable[..., nn.Module]) -> nn.Module | None:
    """The model without its numbers; None where a library is missing."""
    try:
        with torch.device("meta"):
            return build()
    except ModuleNotFoundError:
        return None


def _describe_timm(name: str) -> Description:
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise ValueError(no_timm(name))
    weights = timm_weights(base)
    if tag:
        if tag not in weights:
            known = ", ".join(weights) or "none"
            raise FileNotFoundError(f"timm has no weights {name!r}; of {base} it has: {known}")
        weights = {tag: weights[tag]}
    cfg: Any = timm.get_pretrained_cfg(name)

    def build() -> nn.Module:
        return build_timm(name, {})

    with torch.device("meta"):
        model = build()
    return Description(
        name=PREFIX + base,
        family=timm_family(base),
        task="classification" if cfg.num_classes else "features",
        parameters=sum(p.numel() for p in model.parameters()),
        spiking=False,
        time_steps=1,
        num_classes=int(cfg.num_classes),
        input_size=tuple(cfg.input_size),
        paper=arxiv_id(cfg.paper_ids),
        weights=weights,
        build=build,
    )


@lru_cache(maxsize=1024)  # an entry's number stays what it is
def count_macs(
    build: Callable[..., nn.Module], input_size: tuple[int, int, int], spiking: bool
) -> int | None:
    """Multiply-accumulates of one dense pass over one sample ``[1, C, H, W]``; None if it cannot run.

    Neurons and batch norms are passed by: they have none, and would take most of the time.

    Args:
        build: makes the model.
        input_size: ``(C, H, W)``.
        spiking: whether the model takes T, which is then 1.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(time_steps=1) if spiking else build()
        images = torch.empty(1, *input_size)
    for module in model.modules():
        if isinstance(module, Neuron | nn.modules.batchnorm._BatchNorm):
            cast("Any", module).forward = _pass
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(images)
    except (RuntimeError, NotImplementedError):  # a step that looks at values, which meta tensors have not
        return None
    return int(counter.get_total_flops()) // 2  # it counts a multiplication and an addition as two


def _pass(currents: Tensor) -> Tensor:
    return currents


def _measured_on(cfg: WeightsCfg) -> str:
    """Which samples the metrics of weights are of."""
    split, seen, of = (cfg.measured.get(key) for key in ("split", "samples", "of"))
    data = cfg.measured.get("data") or cfg.dataset
    count = "" if seen is None else f"{seen:,} " + (f"of {of:,} " if of not in (None, seen) else "")
    return f"measured on {count}{f'{split} ' if split else ''}samples" + (f" of {data}" if data else "")


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}"
