"""The CPU kernels as differentiable torch operators.

There are two ways in, over the same kernels:

* `fulgurite::neuron` and `fulgurite::neuron_backward`, custom operators with shapes for tracing and a
  registered backward: what ``torch.compile`` and every tracer sees, one node each;
* plain `torch.autograd.Function` classes for eager mode. A call through a custom operator costs some
  150 microseconds more, several times the work of a small layer (``benchmarks/README.md``). `Eager`
  is the form without ``setup_context``, whose argument binding alone takes 25 microseconds;
  ``torch.func`` works only with that form, so `Neuron` has it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from spiking.kernels import layout
from spiking.kernels.cpu import runtime as cpu
from spiking.kernels.rules import multi_threshold as threshold_rules
from spiking.kernels.rules import neurons as rules
from spiking.kernels.rules.neurons import LMHT
from spiking.surrogate import get_surrogate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.kernels.rules.neurons import Rule

# Tensors beside the currents: two states, learnt rate and gain, coefficients and conductance of GLIF. In the
# place of the coefficients other rules have an array over the neurons or a table of numbers, see `Rule`.
Extras = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]

FAMILIES: dict[str, type[Rule | LMHT]] = {
    cls.__name__: cls
    for cls in (
        rules.Leaky,
        rules.Complementary,
        rules.Gated,
        rules.Compartments,
        rules.LMHT,
        threshold_rules.RateCoded,
        threshold_rules.Tracking,
    )
}


def _values(rule: Rule, params: Sequence[float], rate: Tensor | None, k: Tensor | None) -> list[float]:
    """Scalar parameters of a kernel, with the learnt ones put in their places."""
    out = list(params)
    if rate is not None:
        out[rule.names.index("rate")] = rate.item()
    if k is not None:
        out[rule.names.index("k")] = k.item()
    return out


def _with_table(rule: Rule, params: Sequence[float], table: Tensor) -> list[float]:
    """Scalar parameters of which the last ones came as a tensor."""
    return [*params[: len(rule.names) - len(table)], *table.tolist()]


def _mixed(rule: LMHT) -> tuple[Any, Any]:
    """The two passes of LM-HT."""
    if rule.engine == "triton":
        from spiking.kernels.triton import lmht as triton_mixing

        return triton_mixing.forward, triton_mixing.backward
    return cpu.forward_mixed, cpu.backward_mixed


def _leaky(rule: Rule | LMHT) -> rules.Leaky:
    assert isinstance(rule, rules.Leaky)  # `kernels.refusal` lets no other pass
    return rule


def _forward(
    x: Tensor, extras: Extras, rule: Rule | LMHT, params: Sequence[float], keep: bool
) -> tuple[Tensor, ...]:
    v, m, rate, k, coefficients, conductance = extras
    if isinstance(rule, LMHT):
        assert coefficients is not None
        return (_mixed(rule)[0](rule, x, coefficients),)
    if rule.engine == "triton":
        from spiking.kernels.triton import leaky as triton

        spikes, ends = triton.forward(_leaky(rule), params, x, v, rate, keep)
        return (spikes, *ends)
    starts = (v, m)[: rule.n_states]
    if rule.table and coefficients is not None:
        params, coefficients = _with_table(rule, params, coefficients), None
    values = _values(rule, params, rate, k)
    spikes, ends = cpu.forward(rule, values, x, starts, keep, coefficients, conductance)
    return (spikes, *ends)


def _backward(
    x: Tensor,
    extras: Extras,
    g: Tensor | None,
    g_ends: Sequence[Tensor | None],
    rule: Rule | LMHT,
    params: Sequence[float],
) -> tuple[Tensor | None, ...]:
    """Gradients of ``x`` and of the six extras, None where there is no such tensor."""
    v, m, rate, k, coefficients, conductance = extras
    if isinstance(rule, LMHT):
        assert coefficients is not None
        gx, g_table = _mixed(rule)[1](rule, x, coefficients, g)
        return gx, None, None, None, None, g_table.to(coefficients.dtype), None
    if rule.engine == "triton":
        from spiking.kernels.triton import leaky as triton

        gx, g_starts, g_params = triton.backward(_leaky(rule), params, x, v, rate, g, g_ends[0])
        gv = None if v is None else g_starts[0].to(v.dtype)
        g_rate = None if rate is None else g_params[0].to(rate.dtype).reshape(rate.shape)
        return gx, gv, None, g_rate, None, None, None
    starts = (v, m)[: rule.n_states]
    want = any(start is not None for start in starts)
    table = coefficients if rule.table else None
    if table is not None:
        params, coefficients = _with_table(rule, params, table), None
    values = _values(rule, params, rate, k)
    gx, g_starts, g_params = cpu.backward(rule, values, x, starts, g, g_ends, want, coefficients, conductance)
    gv = None if v is None else g_starts[0].to(v.dtype)
    gm = None if m is None else g_starts[1].to(m.dtype)
    g_rate = g_gain = g_coefficients = g_conductance = None
    if rule.per_neuron and rule.n_param_grads:
        g_coefficients, g_conductance = g_params
    elif table is not None and rule.n_param_grads:
        g_coefficients = torch.zeros_like(table)
        g_coefficients[: len(g_params)] = torch.stack(g_params)
    else:
        found = list(g_params)  # gain first, then rate, as the rule hands them out
        if k is not None:
            g_gain = found.pop(0).to(k.dtype).reshape(k.shape)
        if rate is not None:
            g_rate = found.pop(0).to(rate.dtype).reshape(rate.shape)
    return gx, gv, gm, g_rate, g_gain, g_coefficients, g_conductance


# ---------------------------------------------------------------- eager mode


def _derivative(ctx: Any, grads: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    x, *extras = ctx.saved_tensors
    g, g_v, g_m = (*grads, None, None)[:3]
    if g is None and g_v is None and g_m is None:
        return (None,) * 10
    if torch.is_grad_enabled():  # someone wants a second derivative: refuse when it is taken
        found = NeuronBackward.apply(x, *extras, g, g_v, g_m, ctx.rule, ctx.params)
    else:
        found = _backward(x, tuple(extras), g, (g_v, g_m), ctx.rule, ctx.params)
    return (*found, None, None, None)


class Eager(torch.autograd.Function):
    """A fused neuron for eager mode; arguments as in `_forward`, flat."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """Spikes and, if wanted, the last states; keeps the inputs, which exist anyway."""
        *extras, ctx.rule, ctx.params, keep = rest
        ctx.save_for_backward(x, *extras)
        ctx.set_materialize_grads(False)
        return _forward(x, tuple(extras), ctx.rule, ctx.params, keep)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Runs the backward kernel."""
        return _derivative(ctx, grads)


