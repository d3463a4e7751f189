"""Sums of what was counted, layer by layer, over all calls of a model.

Axes: T time, B batch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.measure.axes import InputAxes, passes
from spiking.measure.energy import EnergyReport, LayerEnergy
from spiking.measure.spikes import MAX_LEVEL, UNITS, additions_per_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.measure.operators import Call

NEURONS = "neuron updates"  # how reports call what neurons do
SOPS, SPIKES, ELEMENTS, MACS, ANALOG_CALLS = range(5)


@dataclass
class _Count:
    """Sums of one layer over all samples; the tensor stays on the device."""

    kind: str
    sums: Tensor  # [5] float64, see the indices above
    calls: int = 0
    dense: float = 0.0
    real: float = 0.0  # dense MACs without those on zero padding
    single: float = 0.0  # dense MACs of one pass, times the samples


@dataclass
class _Forward:
    """One call of the model while it runs: what can only be told when T and B are known."""

    axes: InputAxes | None = None
    pending: dict[str, list[tuple[int, tuple[int, ...], bool]]] = field(default_factory=dict)
    first: tuple[str, Tensor, Tensor] | None = None  # sums of the first layer if it sees an image, or frames
    images: int = 0  # of a list


class Tally:
    """Operations of the layers of one model.

    Args:
        spike_values: heights of one spike in this model.
        time_steps: T of inputs without a time axis, where no single tensor tells more.

    Attributes:
        samples: seen in all calls that have ended.
        uncounted: values that other operators gave out, by name.
    """

    def __init__(self, spike_values: Sequence[float], time_steps: int) -> None:
        self._spike_values, self._time_steps = spike_values, time_steps
        self.samples = 0
        self.uncounted: Counter[str] = Counter()
        self._layers: dict[str, _Count] = {}
        self._forward = _Forward()

    @property
    def axes(self) -> InputAxes | None:
        """T and B of the call that is running; None for a list of images."""
        return self._forward.axes

    def begin(self, axes: InputAxes | None, images: int = 0) -> None:
        """Start one call of the model, on a tensor with these axes, or on a list of so many images."""
        self._forward = _Forward(axes=axes, images=images)

    def add(self, name: str, call: Call) -> None:
        """Add one call of the layer ``name``."""
        with torch.no_grad():
            forward, axes = self._forward, self._forward.axes
            x, work = call.operands[0]
            count = self._row(name, call.kind, x.device)
            if axes is not None and call.space:
                axes.see_convolution(x, call.space)
            count.calls += 1
            count.dense += work.dense
            count.real += work.real
            still = axes is None or not axes.after_neuron
            forward.pending.setdefault(name, []).append((work.dense, call.leading, still))
            if forward.first is None:  # images have few levels, too
                image, events = (
                    _sums(call, UNITS[:1], most, (1.0,)).to(count.sums.device) for most in (1, MAX_LEVEL)
                )
                forward.first = (name, image, events)
            else:
                sums = _sums(call, UNITS, MAX_LEVEL, self._spike_values)
                count.sums += sums.to(count.sums.device)

    def finish(self) -> None:
        """End the call of the model and add what had to wait for T and B."""
        forward, self._forward = self._forward, _Forward()
        T, B, frames = self._time_steps, forward.images, False
        if forward.axes is not None:
            T, B, frames = forward.axes.resolve()
        self.samples += B
        if forward.first is not None:
            name, image, events = forward.first
            self._layers[name].sums += events if frames else image
        for name, made in forward.pending.items():
            steps = [passes(leading, T, B) if frames or not still else 1 for _, leading, still in made]
            single = sum(dense / n for (dense, _, _), n in zip(made, steps, strict=True))
            looped = set(steps) == {1} and len(made) % T == 0  # the model goes through its steps one by one
            self._layers[name].single += single / T if looped else single

    def add_counted(self, name: str, found: Any, device: torch.device) -> None:
        """Add what a part of the model, at the path ``name``, has counted itself."""
        for row in found.layers:
            count = self._row(f"{name}.{row.name}" if name else row.name, row.kind, device)
            sums = [row.sops.sum(), row.spikes_in, row.elements, row.macs.sum(), float(not row.spikes)]
            count.sums += torch.tensor(sums, dtype=torch.float64, device=device)
            count.calls += 1
            count.dense += row.dense_macs
            count.real += row.dense_macs * (1 - getattr(row, "padding", 0.0))
            count.single += row.ann_macs
        self.uncounted.update(getattr(found, "uncounted", {}))

    def _row(self, name: str, kind: str, device: torch.device) -> _Count:
        if name not in self._layers:
            device = torch.device("cpu") if device.type == "meta" else device
            self._layers[name] = _Count(kind, torch.zeros(5, dtype=torch.float64, device=device))
        return self._layers[name]

    def totals(self) -> Tensor:
        """``[samples, macs, sops, ann_macs]``, float64, over all samples: sums that can be reduced."""
        table = [
            torch.stack([c.sums.new_zeros(()), c.sums[MACS], c.sums[SOPS], c.sums.new_full((), c.single)])
            for c in self._layers.values()
        ]
        total = torch.zeros(4, dtype=torch.float64, device=table[0].device if table else None)
        total[0] = self.samples
        for row in table:
            total += row.to(total.device)
        return total

    def report(self, model: str, batch_size: int | None = None) -> EnergyReport:
        """Numbers for one sample of the network ``model``.

        Raises:
            RuntimeError: nothing was counted.
        """
        samples = batch_size or self.samples
        if not self._layers or not samples:
            others = ", ".join(self.uncounted)
            raise RuntimeError(
                f"no convolution, linear layer or matrix product of {model} has run"
                " inside the with block, so there is nothing to report"
                + (f"; what has run is not counted: {others}" if others else "")
            )
        return EnergyReport(
            rows=tuple(_line(name, count, samples) for name, count in self._layers.items()),
            samples=samples,
            uncounted={name: n / samples for name, n in self.uncounted.most_common()},
        )


def _sums(call: Call, units: Sequence[int], most: int, values: Sequence[float]) -> Tensor:
    """Additions, spikes, elements, MACs and analog calls ``[5]`` of one call, as its values are."""
    best: Tensor | None = None
    for x, work in call.operands:
        if x.is_meta:  # no values
            return torch.tensor([0.0, 0, 0, work.dense, 1], dtype=torch.float64)
        unit = additions_per_value(x, units, most, values)
        one = torch.ones_like(unit)
        spikes = [work.sops[0] * unit, work.entries[0] * unit, one * work.elements, one * 0, one * 0]
        analog = [one * 0, one * 0, one * 0, one * work.dense, one]
        sums = torch.where(unit == 0, torch.stack(analog), torch.stack(spikes))
        if best is None:
            best = sums
        else:  # spikes rather than MACs, then what adds less
            fewer = (sums[MACS] < best[MACS]) | ((sums[MACS] == best[MACS]) & (sums[SOPS] < best[SOPS]))
            best = torch.where(fewer, sums, best)
    assert best is not None
    return best


def _line(name: str, count: _Count, samples: int) -> LayerEnergy:
    sums = count.sums.tolist()
    analog = sums[ANALOG_CALLS]
    return LayerEnergy(
        name=name,
        kind=count.kind,
        input="spikes" if not analog else "analog" if analog == count.calls else "mixed",
        macs=sums[MACS] / samples,
        sops=sums[SOPS] / samples,
        firing_rate_in=sums[SPIKES] / sums[ELEMENTS] if sums[ELEMENTS] else None,
        dense_macs=count.dense / samples,
        ann_macs=count.single / samples,
        padding=1 - count.real / count.dense if count.dense else 0.0,
    )
