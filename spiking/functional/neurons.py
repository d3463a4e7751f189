"""Neurons that fire single spikes, over ``[T, B, ...]``; see `spiking.functional` for ``backend``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from torch import Tensor

from spiking import reference
from spiking.arguments import integer, tensor
from spiking.functional import launches
from spiking.functional.dispatch import check, choose, made
from spiking.kernels import layout
from spiking.kernels.operands import Operands
from spiking.reference.firing import SIGMOID, TRIANGLE, FiringOptions

if TYPE_CHECKING:
    from spiking.kernels.launch import Launch
    from spiking.surrogate import Surrogate

MAX_MATRIX = 256  # entries that LM-HT's kernel unrolls


class LeakOptions(TypedDict):
    """How a potential leaks."""

    tau: float
    decay_input: bool


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
    kernel = launches.if_(x, v, backend=backend, keep_state=keep_state, **firing)
    return reference.if_(x, v, **firing) if kernel is None else one_state(x, *kernel)


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
    options: LeakOptions = {"tau": tau, "decay_input": decay_input}
    kernel = launches.lif(x, v, **options, backend=backend, keep_state=keep_state, **firing)
    return reference.lif(x, v, **options, **firing) if kernel is None else one_state(x, *kernel)


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
    kernel = launches.plif(x, w, v, decay_input=decay_input, backend=backend, keep_state=keep_state, **firing)
    if kernel is None:
        return reference.plif(x, w, v, decay_input=decay_input, **firing)
    return one_state(x, *kernel)


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
    options: LeakOptions = {"tau": tau, "decay_input": decay_input}
    kernel = launches.klif(
        x, k, v, scale_reset=scale_reset, **options, backend=backend, keep_state=keep_state, **firing
    )
    if kernel is None:
        return reference.klif(x, k, v, scale_reset=scale_reset, **options, **firing)
    return one_state(x, *kernel)


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
    kernel = launches.clif(
        x,
        v,
        m,
        tau=tau,
        v_threshold=v_threshold,
        surrogate=surrogate,
        backend=backend,
        keep_state=keep_state,
    )
    if kernel is None:
        return reference.clif(x, v, m, tau=tau, v_threshold=v_threshold, surrogate=surrogate)
    spikes, ends = _fused(x, *kernel)
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
    launch = made(launches.gated, surrogate=surrogate, engine=engine, keep=keep_state)
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
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return reference.lmh(x, coefficients, d, u, surrogate=surrogate)
    operands = Operands(v=d, m=u, table=coefficients.float())
    launch = made(launches.compartments, surrogate=surrogate, engine=engine, keep=keep_state)
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
    launch = made(launches.mixing, engine=engine, levels=levels, steps_in=steps_in, steps=steps)
    return _fused(x, Operands(table=table), launch)[0]


psn = reference.psn
sliding_psn = reference.sliding_psn


def _fused(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, tuple[Tensor, ...]]:
    from spiking.kernels import ops  # loads the compiler, so not before it is wanted

    return ops.neuron(x, operands, launch)


def one_state(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, Tensor | None]:
    """Spikes and, if wanted, the last state of a neuron with one, by the kernel that `launches` found."""
    spikes, ends = _fused(x, operands, launch)
    return spikes, ends[0] if launch.keep else None