class Neuron(torch.autograd.Function):
    """The same for ``torch.func``."""

    @staticmethod
    def forward(x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        """Spikes and, if wanted, the last states."""
        *extras, rule, params, keep = rest
        return _forward(x, tuple(extras), rule, params, keep)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keeps the inputs, which exist anyway, and nothing else."""
        ctx.save_for_backward(*inputs[:7])
        ctx.rule, ctx.params, _ = inputs[7:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        """Runs the backward kernel; a second derivative is refused, not silently zero."""
        return _derivative(ctx, grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """The mapped axis becomes a batch axis; neurons are independent of each other."""
        folded = _Folded(info.batch_size, in_dims, args, states=(1, 2))
        out = Neuron.apply(*folded.args)
        return folded.unfold(out, steps=1)


class NeuronBackward(torch.autograd.Function):
    """The backward kernel where a graph of it is asked for: computes, but has no derivative."""

    @staticmethod
    def forward(x: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        """Gradients of ``x`` and the extras."""
        *tensors, rule, params = rest
        return _backward(x, tuple(tensors[:6]), tensors[6], tensors[7:], rule, params)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Always an error."""
        raise RuntimeError("fused neurons have no second derivative; pass backend='reference' to get one")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """As in `Neuron`; gradients of shared parameters cannot be told apart per sample."""
        folded = _Folded(info.batch_size, in_dims, args, states=(1, 2, 8, 9), steps=(0, 7))
        if args[10].n_param_grads and any(args[i] is not None for i in (3, 4, 5, 6)):
            raise RuntimeError("per-sample gradients of learnt neuron parameters need backend='reference'")
        out = NeuronBackward.apply(*folded.args)
        return folded.unfold(out, steps=1)


class _Folded:
    """Arguments with the mapped axis moved behind time, or in front of a state."""

    def __init__(
        self,
        size: int,
        in_dims: tuple[Any, ...],
        args: tuple[Any, ...],
        states: tuple[int, ...],
        steps: tuple[int, ...] = (0,),
    ) -> None:
        self.size = size
        if any(in_dims[i] is not None for i in (3, 4, 5, 6)):
            raise RuntimeError("mapping over neuron parameters needs backend='reference'")
        out = list(args)
        for i in (*steps, *states):
            if args[i] is None:
                continue
            to = 1 if i in steps else 0
            if in_dims[i] is None:
                shape = list(args[i].shape)
                shape.insert(to, size)
                out[i] = args[i].unsqueeze(to).expand(shape)
            else:
                out[i] = args[i].movedim(in_dims[i], to)
        # arrays of parameters count the batch as repetitions, so the two axes become one
        self.flat = args[5] is not None
        if self.flat:
            for i in (*steps, *states):
                if out[i] is not None:
                    out[i] = out[i].flatten(1, 2) if i in steps else out[i].flatten(0, 1)
        self.args = out

    def unfold(self, out: tuple[Tensor | None, ...], steps: int) -> tuple[Any, Any]:
        """Results, of which the first ``steps`` have time in front, and their mapped axes."""
        results: list[Tensor | None] = []
        dims: list[int | None] = []
        for i, t in enumerate(out):
            at = 1 if i < steps else 0
            if t is not None and self.flat:
                t = t.reshape(*t.shape[:at], self.size, t.shape[at] // self.size, *t.shape[at + 1 :])
            results.append(t)
            dims.append(None if t is None else at)
        return tuple(results), tuple(dims)


# ---------------------------------------------------------------- compiled and traced programs


@lru_cache(maxsize=1024)
def decode(text: str) -> Rule | LMHT:
    """The rule that ``"Family|switch=value,...;Surrogate|alpha=value,...;engine"`` names.

    Text, because programs that hold it are cached on disk and read by other processes. A family whose slope
    is fixed has nothing between the semicolons.
    """
    family, surrogate, engine = text.split(";")
    name, _, switches = family.partition("|")
    options = {**_switches(switches), "engine": engine}
    if surrogate:
        slope, _, parameters = surrogate.partition("|")
        options["surrogate"] = get_surrogate(slope, **_switches(parameters))
    return FAMILIES[name](**options)


def _switches(text: str) -> dict[str, Any]:
    pairs = (item.split("=") for item in text.split(",") if item)
    return {key: {"True": True, "False": False}.get(value, _number(value)) for key, value in pairs}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@torch.library.custom_op("fulgurite::neuron", mutates_args=(), device_types=("cpu", "cuda"))
def neuron_op(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    rule: str,
    params: list[float],
    keep: bool,
) -> list[Tensor]:
    """Spikes and, if wanted, the last states."""
    extras = (v, m, rate, k, coefficients, conductance)
    return list(_forward(x, extras, decode(rule), params, keep))


@neuron_op.register_fake
def _(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    rule: str,
    params: list[float],
    keep: bool,
) -> list[Tensor]:
    what = decode(rule)
    ends = what.n_states if keep else 0
    x = layout.prepare(x, what.per_neuron)
    states = [layout.like(x, steps=False, dtype=torch.float32) for _ in range(ends)]
    steps = what.steps if isinstance(what, LMHT) else True
    return [layout.like(x, steps=steps, dtype=x.dtype), *states]


@torch.library.custom_op("fulgurite::neuron_backward", mutates_args=(), device_types=("cpu", "cuda"))
def neuron_backward_op(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    g: Tensor | None,
    g_v: Tensor | None,
    g_m: Tensor | None,
    rule: str,
    params: list[float],
) -> list[Tensor]:
    """Gradients of ``x`` and of those extras that are there and have one, in their order."""
    extras = (v, m, rate, k, coefficients, conductance)
    out = _backward(x, extras, g, (g_v, g_m), decode(rule), params)
    return [t for t in out if t is not None]


@neuron_backward_op.register_fake
def _(
    x: Tensor,
    v: Tensor | None,
    m: Tensor | None,
    rate: Tensor | None,
    k: Tensor | None,
    coefficients: Tensor | None,
    conductance: Tensor | None,
    g: Tensor | None,
    g_v: Tensor | None,
    g_m: Tensor | None,
    rule: str,
    params: list[float],
) -> list[Tensor]:
    what = decode(rule)
    x = layout.prepare(x, what.per_neuron)
    out = [layout.like(x, steps=True, dtype=x.dtype)]
    out += [layout.like(x, steps=False, dtype=s.dtype) for s in (v, m) if s is not None]
    learnt = (rate, k, coefficients, conductance) if what.n_param_grads else ()
    return out + [torch.empty_like(t) for t in learnt if t is not None]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.rule, ctx.params, _ = inputs[7:]


def _derive(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    x, *extras = ctx.saved_tensors
    g, g_v, g_m = (*grads, None, None)[:3]
    found = neuron_backward_op(x, *extras, g, g_v, g_m, ctx.rule, ctx.params)
    rest = iter(found[1:])
    kept = extras if decode(ctx.rule).n_param_grads else extras[:2]
    grads = [None if t is None else next(rest) for t in kept]
    return (found[0], *grads, *[None] * (9 - len(grads)))


neuron_op.register_autograd(_derive, setup_context=_setup)


def _plain(x: Tensor, extras: Extras) -> bool:
    """Whether this is eager mode on ordinary tensors."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    return all(type(t) in (Tensor, torch.nn.Parameter) for t in (x, *extras) if t is not None)


def neuron(
    x: Tensor, extras: Extras, text: str, params: Sequence[float], keep: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs a rule over ``x [T, ...]``.

    Args:
        x: currents.
        extras: see `Extras`.
        text: the neuron, see `decode`.
        params: fixed values of ``rule.names``; entries of learnt ones are ignored, and all where the
            coefficients are a table. Never empty, which custom operators cannot tell from a tensor list.
        keep: whether the last states are wanted.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``x`` and the last states ``[...]`` in float32.
    """
    if not _plain(x, extras):
        out = neuron_op(x, *extras, text, list(params), keep)
        return out[0], tuple(out[1:])
    rule = decode(text)
    if torch._C._are_functorch_transforms_active():
        spikes, *ends = Neuron.apply(x, *extras, rule, params, keep)
        return spikes, tuple(ends)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *extras)):
        spikes, *ends = Eager.apply(x, *extras, rule, params, keep)
        return spikes, tuple(ends)
    spikes, *ends = _forward(x, extras, rule, params, keep)
    return spikes, tuple(ends)
