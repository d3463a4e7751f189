"""Counts what a network does on real inputs: hooks for its layers, a dispatch mode for all other operators.

Axes: T time, B batch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spiking.layers import SpikeMatmul
from spiking.measure.axes import InputAxes, passes
from spiking.measure.energy import EnergyReport, LayerEnergy
from spiking.measure.monitor import HookedModules
from spiking.measure.operations import convolution, linear, product
from spiking.measure.operators import COUNTED, MOVES, Call, calls, named, plain
from spiking.measure.spikes import MAX_LEVEL, UNITS, additions_per_value
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from spiking.measure.axes import TimeAxis

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS: tuple[type[nn.Module], ...] = (*CONVS, *TRANSPOSED, nn.Linear, SpikeMatmul)
NEURONS = "neuron updates"  # how the report calls what neurons do

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


@dataclass
class _Scope:
    """A module that is running."""

    path: str
    neuron: bool
    labels: Counter[str] = field(default_factory=Counter)


class OperationCounter(HookedModules):
    """Counts operations of layers with weights and of products of signals inside a ``with`` block.

    Counted are convolutions, transposed ones too, linear layers, matrix products and attention, fused or not,
    whether they are modules or functions. What else computes is listed in ``report().uncounted``.

    Whether an input is spikes is decided by its values: all of them multiples of 1 (or of 1/2 ... 1/16,
    which average pooling makes of spikes), at most 128 of it; where outputs carry the threshold (LM-HT), of
    multiples of the thresholds in the model. A value of n units costs n additions.
    Anything else is analog and costs MACs. The first layer is stricter, since images come in a few
    grey levels, too: on a still image it takes only zeros and ones for spikes, on frames ``[T, B, ...]``
    only integers, which are event counts. In a product of two signals that are both spikes, those of which
    there is less to add count.

    MACs include positions on zero padding, and additions are scaled to that: `spiking.measure.operations`.

    A model, or a part of one, with a method ``count_operations(x)`` is asked instead, since heights of
    converted spikes differ from channel to channel: there every spike is one addition for each weight that it
    meets, and all other layers are analog. So count the codes of ECMT (2502.21193) and DCGS (2503.00301),
    which sum masks of the non-zero inputs; an average of spikes is one value in this, though hardware might
    add up to a whole pooling window.

    Args:
        model: the model.
        time_axis: 0 for inputs ``[T, B, ...]``, 1 for ``[B, T, ...]``, False for a batch ``[B, ...]`` that
            the model encodes to ``model.time_steps`` steps; None to find out, see
            `spiking.measure.axes.InputAxes`.
    """

    def __init__(self, model: nn.Module, time_axis: TimeAxis = None) -> None:
        super().__init__(model, (*LAYERS, Neuron))
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
        self._uncounted: Counter[str] = Counter()
        self._forward = _Forward()
        self._scopes: list[_Scope] = []
        self._muted = 0  # modules that are counted as a whole, and counting itself

    # -- hooks -----------------------------------------------------------------------------------

    def prepare(self, stack: ExitStack) -> None:
        """Follow the path through the modules, and watch all operators."""
        whole = {n for n, m in self._watched.items() if not isinstance(m, Neuron)}
        for path, module in self.model.named_modules():
            path = path.replace("_orig_mod.", "")
            scope = (path, isinstance(module, Neuron), path in whole)
            stack.callback(module.register_forward_pre_hook(self._entered(*scope)).remove)
            left = module.register_forward_hook(self._left(path in whole), always_call=True)
            stack.callback(left.remove)
        stack.callback(self.model.register_forward_hook(self._finish).remove)
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)  # one operator that hides its products
        self._scopes, self._muted = [], 0
        self._weights = {p.untyped_storage()._cdata for p in self.model.parameters()}
        make: Any = _Operators  # torch leaves the constructor untyped
        mode = make()
        mode.counter = self
        stack.enter_context(mode)

    def _entered(self, path: str, neuron: bool, whole: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._scopes.append(_Scope(path, neuron))
            self._muted += whole

        return hook

    def _left(self, whole: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._scopes.pop()
            self._muted -= whole

        return hook

    def begin(self, model: nn.Module, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Look at the input of the model."""
        x = next((v for v in (*inputs, *arguments.values()) if isinstance(v, Tensor)), None)
        if x is not None:
            self._forward = _Forward(axes=InputAxes(model, x, self.time_axis))
        elif inputs and isinstance(inputs[0], list | tuple):  # images of several sizes
            self._forward = _Forward(images=len(inputs[0]))
        else:
            raise TypeError(f"{type(model).__name__} was called without a tensor, so the batch is unknown")

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add one call of one layer."""
        self._muted += 1
        try:
            if hasattr(module, "count_operations"):
                self._ask(name, module, inputs[0])
            elif isinstance(module, Neuron):
                self._uncounted[NEURONS] += output.numel()
                if self._forward.axes is not None:
                    self._forward.axes.see_neuron(inputs[0])
            else:
                self._add(name, _layer(module, inputs))
        finally:
            self._muted -= 1

    def operator(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Add one call of an operator that belongs to no counted module."""
        name = named(func)
        self._muted += 1
        try:
            if name in COUNTED:
                for call in calls(name, args, self._is_weight):
                    self._add(self._label(call.label), call)
                if "attention" in name:
                    self._uncounted["softmax"] += args[0].shape[:-1].numel() * args[1].shape[-2]
            elif not func.is_view and plain(name) not in MOVES and not self._scopes[-1].neuron:
                value = output[0] if isinstance(output, tuple | list) and output else output
                if isinstance(value, Tensor) and value.is_floating_point():
                    self._uncounted[plain(name)] += value.numel()
        finally:
            self._muted -= 1

    @property
    def listening(self) -> bool:
        """Whether operators that run now are to be counted one by one."""
        return bool(self._scopes) and not self._muted

    def _is_weight(self, x: Tensor) -> bool:
        return x.untyped_storage()._cdata in self._weights

    def _label(self, label: str) -> str:
        scope = self._scopes[-1]
        scope.labels[label] += 1
        number = scope.labels[label]
        label = label if number == 1 else f"{label}_{number}"
        return f"{scope.path}.{label}" if scope.path else label

    # -- sums ------------------------------------------------------------------------------------

    def _add(self, name: str, call: Call) -> None:
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

    def _finish(self, model: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add what had to wait for T and B."""
        forward, self._forward = self._forward, _Forward()
        T, B, frames = _time_steps(model), forward.images, False
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

    def _ask(self, name: str, part: Any, x: Any) -> None:
        """Add what a part of the model has counted itself."""
        device = x.device if isinstance(x, Tensor) else x[0].device
        found = part.count_operations(x)
        for row in found.layers:
            count = self._row(f"{name}.{row.name}" if name else row.name, row.kind, device)
            sums = [row.sops.sum(), row.spikes_in, row.elements, row.macs.sum(), float(not row.spikes)]
            count.sums += torch.tensor(sums, dtype=torch.float64, device=device)
            count.calls += 1
            count.dense += row.dense_macs
            count.real += row.dense_macs * (1 - getattr(row, "padding", 0.0))
            count.single += row.ann_macs
        self._uncounted.update(getattr(found, "uncounted", {}))

    def _row(self, name: str, kind: str, device: torch.device) -> _Count:
        if name not in self._layers:
            device = torch.device("cpu") if device.type == "meta" else device
            self._layers[name] = _Count(kind, torch.zeros(5, dtype=torch.float64, device=device))
        return self._layers[name]

    # -- answers ---------------------------------------------------------------------------------

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
                f"no convolution, linear layer or matrix product of {type(self.model).__name__} has run"
                " inside the with block, so there is nothing to report"
            )
        return EnergyReport(
            rows=tuple(_line(name, count, samples) for name, count in self._layers.items()),
            samples=samples,
            uncounted={name: n / samples for name, n in self._uncounted.most_common()},
        )


class _Operators(TorchDispatchMode):
    """Shows a counter every operator of torch, below autograd, where functions and modules look alike."""

    counter: OperationCounter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.counter.listening:
            return func(*args, **kwargs)
        if named(func) not in COUNTED and func is not torch.ops.prim.device.default:
            with self:  # in inference mode, operators arrive that are made of others
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        self.counter.operator(func, args, output)
        return output


def profile_energy(
    model: nn.Module, x: Tensor | Sequence[Tensor], *, time_axis: TimeAxis = None, **arguments: Any
) -> EnergyReport:
    """Operations and energy of ``model`` on ``x``, for one sample; needs no gradient, changes nothing.

    The model runs once in evaluation mode and gets its modes back.

    Args:
        model: any module.
        x: a batch, ``[B, ...]`` or ``[T, B, ...]``, or a list of images for a model that takes one, as
            detectors do; real data, since the numbers depend on it.
        time_axis: 0 for ``[T, B, ...]``, 1 for ``[B, T, ...]``, False for a batch without time, None to find
            out from the model; see `OperationCounter`.
        **arguments: of the model.

    Returns:
        The report; ``print`` it.

    Raises:
        ValueError: nothing tells whether the first axis of ``x`` is time.
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


def _layer(module: nn.Module, inputs: tuple[Any, ...]) -> Call:
    """What a call of a layer does."""
    x: Tensor = inputs[0]
    if isinstance(module, SpikeMatmul):
        a, b = inputs
        side, other = (a, b) if module.spike_operand == "a" else (b, a)
        work = product(side.unsqueeze(0), other.shape, "a" if side is a else "b")
        return Call(kind="matmul", label="", operands=((side, work),), leading=tuple(side.shape[:2]))
    if isinstance(module, nn.Linear):
        work = linear(x.unsqueeze(0), module.out_features)
        return Call(kind="linear", label="", operands=((x, work),), leading=tuple(x.shape[:-1][:2]))
    conv: Any = module
    space = len(conv.kernel_size)
    work = convolution(
        x.unsqueeze(0),
        conv.weight.shape,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        transposed=isinstance(conv, TRANSPOSED),
        output_padding=conv.output_padding,
        padding_mode=conv.padding_mode,
    )
    leading = tuple(x.shape[:1]) if x.dim() == space + 2 else ()
    return Call(kind="conv", label="", operands=((x, work),), leading=leading, space=space)


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


def _time_steps(model: nn.Module) -> int:
    steps = getattr(getattr(model, "_orig_mod", model), "time_steps", None)
    return steps if isinstance(steps, int) else 1
