"""The equations of the neurons and surrogates, as the CPU kernels compile them.

Each family says three things over `codegen.Vec` values: how a step goes forward, what of it the backward
pass needs again, and how gradients flow back through one step. The forward operations keep the order of
`spiking.reference`, so that spikes agree bit for bit; LLVM may fuse only inside the backward formulas.
Letters: ``h`` potential before the reset, ``e`` gradient of the state after a step, ``d`` gradient of ``h``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spiking.kernels.cpu.codegen import Code, Vec

Params = dict[str, "Vec"]


@dataclass(frozen=True)
class Step:
    """What one step forward gives: who fires, the states after it, what backward wants to see.

    ``fires`` are truth values, or the numbers to give out where spikes are graded.
    """

    fires: Vec
    states: tuple[Vec, ...]
    saved: tuple[Vec, ...]


@dataclass(frozen=True)
class Back:
    """What one step backward gives: gradients of the current, of the states before, of parameters."""

    current: Vec
    states: tuple[Vec, ...]
    params: tuple[Vec, ...] = ()
    conductance: Vec | None = None


@dataclass(frozen=True)
class Rule(ABC):
    """A neuron family with its switches; hashable, one compiled kernel each.

    Attributes:
        surrogate: an object of `spiking.surrogate` whose class `SURROGATES` knows.
        engine: ``"cpu"`` or ``"triton"``.
    """

    surrogate: Any
    engine: str = field(default="cpu", kw_only=True)

    names: ClassVar[tuple[str, ...]] = ()  # scalar parameters, in the order in which they are passed
    arrays: ClassVar[tuple[str, ...]] = ()  # parameters with a value for every neuron
    conducts: ClassVar[bool] = False  # whether formulas use ``p["conduct"]``, a value a neuron and step
    timed: ClassVar[bool] = False  # whether formulas use ``p["t"]``, the number of the step
    n_states: ClassVar[int] = 1
    n_saved: ClassVar[int] = 1
    n_param_grads: ClassVar[int] = 0
    table: ClassVar[bool] = False  # parameters that all neurons share are one tensor of numbers

    @property
    def per_neuron(self) -> bool:
        """Whether any parameter is an array over the neurons."""
        return bool(self.arrays)

    @abstractmethod
    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """States before the first step."""

    @abstractmethod
    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """One step."""

    @abstractmethod
    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """One step back: ``g`` is the gradient of the spikes, ``e`` that of the states after."""

    def spike(self, p: Params) -> Vec | float:
        """What a spike is in the output."""
        return 1.0

    def slope(self, c: Code, u: Vec) -> Vec:
        """The surrogate's derivative at ``u``."""
        return SURROGATES[type(self.surrogate).__name__](c, u, self.surrogate)


