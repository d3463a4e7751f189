"""Neurons that fire single spikes, over ``[T, B, ...]``; see `spiking.functional` for ``backend``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spiking import reference
from spiking.functional.dispatch import check, choose
from spiking.kernels import layout
from spiking.reference.neurons import SIGMOID, TRIANGLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking.kernels.ops import Extras
    from spiking.surrogate import Surrogate

NO_EXTRAS: Extras = (None,) * 6
MAX_MATRIX = 256  # entries that LM-HT's kernel unrolls


def if_(
    x: Tensor,
    v: Tensor | None = None,
    *,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Integrate-and-fire; see `spiking.reference.if_`.

    Args:
        x: currents ``[T, ...]``, float.
        v: potential before the first step ``[...]``; rest if missing.
        v_threshold: fires at this potential and above.
        v_reset: potential after a spike; ``None`` subtracts the threshold.
        detach_reset: no gradient through the reset.
        surrogate: slope of the step.
        backend: see the head of this file.
        keep_state: whether the potential after the last step is wanted; None is given if not.
    """
    check(x, v)
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return reference.if_(
            x,
            v,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
        )
    rule = f"Leaky|leak=none,hard={v_reset is not None},detach={detach_reset}"
    params = (v_threshold, v_reset or 0.0, 1.0, 1.0, 1.0)
    extras = (v, None, None, None, None, None)
    return _one_state(x, extras, rule, surrogate, engine, params, keep_state)


def lif(
    x: Tensor,
    v: Tensor | None = None,
    *,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Leaky integrate-and-fire; see `spiking.reference.lif`, and `if_` for the arguments.

    Args:
        x: currents ``[T, ...]``, float.
        v: potential before the first step.
        tau: time constant in steps.
        decay_input: whether the current is divided by ``tau``, too.
        v_threshold: see `if_`.
        v_reset: see `if_`.
        detach_reset: see `if_`.
        surrogate: see `if_`.
        backend: see `if_`.
        keep_state: see `if_`.
    """
    check(x, v)
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return reference.lif(
            x,
            v,
            tau=tau,
            decay_input=decay_input,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
        )
    hard = v_reset is not None
    rule = f"Leaky|leak={_leak(tau)},decay_input={decay_input},hard={hard},detach={detach_reset}"
    params = (v_threshold, v_reset or 0.0, tau, 1.0 / tau, 1.0)
    extras = (v, None, None, None, None, None)
    return _one_state(x, extras, rule, surrogate, engine, params, keep_state)


def plif(
    x: Tensor,
    w: Tensor,
    v: Tensor | None = None,
    *,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """LIF with a learnable time constant, ``1 / tau = sigmoid(w)``; see `spiking.reference.plif`."""
    check(x, v)
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return reference.plif(
            x,
            w,
            v,
            decay_input=decay_input,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
        )
    hard = v_reset is not None
    rule = f"Leaky|leak=multiply,decay_input={decay_input},hard={hard},detach={detach_reset},learn_rate=True"
    params = (v_threshold, v_reset or 0.0, 1.0, 1.0, 1.0)
    extras = (v, None, w.float().sigmoid(), None, None, None)
    return _one_state(x, extras, rule, surrogate, engine, params, keep_state)


def klif(
    x: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    scale_reset: bool = False,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """LIF with a learnable gain ``k``; see `spiking.reference.klif`."""
    check(x, v)
    engine = choose(x, backend, surrogate, leaky=False)
    if engine == "reference":
        return reference.klif(
            x,
            k,
            v,
            scale_reset=scale_reset,
            tau=tau,
            decay_input=decay_input,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
        )
    hard = v_reset is not None
    rule = (
        f"Leaky|leak={_leak(tau)},decay_input={decay_input},hard={hard},detach={detach_reset},"
        f"gain=True,scale_reset={scale_reset}"
    )
    params = (v_threshold, v_reset or 0.0, tau, 1.0 / tau, 1.0)
    extras = (v, None, None, k.float(), None, None)
    return _one_state(x, extras, rule, surrogate, engine, params, keep_state)


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
    engine = choose(x, backend, surrogate, leaky=False)
    if engine == "reference":
        return reference.clif(x, v, m, tau=tau, v_threshold=v_threshold, surrogate=surrogate)
    params = (v_threshold, tau, 1.0 - 1.0 / tau)
    extras = (v, m, None, None, None, None)
    spikes, ends = _fused(x, extras, "Complementary|", surrogate, engine, params, keep_state)
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
    if x.dim() < 3:
        raise ValueError(f"GLIF needs currents [T, B, C, ...], got {tuple(x.shape)}")
    if conductance.shape[0] != x.shape[0]:
        raise ValueError(f"GLIF was built for T = {conductance.shape[0]}, got T = {x.shape[0]}")
    engine = choose(x, backend, surrogate, leaky=False)
    if engine == "reference":
        return reference.glif(x, coefficients, conductance, v, s, surrogate=surrogate)
    per_channel = (-1, *(1,) * (x.dim() - 3))
    coefficients = layout.over_neurons(coefficients.reshape(5, *per_channel), x)
    conductance = layout.over_neurons(conductance.reshape(len(x), *per_channel), x)
    extras = (v, s, None, None, coefficients, conductance)
    spikes, ends = _fused(x, extras, "Gated|", surrogate, engine, (0.0,), keep_state)
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
    engine = choose(x, backend, surrogate, leaky=False)
    if engine == "reference":
        return reference.lmh(x, coefficients, d, u, surrogate=surrogate)
    extras = (d, u, None, None, coefficients.float(), None)
    y, ends = _fused(x, extras, "Compartments|", surrogate, engine, (0.0,) * 5, keep_state)
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
    from spiking.kernels import ops

    text = f"LMHT|levels={levels},steps_in={weight.shape[1]},steps={weight.shape[0]};;{engine}"
    return ops.neuron(x, (None, None, None, None, table, None), text, (0.0,), False)[0]


psn = reference.psn
sliding_psn = reference.sliding_psn


def _leak(tau: float) -> str:
    """Dividing by a power of two is multiplying by its reciprocal, to the last bit."""
    return "multiply" if math.frexp(tau)[0] == 0.5 else "divide"


def _fused(
    x: Tensor,
    extras: Extras,
    rule: str,
    surrogate: Surrogate,
    engine: str,
    params: Sequence[float],
    keep: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    from spiking.kernels import ops  # loads the compiler, so not before it is wanted

    return ops.neuron(x, extras, f"{rule};{surrogate.text};{engine}", params, keep)


def _one_state(
    x: Tensor,
    extras: Extras,
    rule: str,
    surrogate: Surrogate,
    engine: str,
    params: Sequence[float],
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    spikes, ends = _fused(x, extras, rule, surrogate, engine, params, keep)
    return spikes, ends[0] if keep else None
