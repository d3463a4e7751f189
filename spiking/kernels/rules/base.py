"""What a neuron family says about itself, and what its steps give.

Each family says three things over vectors: how a step goes forward, what of it the backward pass needs
again, and how gradients flow back through one step. The forward operations keep the order of
`spiking.reference`, so that spikes agree bit for bit; a compiler may fuse only inside the backward formulas.
Letters: ``h`` potential before the reset, ``e`` gradient of the state after a step, ``d`` gradient of ``h``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from spiking.kernels.rules.expressions import Code, Vec

Params = Mapping[str, Vec]


@dataclass(frozen=True)
class Step:
    """What one step forward gives.

    Attributes:
        fires: who fires, as truth values, or the numbers to give out where spikes are graded.
        states: states after the step.
        saved: what the backward pass wants to see.
    """

    fires: Vec
    states: tuple[Vec, ...]
    saved: tuple[Vec, ...]


@dataclass(frozen=True)
class Back:
    """What one step backward gives.

    Attributes:
        current: gradient of the current.
        states: gradients of the states before the step.
        params: gradients of the learnt parameters, by name.
        conductance: gradient of the conductance at this step.
    """

    current: Vec
    states: tuple[Vec, ...]
    params: Mapping[str, Vec] = field(default_factory=dict)
    conductance: Vec | None = None


@dataclass(frozen=True)
class Family:
    """A neuron family with its switches; hashable, one compiled kernel for each pass.

    Subclasses override the properties that differ, by a property or by a plain class attribute.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Scalar parameters, in the order in which kernels take them."""
        return ()

    @property
    def tabled(self) -> tuple[str, ...]:
        """Those of `names` that come as one tensor, `Operands.table`, in its order."""
        return ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """Parameters with a value for every neuron, rows of `Operands.coefficients`."""
        return ()

    @property
    def learnt(self) -> tuple[str, ...]:
        """Parameters that have a gradient."""
        return ()

    @property
    def n_states(self) -> int:
        """How many numbers a neuron keeps from step to step."""
        return 1

    @property
    def per_neuron(self) -> bool:
        """Whether any parameter is an array over the neurons."""
        return bool(self.arrays)


@dataclass(frozen=True)
class Rule(Family, ABC):
    """A family whose steps follow one another."""

    @property
    def n_saved(self) -> int:
        """How many numbers of each step the backward pass wants to see."""
        return 1

    @property
    def conducts(self) -> bool:
        """Whether formulas use ``p["conduct"]``, a value for every neuron and step."""
        return False

    @property
    def timed(self) -> bool:
        """Whether formulas use ``p["t"]``, the number of the step; ``"first"`` is that of the first."""
        return False

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

    def emitted(self, c: Code, p: Params, step: Step) -> Vec:
        """What a step gives out."""
        graded = step.fires.kind == "number"
        return step.fires if graded else c.where(step.fires, self.spike(p), 0.0)
