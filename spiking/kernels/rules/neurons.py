"""The equations of neurons that fire single spikes, and those of LM-HT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spiking.kernels.rules import surrogates
from spiking.kernels.rules.base import Back, Family, Params, Rule, Step
from spiking.kernels.rules.expressions import Code, Vec
from spiking.surrogate import Surrogate


@dataclass(frozen=True)
class Spiking(Rule):
    """A rule that fires where a potential reaches a threshold.

    Attributes:
        surrogate: whose derivative stands for that of the step.
    """

    surrogate: Surrogate

    def slope(self, c: Code, u: Vec) -> Vec:
        """The surrogate's derivative at ``u``, the distance to the threshold."""
        return surrogates.slope(c, u, self.surrogate)


@dataclass(frozen=True)
class Leaky(Spiking):
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

    names = ("theta", "v_reset", "tau", "rate", "k")

    @property
    def n_saved(self) -> int:
        """The potential; for PLIF also its derivative by the rate."""
        return 2 if self.learn_rate else 1

    @property
    def learnt(self) -> tuple[str, ...]:
        """The gain, the rate, or none."""
        return (*(("k",) if self.gain else ()), *(("rate",) if self.learn_rate else ()))

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
        grads: dict[str, Vec] = {}
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
            grads["k"] = dk
            d = du
        if self.leak == "none":
            return Back(d, (d,), grads)
        leaked = d * p["rate"]
        if self.learn_rate:
            grads["rate"] = d * saved[1] if self.decay_input else -(d * saved[1])
        return Back(leaked if self.decay_input else d, (d - leaked,), grads)


@dataclass(frozen=True)
class Complementary(Spiking):
    """CLIF (2402.04663): a second state, the complementary potential ``m``, deepens the reset."""

    names = ("theta", "tau", "keep")
    n_states = 2
    n_saved = 2

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
class Dynamic(Spiking):
    """The second-order neuron of MDC-SAN (2106.07854): a potential, and a recovery that pulls it down."""

    names = ("theta", "v_reset", "jump", "pull", "growth")
    n_states = 2
    n_saved = 2

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """Both states at 0."""
        return (0.0, 0.0)

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """Both states move by the values before; a spike resets one and lifts the other."""
        v, u = states
        h = v + (v * v - v - u + x)
        lifted = u + (p["growth"] * u - p["pull"] * v)
        fires = h >= p["theta"]
        after = c.where(fires, p["v_reset"], h)
        return Step(fires, (after, c.where(fires, lifted + p["jump"], lifted)), (h, v))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Through both states; the reset is never detached."""
        h, v = saved
        ev, eu = e
        fires = h >= p["theta"]
        gs = g + (p["v_reset"] - h) * ev + p["jump"] * eu
        d = gs * self.slope(c, h - p["theta"]) + c.where(fires, 0.0, ev)
        return Back(d, (d * (v + v) - p["pull"] * eu, eu + p["growth"] * eu - d))


@dataclass(frozen=True)
class Gated(Spiking):
    """GLIF (2210.13768) over its linear coefficients, each an array over the neurons.

    ``v = ((keep v - decay) + x conduct) - (keep v) gamma s - reset s``; fires at ``theta``.
    """

    arrays = ("keep", "decay", "gamma", "reset", "theta")
    learnt = arrays
    conducts = True
    n_states = 2
    n_saved = 4

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
        grads = {
            "keep": d * v * open_,
            "decay": -d,
            "gamma": -(d * kept * s),
            "reset": -(d * s),
            "theta": -slope,
        }
        states = (d * p["keep"] * open_, -(d * (kept * p["gamma"] + p["reset"])))
        return Back(d * p["conduct"], states, grads, d * x)


@dataclass(frozen=True)
class Compartments(Spiking):
    """LM-H (hzc1208/STBP_LMH): a dendrite feeds a soma; the output carries the threshold."""

    names = ("a", "b", "c", "e", "theta")
    tabled = names
    learnt = ("a", "b", "c", "e")
    n_states = 2
    n_saved = 4

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
        grads = {"a": dd * d0, "b": dd * u0, "c": du * u0, "e": du * d}
        return Back(dd, (p["a"] * dd, p["c"] * du + p["b"] * dd), grads)


@dataclass(frozen=True)
class LMHT(Family):
    """LM-HT (2402.00411), whose steps see the currents of all steps; `cpu.lmht_writer` writes its kernels.

    Threshold, first potential, leak and matrix come as one table.

    Attributes:
        levels: L.
        steps_in: T', the length of the currents.
        steps: T, the length of the output.
    """

    levels: int
    steps_in: int
    steps: int

    learnt = ("table",)
    n_states = 0

    def fire(self, c: Code, m: Vec, edges: Sequence[Vec]) -> Vec:
        """The highest of theta, 2 theta ... L theta that the potential has reached, else 0."""
        y: Vec | float = 0.0
        for edge in edges:
            y = c.where(m >= edge, edge, y)
        return c.as_vec(y)

    def inside(self, c: Code, m: Vec, theta: Vec, g: Vec) -> Vec:
        """The gradient, where the potential lies in the closed interval of slope 1."""
        return c.where(m >= theta * 0.5, c.where(m <= theta * (self.levels + 0.5), g, 0.0), 0.0)
