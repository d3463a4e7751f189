"""Neurons that fire single spikes, over ``[T, B, ...]``; see `spiking.functional` for ``backend``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from spiking import reference
from spiking.arguments import flag, integer, number, tensor, time_constant
from spiking.functional.dispatch import check, choose, made
from spiking.kernels import layout
from spiking.kernels.operands import Operands
from spiking.reference.firing import SIGMOID, TRIANGLE, Firing, FiringOptions

if TYPE_CHECKING:
    from spiking.kernels.launch import Launch
    from spiking.surrogate import Surrogate

MAX_MATRIX = 256  # entries that LM-HT's kernel unrolls


def if_(
    x: Tensor,
    v: Tensor | None = None,
    *,
    backend: str = "auto",
    keep_state: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor | None]:
    """Integrate-and-fire; see `spiking.reference.if_`.

    Args:
        x: currents ``[T, ...]``, float.
        v: potential before the first step ``[...]``; rest if missing.
        backend: see the head of this file.
        keep_state: whether the potential after the last step is wanted; None is given if not.
        firing: threshold, reset and surrogate, see `spiking.reference.Firing`.
    """
    check(x, v)
    fire = made(Firing, **firing)
    engine = choose(x, backend, fire.surrogate)
    if engine == "reference":
        return reference.if_(x, v, **firing)
    launch = made(_leaky, fire=fire, engine=engine, keep=keep_state, leak="none")
    return _one_state(x, Operands(v=v), launch)


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    backend: str = "auto",
    keep_state: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor | None]:
    """Leaky integrate-and-fire; see `spiking.reference.lif`, and `if_` for the other arguments.

    Args:
        x: currents ``[T, ...]``, float.
        v: potential before the first step.
        tau: time constant in steps.
        decay_input: whether the current is divided by ``tau``, too.
        backend: see `if_`.
        keep_state: see `if_`.
        firing: see `if_`.
    """
    check(x, v)
    time_constant("tau", tau)
    flag("decay_input", decay_input)
    fire = made(Firing, **firing)
    engine = choose(x, backend, fire.surrogate)
    if engine == "reference":
        return reference.lif(x, v, tau=tau, decay_input=decay_input, **firing)
    launch = made(_leaky, fire=fire, engine=engine, keep=keep_state, tau=tau, decay_input=decay_input)
    return _one_state(x, Operands(v=v), launch)


def plif(
    x: Tensor,
    w: Tensor,
    v: Tensor | None = None,
    *,
    decay_input: bool = True,
    backend: str = "auto",
    keep_state: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor | None]:
    """LIF with a learnable time constant, ``1 / tau = sigmoid(w)``; see `spiking.reference.plif`."""
    check(x, v)
    tensor("w", w, size=1)
    flag("decay_input", decay_input)
    fire = made(Firing, **firing)
    engine = choose(x, backend, fire.surrogate)
    if engine == "reference":
        return reference.plif(x, w, v, decay_input=decay_input, **firing)
    switches = {"leak": "multiply", "decay_input": decay_input, "learn_rate": True}
    launch = made(_leaky, fire=fire, engine=engine, keep=keep_state, **switches)
    return _one_state(x, Operands(v=v, rate=w.float().sigmoid()), launch)


def klif(
    x: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    scale_reset: bool = False,
    tau: float = 2.0,
    decay_input: bool = True,
    backend: str = "auto",
    keep_state: bool = True,
    **firing: Unpack[FiringOptions],
) -> tuple[Tensor, Tensor | None]:
    """LIF with a learnable gain ``k``; see `spiking.reference.klif`."""
    check(x, v)
    tensor("k", k, size=1)
    time_constant("tau", tau)
    flag("decay_input", decay_input)
    flag("scale_reset", scale_reset)
    fire = made(Firing, **firing)
    engine = choose(x, backend, fire.surrogate, has_triton=False)
    if engine == "reference":
        return reference.klif(x, k, v, scale_reset=scale_reset, tau=tau, decay_input=decay_input, **firing)
    switches = {"tau": tau, "decay_input": decay_input, "gain": True, "scale_reset": scale_reset}
    launch = made(_leaky, fire=fire, engine=engine, keep=keep_state, **switches)
    return _one_state(x, Operands(v=v, k=k.float()), launch)


def clif(
    x: Tensor,
    v: Tensor | None = None,
    m: Tensor | None = None,
    *,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Complementary LIF; see `spiking.reference.clif`."""
    check(x, v, m)
    time_constant("tau", tau)
    number("v_threshold", v_threshold, above=0.0)
    engine = choose(x, backend, surrogate, has_triton=False)
    if engine == "reference":
        return reference.clif(x, v, m, tau=tau, v_threshold=v_threshold, surrogate=surrogate)
    launch = made(
        _complementary, surrogate=surrogate, engine=engine, keep=keep_state, v_threshold=v_threshold, tau=tau
    )
    spikes, ends = _fused(x, Operands(v=v, m=m), launch)
    return spikes, (ends[0], ends[1]) if keep_state else None


