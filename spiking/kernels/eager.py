"""The kernels as `torch.autograd.Function` classes, for eager mode and for ``torch.func``.

A call through a custom operator (`spiking.kernels.ops`) costs some 150 microseconds more, several times the
work of a small layer (``benchmarks/README.md``). `Eager` is the form without ``setup_context``, whose
argument binding alone takes 25 microseconds; ``torch.func`` works only with that form, so `Neuron` has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from spiking.kernels import passes
from spiking.kernels.operands import NOTHING, Operands

if TYPE_CHECKING:
    from spiking.kernels.launch import Launch

WITH_TIME = ("x", "g")
STATES = ("v", "m", "g_v", "g_m")
PARAMETERS = ("rate", "k", "table", "coefficients", "conductance")


class Inputs(NamedTuple):
    """Arguments of the forward pass, as autograd wants them: one by one."""

    x: Any
    v: Any
    m: Any
    rate: Any
    k: Any
    table: Any
    coefficients: Any
    conductance: Any
    launch: Any

    @property
    def operands(self) -> Operands:
        """Those that `passes` takes together."""
        _, *operands, _ = self
        return Operands(*operands)


class BackwardInputs(NamedTuple):
    """Arguments of the backward pass: those of the forward pass, and gradients of its results."""

    x: Any
    v: Any
    m: Any
    rate: Any
    k: Any
    table: Any
    coefficients: Any
    conductance: Any
    g: Any
    g_v: Any
    g_m: Any
    launch: Any

    @property
    def operands(self) -> Operands:
        """Those that `passes` takes together."""
        _, *operands, _, _, _, _ = self
        return Operands(*operands)


def _derivative(ctx: Any, g: Tensor | None, *g_ends: Tensor | None) -> tuple[Any, ...]:
    """Gradients of `Inputs`; ``g_ends`` are those of the states that were given out."""
    if g is None and all(g_end is None for g_end in g_ends):
        return (None,) * len(Inputs._fields)
    x, *given = ctx.saved_tensors
    operands = Operands(*given) if given else NOTHING
    if torch.is_grad_enabled():  # someone wants a second derivative: refuse when it is taken
        g_v, g_m, *_ = (*g_ends, None, None)
        found = NeuronBackward.apply(x, *operands, g, g_v, g_m, ctx.launch)
    else:
        found = passes.backward(x, operands, g, g_ends, ctx.launch)
    return (*found, None)


class Eager(torch.autograd.Function):
    """A fused neuron for eager mode; takes `Inputs` one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """Spikes and, if wanted, the last states; keeps the inputs, which exist anyway."""
        *operands, ctx.launch = rest
        ctx.save_for_backward(x, *operands)
        ctx.set_materialize_grads(False)
        return passes.forward(x, Operands(*operands), ctx.launch)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Runs the backward kernel."""
        return _derivative(ctx, *grads)


class Alone(torch.autograd.Function):
    """`Eager` without operands: arguments that are not there cost a small layer its time, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, launch: Launch) -> tuple[Tensor, ...]:
        """As of `Eager`."""
        ctx.launch = launch
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return passes.forward(x, NOTHING, launch)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        """As of `Eager`."""
        if torch.is_grad_enabled() or grads[0] is None:
            return _derivative(ctx, *grads)[0], None
        (x,) = ctx.saved_tensors
        return passes.current_gradient(x, grads[0], grads[1:], ctx.launch), None


class Neuron(torch.autograd.Function):
    """The same for ``torch.func``."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        """Spikes and, if wanted, the last states."""
        given = Inputs(*inputs)
        return passes.forward(given.x, given.operands, given.launch)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keeps the inputs, which exist anyway, and nothing else."""
        *tensors, ctx.launch = inputs
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Runs the backward kernel; a second derivative is refused, not silently zero."""
        return _derivative(ctx, *grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis becomes a batch axis; neurons are independent of each other."""
        folded = _Folded(info.batch_size, Inputs(*in_dims), Inputs(*inputs))
        return folded.unfold(Neuron.apply(*folded.inputs))


class NeuronBackward(torch.autograd.Function):
    """The backward kernel where a graph of it is asked for: computes, but has no derivative."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor | None, ...]:
        """`Gradients`, one by one."""
        given = BackwardInputs(*inputs)
        return tuple(passes.backward(given.x, given.operands, given.g, (given.g_v, given.g_m), given.launch))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Always an error."""
        raise RuntimeError("fused neurons have no second derivative; pass backend='reference' to get one")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """As in `Neuron`; gradients of shared parameters cannot be told apart per sample."""
        folded = _Folded(info.batch_size, BackwardInputs(*in_dims), BackwardInputs(*inputs))
        if folded.inputs.launch.rule.learnt and any(_present(folded.inputs, PARAMETERS)):
            raise RuntimeError("per-sample gradients of learnt neuron parameters need backend='reference'")
        return folded.unfold(NeuronBackward.apply(*folded.inputs))


def _present(record: Inputs | BackwardInputs, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of ``names`` that the record has and that are there."""
    found = {name: getattr(record, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


class _Folded:
    """Inputs with the mapped axis moved behind time, or in front of a state.

    Args:
        size: of the mapped axis.
        dims: which axis is mapped, for every input; None for none.
        inputs: tensors with that axis.
    """

    def __init__(self, size: int, dims: Inputs | BackwardInputs, inputs: Inputs | BackwardInputs) -> None:
        if _present(dims, PARAMETERS):
            raise RuntimeError("mapping over neuron parameters needs backend='reference'")
        self.size = size
        # arrays of parameters count the batch as repetitions, so the two axes become one
        self.flat = inputs.coefficients is not None
        moved = {
            name: self._fold(value, getattr(dims, name), axis)
            for axis, names in ((1, WITH_TIME), (0, STATES))
            for name, value in _present(inputs, names).items()
        }
        self.inputs = inputs._replace(**moved)

    def _fold(self, value: Tensor, dim: int | None, axis: int) -> Tensor:
        if dim is None:
            shape = list(value.shape)
            shape.insert(axis, self.size)
            value = value.unsqueeze(axis).expand(shape)
        else:
            value = value.movedim(dim, axis)
        return value.flatten(axis, axis + 1) if self.flat else value

    def _unfold(self, value: Tensor, axis: int) -> Tensor:
        if not self.flat:
            return value
        shape = list(value.shape)
        shape[axis : axis + 1] = [self.size, shape[axis] // self.size]
        return value.reshape(shape)

    def unfold(self, out: tuple[Tensor | None, ...]) -> tuple[Any, Any]:
        """Results, the first of which has time in front, and their mapped axes."""
        _, *others = out
        axes = (1, *(0 for _ in others))
        results = [None if t is None else self._unfold(t, axis) for t, axis in zip(out, axes, strict=True)]
        dims = [None if t is None else axis for t, axis in zip(out, axes, strict=True)]
        return tuple(results), tuple(dims)
