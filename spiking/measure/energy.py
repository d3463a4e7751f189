"""Operations and energy of a spiking network on real inputs, layer by layer.

A layer whose input is spikes only adds: one synaptic operation (SOP) for every spike and weight that
meet. A layer whose input is real-valued multiplies and adds: a MAC for every weight and position.

Axes: T time, B batch, C channels, H W map.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spiking.layers import SpikeMatmul
from spiking.measure.monitor import HookedModules
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Sequence

# 45 nm, 0.9 V, 32-bit floating point: M. Horowitz, "Computing's energy problem (and what we can do
# about it)", ISSCC 2014: multiplication 3.7 pJ, addition 0.9 pJ.
E_MAC = 4.6  # pJ
E_AC = 0.9  # pJ

# An input counts as spikes if all its values are multiples of one of these. 1 is plain spikes and sums
# of them (SEW residuals); the others are what average pooling makes of spikes, where the division goes
# into the weights and the additions remain.
UNITS = (1, 2, 4, 8, 16)
MAX_LEVEL = 128  # more additions than this for one value are no spikes any more, but an image

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COUNTED: tuple[type[nn.Module], ...] = (*CONVS, *TRANSPOSED, nn.Linear, SpikeMatmul)


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """What one layer does for one sample over all T.

    Attributes:
        name: path in the model.
        kind: ``conv``, ``linear`` or ``matmul``.
        input: ``spikes``, ``analog``, or ``mixed`` where calls differed.
        macs: multiply-accumulates, from analog inputs.
        sops: additions, from spikes; exact, borders included.
        firing_rate_in: mean spikes per input element and step; None for analog input.
        dense_macs: MACs that the layer would need over all T if nothing were sparse.
        ann_macs: the same for a single pass, as in an ANN.
    """

    name: str
    kind: str
    input: str
    macs: float
    sops: float
    firing_rate_in: float | None
    dense_macs: float
    ann_macs: float

    @property
    def energy_pj(self) -> float:
        """Energy in pJ: 4.6 a MAC, 0.9 a SOP."""
        return E_MAC * self.macs + E_AC * self.sops


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """Operations and energy for one sample; ``str()`` makes a table.

    Attributes:
        rows: one a layer, in the order of first use.
        samples: over how many samples the numbers are averaged.
    """

    rows: tuple[LayerEnergy, ...]
    samples: int = field(default=1)

    @property
    def macs(self) -> float:
        """Multiply-accumulates of layers with analog input."""
        return sum(row.macs for row in self.rows)

    @property
    def sops(self) -> float:
        """Synaptic operations: additions caused by spikes."""
        return sum(row.sops for row in self.rows)

    @property
    def energy_pj(self) -> float:
        """Energy in pJ."""
        return sum(row.energy_pj for row in self.rows)

    @property
    def energy_mj(self) -> float:
        """Energy in mJ."""
        return self.energy_pj * 1e-9

    @property
    def ann_macs(self) -> float:
        """MACs of the same network as an ANN: every layer dense, one pass."""
        return sum(row.ann_macs for row in self.rows)

    @property
    def ann_energy_mj(self) -> float:
        """Energy of the same network as an ANN, in mJ."""
        return self.ann_macs * E_MAC * 1e-9

    def without(self, *names: str) -> EnergyReport:
        """The report without some layers, by path."""
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise ValueError(f"no counted layer {name!r}; there are {', '.join(known)}")
        return replace(self, rows=tuple(row for row in self.rows if row.name not in names))

    def inner(self) -> EnergyReport:
        """The report without the first and the last layer, which papers usually leave out."""
        return replace(self, rows=self.rows[1:-1])

    def to_dict(self) -> dict[str, Any]:
        """Totals, constants and rows as plain values."""
        totals = ("macs", "sops", "energy_pj", "energy_mj", "ann_macs", "ann_energy_mj")
        return {
            **{name: getattr(self, name) for name in totals},
            "samples": self.samples,
            "pj_per_mac": E_MAC,
            "pj_per_sop": E_AC,
            "layers": [{**asdict(row), "energy_pj": row.energy_pj} for row in self.rows],
        }

    def __str__(self) -> str:
        head = ("layer", "kind", "input", "rate in", "MACs", "SOPs", "energy")
        lines = [
            (
                row.name or "(model)",
                row.kind,
                row.input,
                "-" if row.firing_rate_in is None else f"{row.firing_rate_in:.4f}",
                _short(row.macs),
                _short(row.sops),
                _joule(row.energy_pj),
            )
            for row in self.rows
        ]
        total = ("total", "", "", "", _short(self.macs), _short(self.sops), _joule(self.energy_pj))
        text = _table([head, *lines, total])
        ratio = f" ({self.energy_mj / self.ann_energy_mj:.2f} of it)" if self.ann_energy_mj else ""
        inner = self.inner()
        return "\n".join(
            [
                text,
                "",
                f"per sample over all time steps; {E_MAC} pJ a MAC, {E_AC} pJ an addition"
                " (45 nm, Horowitz, ISSCC 2014); no memory traffic, no neuron updates",
                f"the same network as an ANN, one pass: {_short(self.ann_macs)} MACs,"
                f" {_joule(self.ann_macs * E_MAC)}{ratio}",
                f"without the first and the last layer, as papers count: {_short(inner.sops)} SOPs,"
                f" {_short(inner.macs)} MACs, {_joule(inner.energy_pj)}",
            ]
        )


@dataclass
class _Count:
    """Sums of one layer over all samples; the tensor stays on the device."""

    kind: str
    sums: Tensor  # [5] float64, see the indices below
    calls: int = 0
    dense: float = 0.0
    single: float = 0.0  # dense MACs of one pass, times the samples


SOPS, SPIKES, ELEMENTS, MACS, ANALOG_CALLS = range(5)


class OperationCounter(HookedModules):
    """Counts operations of convolutions, linear layers and spike products inside a ``with`` block.

    Whether an input is spikes is decided by its values: all of them multiples of 1 (or of 1/2 ... 1/16,
    which average pooling makes of spikes), at most 128 of it; where outputs carry the threshold (LM-HT), of
    multiples of the thresholds in the model. A value of n units costs n additions.
    Anything else is analog and costs MACs. The first layer is stricter, since images come in a few
    grey levels, too: on a still image it takes only zeros and ones for spikes, on frames ``[T, B, ...]``
    only integers, which are event counts.

    A model, or a part of one, with a method ``count_operations(x)`` is asked instead, since heights of
    converted spikes differ from channel to channel: there every spike is one addition for each weight that it
    meets, and all other layers are analog. So count the codes of ECMT (2502.21193) and DCGS (2503.00301),
    which sum masks of the non-zero inputs; an average of spikes is one value in this, though hardware might
    add up to a whole pooling window.

    Norms are folded into the layer before them in hardware, and are not counted; neither are functions that
    are no module.

    Args:
        model: the model.
        time_axis: whether the input is ``[T, B, ...]``; None takes 3 and 5 axes for that, others for a
            batch ``[B, ...]`` that the model encodes to ``model.time_steps`` steps.
    """

    def __init__(self, model: nn.Module, time_axis: bool | None = None) -> None:
        super().__init__(model, COUNTED)
        self.time_axis = time_axis
        neurons = [module for module in model.modules() if isinstance(module, Neuron)]
        asked: list[str] = []
        for name, part in model.named_modules():  # these know their spikes, so nothing inside them is watched
            if hasattr(part, "count_operations") and not name.startswith(tuple(asked)):
                inside = name + "." if name else ""
                asked.append(inside)
                self._watched = {n: m for n, m in self._watched.items() if not n.startswith(inside)}
                self._watched[name] = part
        self._spike_values = sorted({float(neuron.spike_value) for neuron in neurons}) or [1.0]
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.samples = 0
        self._layers: dict[str, _Count] = {}
        self._axes = (1, 1)  # T and B of the current call
        self._frames = False  # whether the input has a time axis
        self._inner = False  # whether a counted layer has run in this call

    def begin(self, model: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Read T and B off the input of the model."""
        x = next((v for v in (*inputs, *arguments.values()) if isinstance(v, Tensor)), None)
        if x is None and inputs and isinstance(inputs[0], list | tuple):  # images of several sizes
            self._axes = (_time_steps(model), len(inputs[0]))
            self.samples, self._frames, self._inner = self.samples + len(inputs[0]), False, False
            return
        if x is None:
            raise TypeError(f"{type(model).__name__} was called without a tensor, so the batch is unknown")
        timed = x.dim() in (3, 5) if self.time_axis is None else self.time_axis
        self._axes = (x.shape[0], x.shape[1]) if timed else (_time_steps(model), x.shape[0])
        self.samples += self._axes[1]
        self._frames, self._inner = timed, False

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add one call of one layer."""
        if hasattr(module, "count_operations"):
            self._ask(name, module, inputs[0])
            return
        if isinstance(module, SpikeMatmul):
            a, b = inputs
            x = a if module.spike_operand == "a" else b
            fan = a.shape[-2] if module.spike_operand == "b" else b.shape[-1]
            fan *= output.shape[:-2].numel() // x.shape[:-2].numel()  # broadcast spikes are used again
            dense, kind, total = output.numel() * a.shape[-1], "matmul", None
        elif isinstance(module, nn.Linear):
            x, fan, kind, total = inputs[0], module.out_features, "linear", None
            dense = x.numel() * fan
        else:
            x, kind, fan = inputs[0], "conv", 1
            dense, total = _conv(module, x, output)
        count = self._row(name, kind, x.device)
        if self._inner:
            unit = _unit(x, UNITS, MAX_LEVEL, self._spike_values)
        else:
            unit = _unit(x, UNITS[:1], MAX_LEVEL if self._frames else 1, [1.0])
        self._inner = True
        spikes = x.detach().abs().sum(dtype=torch.float64) * unit
        arrived = spikes * fan if total is None else total * unit
        ones = torch.ones_like(unit)
        as_spikes = torch.stack([arrived, spikes, ones * x.numel(), ones * 0, ones * 0])
        as_analog = torch.stack([ones * 0, ones * 0, ones * 0, ones * dense, ones])
        count.sums += torch.where(unit == 0, as_analog, as_spikes)
        count.calls += 1
        count.dense += dense
        count.single += dense / self._passes(module, x)

    def _ask(self, name: str, part: Any, x: Any) -> None:
        """Add what a part of the model has counted itself."""
        device = x.device if isinstance(x, Tensor) else x[0].device
        for row in part.count_operations(x).layers:
            count = self._row(f"{name}.{row.name}" if name else row.name, row.kind, device)
            sums = [row.sops.sum(), row.spikes_in, row.elements, row.macs.sum(), float(not row.spikes)]
            count.sums += torch.tensor(sums, dtype=torch.float64, device=device)
            count.calls += 1
            count.dense += row.dense_macs
            count.single += row.ann_macs

    def _row(self, name: str, kind: str, device: torch.device) -> _Count:
        if name not in self._layers:
            self._layers[name] = _Count(kind, torch.zeros(5, dtype=torch.float64, device=device))
        return self._layers[name]

    def _passes(self, module: nn.Module, x: Tensor) -> int:
        """How often the layer runs for one sample, from the leading axes of its input."""
        T, B = self._axes
        if isinstance(module, (*CONVS, *TRANSPOSED)):
            batched = x.dim() == len(module.kernel_size) + 2
            return max(x.shape[0] // B, 1) if batched else 1
        if x.dim() > 2 and tuple(x.shape[:2]) == (T, B):
            return T
        return max(x.shape[0] // B, 1) if x.shape[0] % B == 0 else T

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

    def report(self, batch_size: int | None = None) -> EnergyReport:
        """Numbers for one sample.

        Args:
            batch_size: samples seen in all calls; counted by itself where None.

        Raises:
            RuntimeError: nothing was counted.
        """
        samples = batch_size or self.samples
        if not self._layers or not samples:
            raise RuntimeError(
                f"no convolution, linear layer or SpikeMatmul of {type(self.model).__name__} has run inside"
                " the with block, so there is nothing to report"
            )
        rows = []
        for name, c in self._layers.items():
            sums = c.sums.tolist()
            analog = sums[ANALOG_CALLS]
            rows.append(
                LayerEnergy(
                    name=name,
                    kind=c.kind,
                    input="spikes" if not analog else "analog" if analog == c.calls else "mixed",
                    macs=sums[MACS] / samples,
                    sops=sums[SOPS] / samples,
                    firing_rate_in=sums[SPIKES] / sums[ELEMENTS] if sums[ELEMENTS] else None,
                    dense_macs=c.dense / samples,
                    ann_macs=c.single / samples,
                )
            )
        return EnergyReport(rows=tuple(rows), samples=samples)


def profile_energy(
    model: nn.Module, x: Tensor | Sequence[Tensor], *, time_axis: bool | None = None, **arguments: Any
) -> EnergyReport:
    """Operations and energy of ``model`` on ``x``, for one sample; needs no gradient, changes nothing.

    The model runs once in evaluation mode and gets its modes back.

    Args:
        model: any module.
        x: a batch, ``[B, C, H, W]`` or ``[T, B, ...]``, or a list of images for a model that takes one, as
            detectors do; real data, since the numbers depend on it.
        time_axis: see `OperationCounter`.
        **arguments: of the model.

    Returns:
        The report; ``print`` it.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with OperationCounter(model, time_axis) as counter, torch.no_grad():
            model(x, **arguments)
    finally:
        for module, mode in modes:
            module.training = mode
    return counter.report()


