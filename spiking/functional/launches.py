"""Which kernel runs a neuron that fires single spikes, and with which numbers.

The functions named after neurons take what those of `spiking.functional` take, check it, and give `Kernel`,
or None where the plain reference has to run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from spiking.arguments import flag, number, tensor, time_constant
from spiking.functional.dispatch import check, choose, planned
from spiking.kernels.operands import NOTHING, Operands
from spiking.reference.firing import SIGMOID, Firing

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels import Placed
    from spiking.kernels.launch import Launch
    from spiking.surrogate import Surrogate

    Kernel = tuple[Operands, Launch] | None


def if_(
    x: Tensor,
    v: Tensor | None = None,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    *,
    backend: str = "auto",
    keep_state: bool = True,
) -> Kernel:
    """Of `spiking.functional.if_`."""
    check(x, v)
    launch = planned(_if, x, backend, keep_state, v_threshold, v_reset, detach_reset, surrogate)
    return None if launch is None else (_from(v), launch)


def lif(
    x: Tensor,
    v: Tensor | None = None,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    *,
    backend: str = "auto",
    keep_state: bool = True,
) -> Kernel:
    """Of `spiking.functional.lif`."""
    check(x, v)
    launch = planned(
        _lif, x, backend, keep_state, v_threshold, v_reset, detach_reset, surrogate, tau, decay_input
    )
    return None if launch is None else (_from(v), launch)


def plif(
    x: Tensor,
    w: Tensor,
    v: Tensor | None = None,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    *,
    backend: str = "auto",
    keep_state: bool = True,
) -> Kernel:
    """Of `spiking.functional.plif`."""
    check(x, v)
    tensor("w", w, size=1)
    launch = planned(
        _plif, x, backend, keep_state, v_threshold, v_reset, detach_reset, surrogate, decay_input
    )
    return None if launch is None else (Operands(v=v, rate=w.float().sigmoid()), launch)


def klif(
    x: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    scale_reset: bool = False,
    tau: float = 2.0,
    decay_input: bool = True,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = False,
    surrogate: Surrogate = SIGMOID,
    *,
    backend: str = "auto",
    keep_state: bool = True,
) -> Kernel:
    """Of `spiking.functional.klif`."""
    check(x, v)
    tensor("k", k, size=1)
    firing = v_threshold, v_reset, detach_reset, surrogate
    launch = planned(_klif, x, backend, keep_state, *firing, tau, decay_input, scale_reset)
    return None if launch is None else (Operands(v=v, k=k.float()), launch)


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
) -> Kernel:
    """Of `spiking.functional.clif`."""
    check(x, v, m)
    launch = planned(_clif, x, backend, keep_state, tau, v_threshold, surrogate)
    return None if launch is None else (Operands(v=v, m=m), launch)


def _from(v: Tensor | None) -> Operands:
    return NOTHING if v is None else Operands(v=v)


# ---------------------------------------------------------------- plans, see `dispatch.planned`


def _if(x: Placed, backend: str, keep: bool, *firing: Any) -> Launch | None:
    fire = _firing(*firing)
    engine = choose(x, backend, fire.surrogate)
    return None if engine == "reference" else leaky(fire, engine, keep, leak="none")


def _lif(x: Placed, backend: str, keep: bool, *settings: Any) -> Launch | None:
    *firing, tau, decay_input = settings
    time_constant("tau", tau)
    flag("decay_input", decay_input)
    fire = _firing(*firing)
    engine = choose(x, backend, fire.surrogate)
    return None if engine == "reference" else leaky(fire, engine, keep, tau=tau, decay_input=decay_input)


def _plif(x: Placed, backend: str, keep: bool, *settings: Any) -> Launch | None:
    *firing, decay_input = settings
    flag("decay_input", decay_input)
    fire = _firing(*firing)
    engine = choose(x, backend, fire.surrogate)
    if engine == "reference":
        return None
    return leaky(fire, engine, keep, leak="multiply", decay_input=decay_input, learn_rate=True)


def _klif(x: Placed, backend: str, keep: bool, *settings: Any) -> Launch | None:
    *firing, tau, decay_input, scale_reset = settings
    time_constant("tau", tau)
    flag("decay_input", decay_input)
    flag("scale_reset", scale_reset)
    fire = _firing(*firing)
    engine = choose(x, backend, fire.surrogate)
    if engine == "reference":
        return None
    return leaky(fire, engine, keep, tau=tau, decay_input=decay_input, gain=True, scale_reset=scale_reset)


def _clif(
    x: Placed, backend: str, keep: bool, tau: float, v_threshold: float, surrogate: Surrogate
) -> Launch | None:
    time_constant("tau", tau)
    number("v_threshold", v_threshold, above=0.0)
    engine = choose(x, backend, surrogate)
    if engine == "reference":
        return None
    return complementary(surrogate, engine, keep, v_threshold=v_threshold, tau=tau)


def _firing(v_threshold: float, v_reset: float | None, detach_reset: bool, surrogate: Surrogate) -> Firing:
    return Firing(v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset, surrogate=surrogate)


# Rules are imported when a kernel is wanted: making their classes takes a third of the time that importing
# the package takes.


def leaky(
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


def complementary(surrogate: Surrogate, engine: str, keep: bool, *, v_threshold: float, tau: float) -> Launch:
    """The kernel of CLIF and its numbers."""
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    params = {"theta": v_threshold, "tau": tau, "keep": 1.0 - 1.0 / tau}
    return Launch(rules.Complementary(surrogate), engine, keep, params)


def gated(surrogate: Surrogate, engine: str, keep: bool) -> Launch:
    """The kernel of GLIF."""
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.Gated(surrogate), engine, keep)


def compartments(surrogate: Surrogate, engine: str, keep: bool) -> Launch:
    """The kernel of LM-H."""
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.Compartments(surrogate), engine, keep)


def mixing(engine: str, *, levels: int, steps_in: int, steps: int) -> Launch:
    """The kernel of LM-HT."""
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import neurons as rules

    return Launch(rules.LMHT(levels=levels, steps_in=steps_in, steps=steps), engine, keep=False)