@dataclass(frozen=True)
class Leaky(Rule):
    """IF, LIF, PLIF and KLIF (2007.05785, 2302.09238): charge, optional gain, fire, reset.

    Attributes:
        leak: ``"none"`` (IF), ``"divide"`` by tau, or ``"multiply"`` by its reciprocal: a power of two
            as tau (the same bits) or a learnt rate.
        decay_input: whether the current decays, too.
        hard: reset to ``v_reset`` instead of by subtraction.
        detach: no gradient through the reset.
        learn_rate: whether the gradient of the rate is wanted (PLIF).
        gain: whether the charge is scaled by a learnt ``k`` and rectified (KLIF).
        scale_reset: KLIF's reset acts on ``h / k``.
    """

    leak: str = "divide"
    decay_input: bool = True
    hard: bool = True
    detach: bool = False
    learn_rate: bool = False
    gain: bool = False
    scale_reset: bool = False

    names: ClassVar[tuple[str, ...]] = ("theta", "v_reset", "tau", "rate", "k")

    @property
    def n_saved(self) -> int:  # type: ignore[override]
        """The potential; for PLIF also its derivative by the rate."""
        return 2 if self.learn_rate else 1

    @property
    def n_param_grads(self) -> int:  # type: ignore[override]
        """One for the rate, one for the gain."""
        return int(self.learn_rate) + int(self.gain)

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """``v_reset`` for a hard reset, else 0."""
        return (p["v_reset"] if self.hard else 0.0,)

    def _scaled(self, p: Params, a: Vec) -> Vec:
        return a / p["tau"] if self.leak == "divide" else a * p["rate"]

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """Charge, fire, reset."""
        (v,) = states
        saved: tuple[Vec, ...] = ()
        if self.leak == "none":
            u = v + x
        else:
            above = v - p["v_reset"] if self.hard else v
            if self.decay_input:
                drive = x - above
                u = v + self._scaled(p, drive)
            else:
                drive = above
                u = (v - self._scaled(p, drive)) + x
            if self.learn_rate:
                saved = (drive,)
        h = u
        if self.gain:
            scaled = p["k"] * u
            h = c.where(scaled > 0.0, scaled, 0.0)
        fires = h >= p["theta"]
        theta, base = p["theta"], h
        if self.gain and self.scale_reset:
            theta, base = theta / p["k"], h / p["k"]
        after = c.where(fires, p["v_reset"] if self.hard else base - theta, base)
        return Step(fires, (after,), (u, *saved))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """The recursion of back-propagation through time."""
        u, (ev,) = saved[0], e
        h, theta, base, inner = u, p["theta"], u, ev
        grads: list[Vec] = []
        if self.gain:
            scaled = p["k"] * u
            alive = scaled > 0.0
            h = base = c.where(alive, scaled, 0.0)
            if self.scale_reset:
                base, theta, inner = h / p["k"], theta / p["k"], ev / p["k"]
        fires = h >= p["theta"]
        if not self.detach:
            g = g + ((p["v_reset"] - base) * ev if self.hard else -(theta * ev))
        through = c.where(fires, 0.0, inner) if self.hard else inner
        d = g * self.slope(c, h - p["theta"]) + through
        if self.gain:
            du = c.where(alive, d * p["k"], 0.0)
            dk = c.where(alive, d * u, 0.0)
            if self.scale_reset:
                lost = through if self.hard else inner
                moved = base if self.hard else c.where(fires, base - theta, base)
                dk = dk - lost * moved
            grads.append(dk)
            d = du
        if self.leak == "none":
            return Back(d, (d,), tuple(grads))
        leaked = d * p["rate"]
        if self.learn_rate:
            grads.append(d * saved[1] if self.decay_input else -(d * saved[1]))
        return Back(leaked if self.decay_input else d, (d - leaked,), tuple(grads))