def _unit(x: Tensor, units: Sequence[int], max_level: int, spike_values: Sequence[float]) -> Tensor:
    """The smallest of ``units / spike_values`` that makes ``x`` small integers, else 0; 0-d float64."""
    x = x.detach().abs()
    unit = torch.zeros((), dtype=torch.float64, device=x.device)
    if not x.numel():
        return unit + 1
    largest = x.amax()
    for value in spike_values:
        for candidate in reversed(units):
            factor = candidate / value
            scaled = x * factor
            # multiples of a threshold that is no power of two are rounded, each to the dtype
            near = 0.0 if value == 1.0 else 4 * torch.finfo(x.dtype).eps * largest * factor
            fits = ((scaled - scaled.round()).abs() <= near).all() & (largest * factor <= max_level)
            better = fits & ((unit == 0) | (unit > factor))
            unit = torch.where(better, factor, unit)  # no branch: a GPU would have to be waited for
            if x.device.type == "cpu" and not fits:
                break  # multiples of 1/8 are multiples of 1/16, too
    return unit


def _conv(module: nn.Module, x: Tensor, output: Tensor) -> tuple[int, Tensor]:
    """Dense MACs, and the sum over inputs of value times fan-out (exact at borders)."""
    kernel: tuple[int, ...] = module.kernel_size  # type: ignore[assignment]
    space = len(kernel)
    groups = int(module.groups)  # type: ignore[arg-type]
    inputs, outputs = int(module.in_channels), int(module.out_channels)  # type: ignore[arg-type]
    taps = torch.Size(kernel).numel()
    transposed = isinstance(module, TRANSPOSED)
    dense = (x.numel() * outputs if transposed else output.numel() * inputs) // groups * taps
    here = x.detach().abs().sum(dim=tuple(range(x.dim() - space)), dtype=torch.float64)
    for axis in range(space):
        weights = _fan_out(
            x.shape[axis - space],
            output.shape[axis - space],
            kernel[axis],
            module.stride[axis],  # type: ignore[index]
            _padding(module, axis),
            module.dilation[axis],  # type: ignore[index]
            "transposed" if transposed else str(module.padding_mode),
        )
        # the fan-out of a position is a product over the axes, so they are summed one by one
        here = torch.tensordot(torch.tensor(weights, dtype=torch.float64, device=x.device), here, dims=1)
    return dense, here * (outputs // groups)


def _padding(module: nn.Module, axis: int) -> int:
    padding: Any = module.padding
    if padding == "valid":
        return 0
    if padding == "same":
        return int(module.dilation[axis] * (module.kernel_size[axis] - 1)) // 2  # type: ignore[index]
    return int(padding[axis])


@lru_cache(maxsize=1024)
def _fan_out(
    size: int, out: int, kernel: int, stride: int, padding: int, dilation: int, mode: str
) -> tuple[int, ...]:
    """How many (output, tap) pairs along one axis read (or, transposed, write from) each position."""
    counts = [0] * size
    if mode == "transposed":
        for i in range(size):
            counts[i] = sum(0 <= i * stride - padding + j * dilation < out for j in range(kernel))
        return tuple(counts)
    for o in range(out):
        for j in range(kernel):
            i = o * stride - padding + j * dilation
            if mode == "circular":
                i %= size
            elif mode == "replicate":
                i = min(max(i, 0), size - 1)
            elif mode == "reflect":
                i = -i if i < 0 else i
                i = 2 * (size - 1) - i if i >= size else i
            if 0 <= i < size:
                counts[i] += 1
    return tuple(counts)


def _time_steps(model: nn.Module) -> int:
    steps = getattr(getattr(model, "_orig_mod", model), "time_steps", None)
    return steps if isinstance(steps, int) else 1


def _short(value: float) -> str:
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3f}{suffix}"
    return f"{value:.4g}"


def _joule(picojoule: float) -> str:
    for limit, suffix in ((1e9, " mJ"), (1e6, " uJ"), (1e3, " nJ")):
        if picojoule >= limit:
            return f"{picojoule / limit:.3f}{suffix}"
    return f"{picojoule:.4g} pJ"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns aligned: the first three to the left, numbers to the right; rules around the body."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
