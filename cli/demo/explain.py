"""What a network makes of one image, step by step: prediction, spikes, energy."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps

import spiking
import zoo
from datamodules.loading.decode import eight_bit
from lightning_modules import figures
from spiking.measure.energy import E_AC, E_MAC

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.transform import Transform

LAYERS = 4  # in the raster


@dataclass(frozen=True)
class Explanation:
    """One image through one network.

    Attributes:
        image: what the network saw, normalised, ``[C, H, W]``.
        probabilities: after every step, of the mean logits so far, ``[T, K]``.
        labels: of the classes.
        spikes: ``[T, neurons]`` of some layers; empty for networks without neurons.
        firing_rate: spikes per neuron and step, over all layers; 0 for networks without neurons.
        energy: operations and energy of this image.
    """

    image: Tensor
    probabilities: Tensor
    labels: list[str]
    spikes: dict[str, Tensor]
    firing_rate: float
    energy: spiking.EnergyReport

    def best(self, step: int, count: int = 5) -> dict[int, float]:
        """The most probable classes after ``step`` steps (from 1) by number, most probable first."""
        values, classes = self.probabilities[step - 1].topk(min(count, self.probabilities.shape[1]))
        return dict(zip(classes.tolist(), values.tolist(), strict=True))

    @property
    def energy_text(self) -> str:
        """Operations behind the energy, and what is assumed."""
        report = self.energy
        assumed = (
            f"Estimated for 45 nm: {E_MAC} pJ a multiply-accumulate, {E_AC} pJ"
            " an addition, no memory traffic."
        )
        if not self.spikes:
            return f"{report.macs:,.0f} multiply-accumulates. {assumed}"
        ratio = report.ann_energy_mj / report.energy_mj if report.energy_mj else float("inf")
        return (
            f"{report.sops:,.0f} additions caused by spikes and {report.macs:,.0f} multiply-accumulates. The"
            f" same network as an ANN needs {ratio:.1f} times as much. {assumed}"
        )


def explain(model: nn.Module, image: Image.Image, invert: bool = False) -> Explanation:
    """Run one image.

    Args:
        model: a network of the zoo or of timm, in evaluation mode.
        image: of any size and mode.
        invert: exchange light and dark first; networks for digits expect light ones on dark ground.
    """
    x = prepare(model, image, invert)
    batch = x.unsqueeze(0)
    neurons = any(isinstance(module, spiking.Neuron) for module in model.modules())
    spikes: dict[str, Tensor] = {}
    rate = 0.0
    with torch.no_grad():
        if neurons:
            with spiking.FiringRateMonitor(model, raster=True) as monitor:
                logits = model(batch, steps=True)
            rasters, rate = monitor.rasters(), monitor.rate()
            spikes = {name: figures.thinned(rasters[name]) for name in figures.spread(list(rasters), LAYERS)}
        else:
            logits = model(batch).unsqueeze(0)
    counts = torch.arange(1, len(logits) + 1).reshape(-1, 1, 1)
    probabilities = (logits.cumsum(dim=0) / counts).softmax(dim=-1)[:, 0]
    return Explanation(
        image=x,
        probabilities=probabilities,
        labels=class_names(model, probabilities.shape[1]),
        spikes=spikes,
        firing_rate=rate,
        energy=spiking.profile_energy(model, batch),
    )


def prepare(model: nn.Module, image: Image.Image, invert: bool = False) -> Tensor:
    """The image as the network's evaluation has it, ``[C, H, W]``: resized, cropped, normalised."""
    transform = preprocessing(model)
    image = eight_bit(image, transform.input_size[0])
    return transform(ImageOps.invert(image) if invert else image)


def preprocessing(model: nn.Module) -> Transform:
    """How the network wants its images.

    Raises:
        ValueError: images cannot be shown to this network.
    """
    if not getattr(model, "num_classes", 0):
        raise ValueError("this network has no classes, so there is no prediction to show")
    return zoo.transform(model)


def class_names(model: nn.Module, classes: int) -> list[str]:
    """Names that the weights came with, ImageNet's for its 1,000 classes, or numbers.

    Names that several classes share (crane, the bird and the machine) get the number of the class.
    """
    cfg: dict[str, Any] = dict(getattr(model, "pretrained_cfg", None) or {})
    names = getattr(model, "label_names", None) or cfg.get("label_names")
    if not names or len(names) != classes:
        if classes != 1000:
            return [str(k) for k in range(classes)]
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        names = [info.index_to_description(k) for k in range(classes)]
    told = [str(name) for name in names]
    shared = {name for name, count in Counter(told).items() if count > 1}
    return [f"{name} ({k})" if name in shared else name for k, name in enumerate(told)]
