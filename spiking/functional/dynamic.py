"""The second-order neuron as a function over ``[T, B, ...]``; see `spiking.functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiking import reference
from spiking.arguments import number
from spiking.functional.dispatch import check, choose, made
from spiking.reference import SIGMOID, Dynamics

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.launch import Launch
    from spiking.surrogate import Surrogate


def dynamic(
    x: Tensor,
    v: Tensor | None = None,
    u: Tensor | None = None,
    *,
    dynamics: Dynamics | None = None,
    v_threshold: float = 0.5,
    surrogate: Surrogate = SIGMOID,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Dynamic neuron; see `spiking.reference.dynamic`."""
    check(x, v, u)
    number("v_threshold", v_threshold, above=0.0)
    dynamics = dynamics or Dynamics()
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return reference.dynamic(x, v, u, dynamics=dynamics, v_threshold=v_threshold, surrogate=surrogate)
    from spiking.kernels import ops  # loads the compiler, so not before it is wanted
    from spiking.kernels.operands import Operands

    launch = made(
        _launch,
        surrogate=surrogate,
        engine=engine,
        keep=keep_state,
        v_threshold=v_threshold,
        dynamics=dynamics,
    )
    spikes, ends = ops.neuron(x, Operands(v=v, m=u), launch)
    return spikes, (ends[0], ends[1]) if keep_state else None


def _launch(
    surrogate: Surrogate, engine: str, keep: bool, *, v_threshold: float, dynamics: Dynamics
) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    params: dict[str, Any] = {"theta": v_threshold, **vars(dynamics)}
    return Launch(rules.Dynamic(surrogate), engine, keep, params)
