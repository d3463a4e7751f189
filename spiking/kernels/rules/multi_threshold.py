"""The equations of neurons with many thresholds, as the CPU kernels compile them.

The levels of a side are ``unit * 2**k``, ``k < n``, so the level nearest to a potential is found from the
difference of two floating-point exponents; `spiking.reference.multi_threshold` walks through the levels one
by one and gives the same bits. Backward: the quantiser counts as the clamp that it samples,
see `spiking.functional.multi_threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiking.kernels.rules.base import Back, Params, Rule, Step
from spiking.kernels.rules.expressions import Code, Vec
from spiking.levels import MARGIN, ROUNDING


@dataclass(frozen=True)
class Quantising(Rule):
    """What neurons with levels share: from a potential to the level that it sends.

    Attributes:
        n: levels a side.
        kind: ``"identity"``, ``"relu"`` (takes back no more than was sent) or ``"positive"``.
        fires: ``"midpoint"``, ``"offset"`` or ``"single"``, see `spiking.functional.multi_threshold.Levels`.
        two_sided: whether the smallest negative level is a parameter of its own.
        shared: whether all neurons have the same levels.
    """

    n: int = 8
    kind: str = "identity"
    fires: str = "midpoint"
    two_sided: bool = False
    shared: bool = True

    @property
    def _units(self) -> tuple[str, ...]:
        return ("unit", "negative_unit") if self.two_sided else ("unit",)

    @property
    def names(self) -> tuple[str, ...]:
        """The number of the first step, and the smallest levels if they are shared."""
        return ("first", *self._units) if self.shared else ("first",)

    @property
    def tabled(self) -> tuple[str, ...]:
        """The smallest levels if they are shared."""
        return self._units if self.shared else ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """The smallest levels if they differ between neurons."""
        return () if self.shared else self._units

    def start(self, p: Params) -> Vec | float:
        """The potential before the first step: half a threshold for a single one, else 0."""
        return p["unit"] * 0.5 if self.fires == "single" else 0.0

    def _sides(self, c: Code, p: Params, u: Vec) -> Vec:
        """The smallest level of the side on which ``u`` lies."""
        return c.where(u < 0.0, p["negative_unit"], p["unit"]) if self.two_sided else p["unit"]

    def quantise(self, c: Code, p: Params, u: Vec, sent: Vec) -> Vec:
        """The signed level that a potential ``u`` sends, after ``sent`` in all so far."""
        if self.fires == "single":
            return self._single(c, p["unit"], u, sent)
        unit = self._sides(c, p, u)
        size = c.abs(u)
        first = unit * 0.75 if self.fires == "midpoint" else unit
        if self.fires == "offset":
            size = size + unit * 0.5
        fires = (size >= first) & (unit > 0.0)
        k = c.lesser(c.floor_log2_ratio(size, first), self.n - 1)
        if self.kind == "relu":
            down, kept = u < 0.0, c.call("maxnum", sent, 0.0)
            affordable = c.lesser(k, c.floor_log2_ratio(kept, unit))
            k = c.select(down, affordable, k)
            fires = fires & ((kept >= unit) | (u >= 0.0))
        elif self.kind == "positive":
            fires = fires & (u >= 0.0)
        level = unit * c.power_of_two(k)
        return c.where(fires, c.call("copysign", level, u), 0.0)

    def _single(self, c: Code, unit: Vec, u: Vec, sent: Vec) -> Vec:
        up = c.where((u >= unit) & (unit > 0.0), unit, 0.0)
        if self.kind == "positive":
            return up
        down = (u <= 0.0) & (unit > 0.0)
        if self.kind == "relu":
            down = down & (sent >= unit)
        return c.where(down, -unit, up)

    def slopes(self, c: Code, p: Params, u: Vec, sent: Vec) -> tuple[Vec, Vec]:
        """Derivatives of the clamp that `quantise` samples, by ``u`` and by ``sent``."""
        top = float(2 ** (self.n - 1))
        high = c.call("maxnum", p["unit"] * top, 0.0)
        w = u - p["unit"] * 0.5 if self.fires == "single" else u
        by_sent = c.as_vec(0.0)
        if self.kind == "positive":
            low = c.as_vec(0.0)
        elif self.kind == "relu":
            kept = c.call("maxnum", sent, 0.0)
            low = c.call("minnum", kept, high)
            bound = (w <= -kept) & (kept > 0.0) & (kept < high)
            by_sent = c.where(bound, -1.0, 0.0)
        elif self.two_sided:
            low = c.call("maxnum", p["negative_unit"] * top, 0.0)
        else:
            low = high
        return c.where((w < high) & (w > -low), 1.0, 0.0), by_sent


@dataclass(frozen=True)
class RateCoded(Quantising):
    """``u = v + x``, send the level ``s`` nearest to it, ``v = u - s`` (2502.21193, 2503.00301)."""

    @property
    def n_states(self) -> int:
        """The potential, and for the ReLU kind what was sent in all."""
        return 2 if self.kind == "relu" else 1

    @property
    def n_saved(self) -> int:
        """Potential and sum before the spike."""
        return self.n_states

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """See `Quantising.start`."""
        return (self.start(p), 0.0)[: self.n_states]

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """Charge, fire, subtract."""
        v, *sent = states
        u = v + x
        s = self.quantise(c, p, u, sent[0] if sent else u)
        return Step(s, (u - s, *(total + s for total in sent)), (u, *sent))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Through the potential, and for the ReLU kind through the sum."""
        u, *sent = saved
        ev, *es = e
        by_u, by_sent = self.slopes(c, p, u, sent[0] if sent else u)
        gs = g - ev
        for each in es:
            gs = gs + each
        d = gs * by_u + ev
        return Back(d, (d, *(each + gs * by_sent for each in es)))


