"""Figures of a run, drawn without a display."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from zoo.files.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from lightning_modules.side_by_side import Row

Curve = tuple["Sequence[float]", "Sequence[float]"]
MOST_NEURONS = 400  # of a layer in a raster; more dots than that are a grey wall
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#4a5568"
COLOURS = (BLUE, ORANGE, "#2f855a", "#805ad5", "#c53030", "#0987a0", GREY)
FEW_STEPS = 8  # that a linear axis shows well


def save(figure: Figure, path: Path, *, svg: bool = False) -> Path:
    """Write a PNG; a half-written one never replaces a whole one.

    Args:
        figure: what to write.
        path: of the PNG.
        svg: whether an SVG of the same name, which stays sharp in print, is written beside it.
    """
    with replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)
    if svg:
        with replacing(path.with_suffix(".svg")) as file:
            FigureCanvasSVG(figure).print_svg(file)
    return path


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    spreads: Mapping[str, Sequence[float]] | None = None,
    over: str = "step",
) -> Figure:
    """What was logged, one line for each name.

    Args:
        panels: curves by name, for each quantity.
        spreads: standard deviations at the points of some of the curves, drawn as bands.
        over: what the curves are drawn against, the title of the x axis.
    """
    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    columns = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, lines) in zip(columns, panels.items(), strict=True):
        for (name, (x, y)), colour in zip(lines.items(), (BLUE, ORANGE, GREY), strict=False):
            few = len(x) < 50
            axes.plot(x, y, color=colour, label=name, marker="o" if few else None, lw=1.2, ms=3)
            if spread := (spreads or {}).get(name):
                low, high = ([a + s * b for a, b in zip(y, spread, strict=True)] for s in (-1, 1))
                axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        axes.set(xlabel=over, ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(frameon=False)
    return figure


def side_by_side(rows: Sequence[Row]) -> Figure:
    """Quality of several networks against T, energy, and latency where a network rehearses.

    Bands and bars are standard deviations over seeds.

    Args:
        rows: the networks, all of one metric.
    """
    costs: list[tuple[str, Callable[[Row, int], float | None]]] = [("time steps T", lambda row, t: t)]
    if any(row.energy_uj for row in rows):
        costs.append(("energy of a sample, uJ", _energy))
    if any(row.latency.get(t, t) != t for row in rows for t in row.quality):
        costs.append(("latency in steps, rehearsals included", lambda row, t: row.latency.get(t, t)))
    figure = Figure(figsize=(4.6 * len(costs) + 0.8, 4.2), layout="constrained")
    columns = figure.subplots(1, len(costs), squeeze=False)[0]
    for row, colour in zip(rows, cycle(COLOURS), strict=False):
        for axes, (_, cost) in zip(columns, costs, strict=True):
            _draw_row(axes, row, cost, colour)
    metric = rows[0].metric
    unit = "%" if metric.share else metric.unit
    for axes, (label, _) in zip(columns, costs, strict=True):
        axes.set(xlabel=label, ylabel=f"{metric.label}, {unit}" if unit else metric.label)
        _scale_of_costs(axes, energy=label.startswith("energy"))
        axes.grid(alpha=0.3)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _energy(row: Row, t: int) -> float | None:
    found = row.energy_uj.get(t)
    return None if found is None else found.mean


def _draw_row(axes: Any, row: Row, cost: Callable[[Row, int], float | None], colour: str) -> None:
    times = 100 if row.metric.share else 1
    points = [(place, t) for t in row.quality if (place := cost(row, t)) is not None]
    x = [place for place, _ in points]
    y = [times * row.quality[t].mean for _, t in points]
    wide = [0.0 if math.isnan(d := row.quality[t].deviation) else times * d for _, t in points]
    count = len(row.seeds)
    label = row.name if count == 1 else f"{row.name} ({count} seeds)"
    axes.plot(x, y, color=colour, marker="o", ms=4, lw=1.4, label=label)
    if len(x) == 1:
        axes.errorbar(x, y, yerr=wide, color=colour, capsize=2)
    else:
        low, high = ([a + s * b for a, b in zip(y, wide, strict=True)] for s in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)


def _scale_of_costs(axes: Any, *, energy: bool) -> None:
    """Steps at whole numbers; powers of two where some are many, and powers of ten for far energies."""
    low, high = axes.dataLim.intervalx
    if energy:
        if high > 10 * low > 0:
            axes.set_xscale("log")
    elif high > 2 * FEW_STEPS:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


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
        first = axes.pop(0)
        first.imshow(_shown(image), cmap="gray")
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


def token_maps(image: Tensor, scores: Tensor, kept: Tensor, title: str) -> Figure:
    """Where the important tokens of one image are, after each step, and which of them stay.

    Colours are ranks, because only the order of the scores decides.

    Args:
        image: ``[C, H, W]``, any range.
        scores: ``[T, h, w]`` on the grid of the tokens.
        kept: ``[h, w]``, bool.
        title: of the figure.
    """
    T = len(scores)
    columns = min(T + 2, 6)
    rows = -(-(T + 2) // columns)
    figure = Figure(figsize=(1.75 * columns + 0.9, 1.85 * rows + 0.55), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    shown = _shown(image)
    height, width = shown.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    for panel in panels:
        panel.set_axis_off()
    panels[0].imshow(shown, cmap="gray")
    panels[0].set_title("input", fontsize=9)
    drawn = None
    for t, panel in enumerate(panels[1 : T + 1]):
        panel.imshow(0.3 + 0.7 * shown, cmap="gray", vmin=0, vmax=1)  # on black, colours would drown
        drawn = panel.imshow(_ranks(scores[t]), cmap="inferno", alpha=0.65, extent=extent, vmin=0, vmax=1)
        panel.set_title(f"after step {t + 1}", fontsize=9)
    last = panels[T + 1]
    last.imshow(shown, cmap="gray")
    rest = kept.cpu().logical_not().float().numpy()
    last.imshow(rest, cmap=ListedColormap(["#00000000", "#2b6cb0"]), alpha=rest * 0.85, extent=extent)
    last.set_title(f"{int(kept.sum())} of {kept.numel()} stay (not blue)", fontsize=9)
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=panels, shrink=0.7, pad=0.01)
        bar.set_ticks([0, 1], labels=["least", "most important"], fontsize=8)
        if bar.solids is not None:
            bar.solids.set_alpha(1)
    figure.suptitle(title, fontsize=9)
    return figure


def _shown(image: Tensor) -> Any:
    """An image ``[H, W, 3]`` or ``[H, W]`` in 0..1."""
    x = image.float().cpu()
    x = x if len(x) in (1, 3) else x.mean(dim=0, keepdim=True)
    low, high = x.min(), x.max()
    x = ((x - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0)
    return x.numpy() if x.shape[-1] == 3 else x[..., 0].numpy()


def _ranks(scores: Tensor) -> Any:
    """Ranks ``[h, w]`` in 0..1; equal scores share theirs."""
    flat = scores.flatten().cpu()
    below = (flat[:, None] > flat).sum(1) + (flat[:, None] >= flat).sum(1) - 1
    return (below / max(1, 2 * len(flat) - 2)).reshape(scores.shape).numpy()


def firing_rates(rates: Mapping[str, float], on: str = "") -> Figure:
    """Mean firing rate of each layer as bars, with a title that says on which samples."""
    figure = Figure(figsize=(7, 0.6 + 0.28 * len(rates)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(rates), list(rates.values()), color=BLUE)
    axes.invert_yaxis()
    axes.set(xlabel="spikes per neuron and step")
    axes.set_title(on, fontsize=8)
    axes.grid(axis="x", alpha=0.3)
    return figure


def accuracy_over_time(accuracy: Mapping[int, float], ann: float, on: str = "") -> Figure:
    """Accuracy of a converted network against T, and that of its source as a line, with a title as above."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(ann, color=GREY, lw=1, ls="--", label=f"ANN {ann:.2%}")
    axes.plot(list(accuracy), list(accuracy.values()), color=BLUE, marker="o", ms=4, lw=1.2, label="SNN")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(accuracy), [str(steps) for steps in accuracy])
    axes.minorticks_off()
    axes.set(xlabel="time steps T", ylabel="accuracy")
    axes.set_title(on, fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def over_time(lines: Mapping[str, Sequence[float]], time_steps: int) -> Figure:
    """Probability of some classes after every step so far, one line for each."""
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.subplots()
    for (name, values), colour in zip(lines.items(), (BLUE, ORANGE, GREY), strict=False):
        axes.plot(range(1, len(values) + 1), values, color=colour, label=name, marker="o", lw=1.5, ms=4)
    axes.set(xlim=(0.5, time_steps + 0.5), ylim=(0, 1.02), xlabel="step", ylabel="probability")
    axes.set_xticks(range(1, time_steps + 1, max(1, time_steps // 8)))
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(frameon=False)
    return figure


def spread(names: list[str], count: int) -> list[str]:
    """Up to ``count`` names, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


def thinned(spikes: Tensor) -> Tensor:
    """At most `MOST_NEURONS` of the neurons in ``[T, neurons]``, evenly spaced."""
    step = -(-spikes.shape[1] // MOST_NEURONS)
    return spikes[:, ::step]