@dataclass(frozen=True)
class Complementary(Rule):
    """CLIF (2402.04663): a second state, the complementary potential ``m``, deepens the reset."""

    names: ClassVar[tuple[str, ...]] = ("theta", "tau", "keep")
    n_states: ClassVar[int] = 2
    n_saved: ClassVar[int] = 2

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """Both states at 0."""
        return (0.0, 0.0)

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """Charge, let ``m`` decay with the potential, fire, reset by theta + sigmoid(m)."""
        v, m = states
        h = v * p["keep"] + x
        fires = h >= p["theta"]
        spike = c.where(fires, 1.0, 0.0)
        m_new = m * c.sigmoid(h / p["tau"]) + spike
        after = c.where(fires, h - (c.sigmoid(m_new) + p["theta"]), h)
        return Step(fires, (after, m_new), (h, m))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Through both states; the reset is never detached."""
        h, m = saved
        ev, em = e
        fires = h >= p["theta"]
        gate = c.sigmoid(h / p["tau"])
        m_new = m * gate + c.where(fires, 1.0, 0.0)
        deep = c.sigmoid(m_new)
        dm = em - c.where(fires, ev * deep * (1.0 - deep), 0.0)
        gs = g - ev * (p["theta"] + deep) + dm
        d = gs * self.slope(c, h - p["theta"]) + ev + dm * m * gate * (1.0 - gate) / p["tau"]
        return Back(d, (d * p["keep"], dm * gate))


@dataclass(frozen=True)
class Gated(Rule):
    """GLIF (2210.13768) over its linear coefficients, each an array over the neurons.

    ``v = ((keep v - decay) + x conduct) - (keep v) gamma s - reset s``; fires at ``theta``.
    """

    arrays: ClassVar[tuple[str, ...]] = ("keep", "decay", "gamma", "reset", "theta")
    conducts: ClassVar[bool] = True
    n_states: ClassVar[int] = 2
    n_saved: ClassVar[int] = 4
    n_param_grads: ClassVar[int] = 5

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """Potential 0 and no spike before."""
        return (0.0, 0.0)

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """The reset belongs to the spike of the step before."""
        v, s = states
        kept = p["keep"] * v
        h = kept - p["decay"] + x * p["conduct"] - kept * p["gamma"] * s - p["reset"] * s
        fires = h >= p["theta"]
        return Step(fires, (h, c.where(fires, 1.0, 0.0)), (h, v, s, x))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Gradients of all coefficients, summed by the kernel over time and batch."""
        h, v, s, x = saved
        ev, es = e
        slope = (g + es) * self.slope(c, h - p["theta"])
        d = slope + ev
        open_ = 1.0 - p["gamma"] * s
        kept = p["keep"] * v
        grads = (d * v * open_, -d, -(d * kept * s), -(d * s), -slope)
        states = (d * p["keep"] * open_, -(d * (kept * p["gamma"] + p["reset"])))
        return Back(d * p["conduct"], states, grads, d * x)


@dataclass(frozen=True)
class Compartments(Rule):
    """LM-H (hzc1208/STBP_LMH): a dendrite feeds a soma; the output carries the threshold."""

    names: ClassVar[tuple[str, ...]] = ("a", "b", "c", "e", "theta")
    n_states: ClassVar[int] = 2
    n_saved: ClassVar[int] = 4
    n_param_grads: ClassVar[int] = 4  # theta is not learnt
    table: ClassVar[bool] = True

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """The dendrite at 0, the soma at half its threshold."""
        return (0.0, p["theta"] * 0.5)

    def spike(self, p: Params) -> Vec | float:
        """The threshold."""
        return p["theta"]

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """The dendrite sees the old soma, the soma the new dendrite."""
        d0, u0 = states
        d = p["a"] * d0 + p["b"] * u0 + x
        u = p["c"] * u0 + p["e"] * d
        fires = u >= p["theta"]
        return Step(fires, (d, c.where(fires, u - p["theta"], u)), (d0, u0, d, u))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """The reset is detached."""
        d0, u0, d, u = saved
        ed, eu = e
        du = g * p["theta"] * self.slope(c, u - p["theta"]) + eu
        dd = ed + p["e"] * du
        return Back(dd, (p["a"] * dd, p["c"] * du + p["b"] * dd), (dd * d0, dd * u0, du * u0, du * d))


@dataclass(frozen=True)
class LMHT:
    """LM-HT (2402.00411), whose steps see the currents of all steps; `mixing` writes its kernels.

    Attributes:
        levels: L.
        steps_in: T', the length of the currents.
        steps: T, the length of the output.
        engine: ``"cpu"`` or ``"triton"``.
    """

    levels: int
    steps_in: int
    steps: int
    engine: str = field(default="cpu", kw_only=True)

    n_states: ClassVar[int] = 0
    n_param_grads: ClassVar[int] = 1  # the table
    per_neuron: ClassVar[bool] = False
    table: ClassVar[bool] = True

    def fire(self, c: Code, m: Vec, edges: Sequence[Vec]) -> Vec:
        """The highest of theta, 2 theta ... L theta that the potential has reached, else 0."""
        y: Vec | float = 0.0
        for edge in edges:
            y = c.where(m >= edge, edge, y)
        return c.as_vec(y)

    def inside(self, c: Code, m: Vec, theta: Vec, g: Vec) -> Vec:
        """The gradient, where the potential lies in the closed interval of slope 1."""
        return c.where(m >= theta * 0.5, c.where(m <= theta * (self.levels + 0.5), g, 0.0), 0.0)