@dataclass(frozen=True)
class Tracking(Quantising):
    """A neuron between represented values (2503.00301): its output mean follows its input mean.

    Attributes:
        code: ``"differential"``: a spike at step t moves the output mean by ``s / t``, and the state is this
            mean. ``"rate"``: the output mean is that of all spikes, and the state is their sum.
        emit: ``"mean"`` or ``"spikes"``.
    """

    code: str = "differential"
    emit: str = "mean"

    timed = True

    @property
    def n_saved(self) -> int:
        """The potential, and for the ReLU kind the sum before the spike."""
        return 2 if self.kind == "relu" else 1

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """Nothing sent yet."""
        return (0.0,)

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """The closed form: ``u = t (m_in - m_out) + v_0``."""
        (state,) = states
        t, rate = p["t"], self.code == "rate"
        u = t * x - state if rate else t * (x - state)
        if self.fires == "single":
            u = u + p["unit"] * 0.5
        sent = state if rate else t * state * MARGIN
        s = self.quantise(c, p, u, sent)
        after = state + s if rate else state + s / t
        if not rate:
            size = c.call("maxnum", c.abs(state), p["unit"])
            after = c.where(c.abs(after) > size * ROUNDING, after, 0.0)
        mean = after / t if rate else after
        out = mean if self.emit == "mean" else s
        return Step(out, (after,), (u, sent)[: self.n_saved])

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Unsaturated, the output mean has slope 1 in the input mean of its own step, and in no other."""
        u, sent = saved[0], saved[-1]
        t, rate, mean = p["t"], self.code == "rate", self.emit == "mean"
        by_u, by_sent = self.slopes(c, p, u, sent)
        (after,) = e
        if mean:
            after = after + (g / t if rate else g)
        gs = after if rate else after / t
        if not mean:
            gs = gs + g
        gu, gc = gs * by_u, gs * by_sent
        if rate:
            return Back(t * gu, (after - gu + gc,))
        return Back(t * gu, (after - t * gu + t * gc,))
