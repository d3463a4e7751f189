"""Figures of a run, drawn without a display."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

Curve = tuple["Sequence[float]", "Sequence[float]"]
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#4a5568"


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG; a half-written one never replaces a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    FigureCanvasAgg(figure).print_png(part)
    os.replace(part, path)
    return path


def curves(loss: Mapping[str, Curve], accuracy: Mapping[str, Curve]) -> Figure:
    """Loss and accuracy against the optimiser step, one line for each name."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, lines, label in zip(figure.subplots(1, 2), (loss, accuracy), ("loss", "accuracy"), strict=True):
        for (name, (x, y)), colour in zip(lines.items(), (BLUE, ORANGE, GREY), strict=False):
            few = len(x) < 50
            axes.plot(x, y, color=colour, label=name, marker="o" if few else None, lw=1.2, ms=3)
        axes.set(xlabel="step", ylabel=label)
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(frameon=False)
    return figure


def raster(spikes: Mapping[str, Tensor], image: Tensor | None = None) -> Figure:
    """Spikes of one sample: a dot for every neuron and step, one panel for each layer.

    Args:
        spikes: ``[T, neurons]`` of each layer.
        image: the sample, ``[C, H, W]``, shown beside.
    """
    panels = len(spikes) + (image is not None)
    figure = Figure(figsize=(2.2 * panels, 3.2), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if image is not None:
        shown = image.float().cpu()
        low, high = shown.min(), shown.max()
        shown = ((shown - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0)
        first = axes.pop(0)
        first.imshow(shown.numpy() if shown.shape[-1] == 3 else shown[..., 0].numpy(), cmap="gray")
        first.set_title("input")
        first.set_axis_off()
    for panel, (name, train) in zip(axes, spikes.items(), strict=True):
        steps, neurons = train.nonzero(as_tuple=True)
        mark, size = ("_", 120) if len(train) <= 16 else ("|", 6)  # few steps: wide dashes
        panel.scatter(steps.numpy() + 1, neurons.numpy(), s=size, marker=mark, color=BLUE, lw=0.8)
        panel.set(xlim=(0.5, len(train) + 0.5), ylim=(-1, train.shape[1]), title=name, xlabel="step")
        panel.set_xticks(range(1, len(train) + 1, max(1, len(train) // 4)))
    if axes:
        axes[0].set_ylabel("neuron")
    return figure


def firing_rates(rates: Mapping[str, float]) -> Figure:
    """Mean firing rate of each layer as bars."""
    figure = Figure(figsize=(7, 0.6 + 0.28 * len(rates)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(rates), list(rates.values()), color=BLUE)
    axes.invert_yaxis()
    axes.set(xlabel="spikes per neuron and step")
    axes.grid(axis="x", alpha=0.3)
    return figure


def accuracy_over_time(accuracy: Mapping[int, float], ann: float) -> Figure:
    """Accuracy of a converted network against T, and that of its source as a line."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(ann, color=GREY, lw=1, ls="--", label=f"ANN {ann:.2%}")
    axes.plot(list(accuracy), list(accuracy.values()), color=BLUE, marker="o", ms=4, lw=1.2, label="SNN")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(accuracy), [str(steps) for steps in accuracy])
    axes.minorticks_off()
    axes.set(xlabel="time steps T", ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