# ---------------------------------------------------------------- surrogate derivatives


def _rect(c: Code, u: Vec, s: Any) -> Vec:
    return c.where(c.abs(u) < 0.5 / s.alpha, s.alpha, 0.0)


def _triangle(c: Code, u: Vec, s: Any) -> Vec:
    a = c.abs(u)
    return c.where(a <= 1.0 / s.alpha, s.alpha - a * s.alpha**2, 0.0)


def _bell(c: Code, u: Vec, alpha: float) -> Vec:
    """``alpha sig (1 - sig)`` from ``e**-|alpha u|``: one division, no cancellation."""
    z = c.exp(-(c.abs(u) * abs(alpha)))
    one = z + 1.0
    return z * alpha / (one * one)


def _sigmoid(c: Code, u: Vec, s: Any) -> Vec:
    return _bell(c, u, s.alpha)


def _atan(c: Code, u: Vec, s: Any) -> Vec:
    half: float = s.alpha / 2
    k = (math.pi * half) ** 2
    return half / (u * u * k + 1.0)


def _erf(c: Code, u: Vec, s: Any) -> Vec:
    alpha: float = s.alpha
    return c.exp(-(u * u * alpha**2)) * (alpha / math.sqrt(math.pi))


def _piecewise_exp(c: Code, u: Vec, s: Any) -> Vec:
    alpha: float = s.alpha
    return c.exp(-(c.abs(u) * alpha)) * (alpha / 2)


def _soft_sign(c: Code, u: Vec, s: Any) -> Vec:
    alpha: float = s.alpha
    one = c.abs(u) * alpha + 1.0
    return (alpha / 2) / (one * one)


def _super_spike(c: Code, u: Vec, s: Any) -> Vec:
    alpha: float = s.alpha
    one = c.abs(u) + 1.0
    return alpha / (one * one)


def _leaky_relu(c: Code, u: Vec, s: Any) -> Vec:
    return c.where(c.abs(u) < s.w, 1.0 / (2.0 * s.w), s.c)


def _sign_log(c: Code, u: Vec, s: Any) -> Vec:
    edge: float = 1.0 / s.alpha
    return 1.0 / (c.abs(u) + edge)


def _s2nn(c: Code, u: Vec, s: Any) -> Vec:
    return c.where(u < 0.0, _bell(c, u, s.alpha), s.beta / (c.abs(u) + 1.0))


def _leaky_k_relu(c: Code, u: Vec, s: Any) -> Vec:
    return c.where(u >= 0.0, s.k, s.leak)


def _log_tailed(c: Code, u: Vec, s: Any) -> Vec:
    return c.where(u <= 0.0, s.alpha, 1.0 / c.call("maxnum", u, 1.0))


def _fake(c: Code, u: Vec, s: Any) -> Vec:
    return c.call("minnum", 1.0 / c.abs(u), s.alpha)


SURROGATES: dict[str, Callable[[Code, Vec, Any], Vec]] = {
    "Rect": _rect,
    "PiecewiseQuadratic": _triangle,
    "Sigmoid": _sigmoid,
    "ATan": _atan,
    "Erf": _erf,
    "PiecewiseExp": _piecewise_exp,
    "SoftSign": _soft_sign,
    "SuperSpike": _super_spike,
    "PiecewiseLeakyReLU": _leaky_relu,
    "NonzeroSignLogAbs": _sign_log,
    "S2NN": _s2nn,
    "LeakyKReLU": _leaky_k_relu,
    "LogTailedReLU": _log_tailed,
    "FakeNumericalGradient": _fake,
}