def glif(
    x: Tensor,
    coefficients: Tensor,
    conductance: Tensor,
    v: Tensor | None = None,
    s: Tensor | None = None,
    *,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Gated LIF; see `spiking.reference.glif`."""
    check(x, v, s)
    tensor("coefficients", coefficients)
    tensor("conductance", conductance)
    if x.dim() < 3:
        raise ValueError(f"GLIF needs currents [T, B, C, ...], got {tuple(x.shape)}")
    if conductance.shape[0] != x.shape[0]:
        raise ValueError(f"GLIF was built for T = {conductance.shape[0]}, got T = {x.shape[0]}")
    engine = choose(x, backend, surrogate, has_triton=False)
    if engine == "reference":
        return reference.glif(x, coefficients, conductance, v, s, surrogate=surrogate)
    per_channel = (-1, *(1,) * (x.dim() - 3))
    operands = Operands(
        v=v,
        m=s,
        coefficients=layout.over_neurons(coefficients.reshape(5, *per_channel), x),
        conductance=layout.over_neurons(conductance.reshape(len(x), *per_channel), x),
    )
    launch = made(_gated, surrogate=surrogate, engine=engine, keep=keep_state)
    spikes, ends = _fused(x, operands, launch)
    return spikes, (ends[0], ends[1]) if keep_state else None


def lmh(
    x: Tensor,
    coefficients: Tensor,
    d: Tensor | None = None,
    u: Tensor | None = None,
    *,
    surrogate: Surrogate = TRIANGLE,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """LM-H, two compartments; see `spiking.reference.lmh`."""
    check(x, d, u)
    tensor("coefficients", coefficients, size=5)
    engine = choose(x, backend, surrogate, has_triton=False)
    if engine == "reference":
        return reference.lmh(x, coefficients, d, u, surrogate=surrogate)
    operands = Operands(v=d, m=u, table=coefficients.float())
    launch = made(_compartments, surrogate=surrogate, engine=engine, keep=keep_state)
    y, ends = _fused(x, operands, launch)
    return y, (ends[0], ends[1]) if keep_state else None


def lmht(
    x: Tensor,
    weight: Tensor,
    leak: Tensor,
    theta: Tensor,
    v_init: Tensor,
    *,
    levels: int,
    backend: str = "auto",
) -> Tensor:
    """LM-HT, several thresholds and a matrix over time; see `spiking.reference.lmht`.

    The fused kernel takes matrices of up to 256 entries, T = 16; larger ones run step by step.

    Returns:
        ``y [T, ...]`` without the last potential: the neuron is not causal, so nothing can go on from it.
    """
    check(x)
    integer("levels", levels)
    for label, value in (("weight", weight), ("leak", leak), ("theta", theta), ("v_init", v_init)):
        tensor(label, value)
    if weight.dim() != 2 or weight.shape[1] != x.shape[0] or leak.shape != weight.shape[:1]:
        raise ValueError(
            f"LM-HT needs a matrix [T, T'] with T' = {x.shape[0]} steps of currents and a leak [T], got"
            f" {list(weight.shape)} and {list(leak.shape)}"
        )
    engine = choose(x, backend, SIGMOID)
    if engine != "reference" and weight.numel() > MAX_MATRIX:
        if backend != "auto":
            raise ValueError(
                f"backend {backend!r} cannot run this: a matrix of {weight.numel()} entries, at most"
                f" {MAX_MATRIX}; use backend='auto'"
            )
        engine = "reference"
    if engine == "reference":
        return reference.lmht(x, weight, leak, theta, v_init, levels=levels)[0]
    start = torch.stack([theta.detach().float(), theta.detach().float() * v_init.detach().float()])
    table = torch.cat([start, leak.float(), weight.float().flatten()])
    steps, steps_in = weight.shape
    launch = made(_mixing, engine=engine, levels=levels, steps_in=steps_in, steps=steps)
    return _fused(x, Operands(table=table), launch)[0]


psn = reference.psn
sliding_psn = reference.sliding_psn


# Rules are imported when a kernel is wanted: making their classes takes a third of the time that importing
# the package takes.


def _leaky(
    fire: Firing,
    engine: str,
    keep: bool,
    *,
    leak: str = "by tau",
    tau: float = 1.0,
    decay_input: bool = True,
    learn_rate: bool = False,
    gain: bool = False,
    scale_reset: bool = False,
) -> Launch:
    """The kernel of a leaky neuron and its numbers; learnt ones take the places of ``rate`` and ``k``."""
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    if leak == "by tau":  # dividing by a power of two is multiplying by its reciprocal, to the last bit
        leak = "multiply" if math.frexp(tau)[0] == 0.5 else "divide"
    rule = rules.Leaky(
        surrogate=fire.surrogate,
        leak=leak,
        decay_input=decay_input,
        hard=fire.v_reset is not None,
        detach=fire.detach_reset,
        learn_rate=learn_rate,
        gain=gain,
        scale_reset=scale_reset,
    )
    params = {"theta": fire.v_threshold, "v_reset": fire.rest, "tau": tau, "rate": 1.0 / tau, "k": 1.0}
    return Launch(rule, engine, keep, params)


def _complementary(
    surrogate: Surrogate, engine: str, keep: bool, *, v_threshold: float, tau: float
) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    params = {"theta": v_threshold, "tau": tau, "keep": 1.0 - 1.0 / tau}
    return Launch(rules.Complementary(surrogate), engine, keep, params)


def _gated(surrogate: Surrogate, engine: str, keep: bool) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.Gated(surrogate), engine, keep)


def _compartments(surrogate: Surrogate, engine: str, keep: bool) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.Compartments(surrogate), engine, keep)


def _mixing(engine: str, *, levels: int, steps_in: int, steps: int) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.LMHT(levels=levels, steps_in=steps_in, steps=steps), engine, keep=False)


def _fused(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, tuple[Tensor, ...]]:
    from spiking.kernels import ops  # loads the compiler, so not before it is wanted

    return ops.neuron(x, operands, launch)


def _one_state(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, Tensor | None]:
    spikes, ends = _fused(x, operands, launch)
    return spikes, ends[0] if launch.keep else None
