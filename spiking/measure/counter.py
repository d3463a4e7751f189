"""Counts what a network does on real inputs: hooks for its layers, a dispatch mode for all other operators.

Axes: T time, B batch.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spiking.context import SharedSwitch
from spiking.layers import SpikeMatmul
from spiking.measure.axes import InputAxes
from spiking.measure.monitor import HookedModules
from spiking.measure.operations import convolution, linear, product
from spiking.measure.operators import COUNTED, MOVES, TRANSPOSED, Call, calls, named, plain
from spiking.measure.tally import NEURONS, Tally
from spiking.neurons.base import Neuron

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from spiking.context import Hooks
    from spiking.measure.axes import TimeAxis
    from spiking.measure.energy import EnergyReport

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS: tuple[type[nn.Module], ...] = (*CONVS, *TRANSPOSED, nn.Linear, SpikeMatmul)


@dataclass
class _Scope:
    """A module that is running."""

    path: str
    neuron: bool
    layer: bool  # has weights of its own, so that what it computes goes by its path
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
        heights = [torch.as_tensor(m.spike_value) for m in model.modules() if isinstance(m, Neuron)]
        asked: list[str] = []
        for name, part in model.named_modules():  # these know their spikes, so nothing inside them is watched
            if hasattr(part, "count_operations") and not name.startswith(tuple(asked)):
                inside = name + "." if name else ""
                asked.append(inside)
                self._watched = {n: m for n, m in self._watched.items() if not n.startswith(inside)}
                self._watched[name] = part
        self._watched = {n: m for n, m in self._watched.items() if not _computes_otherwise(m)}
        self._spike_values = sorted({float(h) for h in heights if not h.is_meta}) or [1.0]
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        steps = getattr(getattr(self.model, "_orig_mod", self.model), "time_steps", None)
        self._tally = Tally(self._spike_values, steps if isinstance(steps, int) else 1)
        self._scopes: list[_Scope] = []
        self._muted = 0  # modules that are counted as a whole, and counting itself

    # -- hooks -----------------------------------------------------------------------------------

    def prepare(self, stack: ExitStack, hooks: Hooks) -> None:
        """Follow the path through the modules, and watch all operators."""
        whole = {n for n, m in self._watched.items() if not isinstance(m, Neuron)}
        for path, module in self.model.named_modules():
            path = path.replace("_orig_mod.", "").removesuffix("_orig_mod")
            scope = (path, isinstance(module, Neuron), path in whole)
            hooks.before(module, self._entered(*scope))
            hooks.after(module, self._left(path in whole), always_call=True)
        hooks.after(self.model, lambda *_: self._tally.finish())
        stack.enter_context(PLAIN_ATTENTION.held())
        self._scopes, self._muted = [], 0
        self._weights = {p.untyped_storage()._cdata for p in self.model.parameters()}
        make: Any = _Operators  # torch leaves the constructor untyped
        mode = make()
        mode.counter = self
        stack.enter_context(mode)

    def _entered(self, path: str, neuron: bool, whole: bool) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._scopes.append(_Scope(path, neuron, isinstance(module, LAYERS)))
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
            self._tally.begin(InputAxes(model, x, self.time_axis))
        elif inputs and isinstance(inputs[0], list | tuple):  # images of several sizes
            self._tally.begin(None, images=len(inputs[0]))
        else:
            raise TypeError(f"{type(model).__name__} was called without a tensor, so the batch is unknown")

    def see(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Add one call of one layer."""
        self._muted += 1
        try:
            if hasattr(module, "count_operations"):
                x = inputs[0]
                device = x.device if isinstance(x, Tensor) else x[0].device
                part: Any = module
                self._tally.add_counted(name, part.count_operations(x), device)
            elif isinstance(module, Neuron):
                self._tally.uncounted[NEURONS] += output.numel()
                if self._tally.axes is not None:
                    self._tally.axes.see_neuron(inputs[0])
            else:
                self._tally.add(name, _layer(module, inputs))
        finally:
            self._muted -= 1

    def operator(self, func: Any, args: tuple[Any, ...], output: Any) -> None:
        """Add one call of an operator that belongs to no counted module."""
        name = named(func)
        self._muted += 1
        try:
            if name in COUNTED:
                for call in calls(name, args, self._is_weight):
                    self._tally.add(self._label(call.label), call)
                if "attention" in name:
                    self._tally.uncounted["softmax"] += args[0].shape[:-1].numel() * args[1].shape[-2]
            elif not func.is_view and plain(name) not in MOVES and not self._scopes[-1].neuron:
                value = output[0] if isinstance(output, tuple | list) and output else output
                if isinstance(value, Tensor) and value.is_floating_point():
                    self._tally.uncounted[plain(name)] += value.numel()
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
        if scope.layer and scope.labels.total() == 1:
            return scope.path
        label = label if number == 1 else f"{label}_{number}"
        return f"{scope.path}.{label}" if scope.path else label

    # -- answers ---------------------------------------------------------------------------------

    @property
    def samples(self) -> int:
        """How many samples the model has seen."""
        return self._tally.samples

    def totals(self) -> Tensor:
        """``[samples, macs, sops, ann_macs]``, float64, over all samples: sums that can be reduced."""
        return self._tally.totals()

    def report(self, batch_size: int | None = None) -> EnergyReport:
        """Numbers for one sample.

        Args:
            batch_size: samples seen in all calls; counted by itself where None.

        Raises:
            RuntimeError: nothing was counted.
        """
        return self._tally.report(type(self.model).__name__, batch_size)


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


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fast path of ``nn.MultiheadAttention``: one operator that hides its products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


PLAIN_ATTENTION = SharedSwitch(_plain_attention)


def _computes_otherwise(module: nn.Module) -> bool:
    """Whether a layer has a ``forward`` of its own: what it does is seen at its operators, then.

    A layer whose ``counts_as_base`` is true says that it computes what the class it is derived from does.
    """
    if getattr(module, "counts_as_base", False):
        return False
    own, names = type(module), ("forward", "_conv_forward")
    kinds = [kind for kind in LAYERS if isinstance(module, kind)]
    return any(getattr(own, n, None) is not getattr(kind, n, None) for kind in kinds for n in names)


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
