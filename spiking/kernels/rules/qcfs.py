"""The equations of the QCFS activation, for which one pass over memory does the work of nine.

Kernels know neurons; this is one without state, whose only step sends a number in the place of a spike.
"""

from __future__ import annotations

from dataclasses import dataclass

from spiking.kernels.rules.base import Back, Params, Rule, Step
from spiking.kernels.rules.expressions import Code, Vec


@dataclass(frozen=True)
class Quantise(Rule):
    """`spiking.qcfs.qcfs`, operation by operation in the order of the authors' code.

    Attributes:
        order: which of the two gradients.
    """

    order: str = "floor_first"

    names = ("theta", "levels")
    learnt = ("theta",)
    n_states = 0
    n_saved = 2

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """There is no state."""
        return ()

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """``theta * clip(r, 0, L) / L`` with ``r = floor(u * L + 1/2)`` and ``u = x / theta``."""
        u = x / p["theta"]
        r = c.call("floor", u * p["levels"] + 0.5)
        return Step(_clip(c, r, p) / p["levels"] * p["theta"], (), (u, r))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Gradients of ``x``, and of ``theta`` for this element."""
        u, r = saved
        at, top = (r, p["levels"]) if self.order == "floor_first" else (u, c.as_vec(1.0))

        def inside(a: Vec) -> Vec:
            return c.where(at < 0.0, 0.0, c.where(at > top, 0.0, a))

        # inside (y - x) / theta = r / L - u; outside the same without u, which is 1 above and 0 below
        slope = _clip(c, r, p) / p["levels"] - inside(u)
        return Back(inside(g), (), {"theta": slope * g})


def _clip(c: Code, r: Vec, p: Params) -> Vec:
    return c.where(r < 0.0, 0.0, c.where(r > p["levels"], p["levels"], r))  # NaN stays
