"""Rate-coded neurons with many thresholds: ECMT (2502.21193), DCGS (2503.00301)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from typing_extensions import override

from spiking.functional import multi_threshold as functional
from spiking.levels import Levels
from spiking.neurons.base import Neuron


class LevelledNeuron(Neuron):
    """Base of neurons that send levels: thresholds as buffers, nothing learnt.

    Args:
        levels: thresholds.
        kind: ``"identity"``, ``"relu"`` or ``"positive"``; see `spiking.functional.multi_threshold`.
        backend: see `Neuron`; there is no Triton kernel.
    """

    unit: Tensor
    negative_unit: Tensor | None

    def __init__(self, levels: Levels, kind: str = "identity", backend: str = "auto") -> None:
        super().__init__(backend=backend)
        if kind not in functional.KINDS:
            raise ValueError(f"unknown kind {kind!r}; known: {', '.join(functional.KINDS)}")
        self.kind, self.n, self.fires = kind, levels.n, levels.fires
        self.register_buffer("unit", levels.unit.detach().clone())
        negative = levels.negative_unit
        self.register_buffer("negative_unit", None if negative is None else negative.detach().clone())

    @property
    def levels(self) -> Levels:
        """The thresholds as they are now."""
        return Levels(self.unit, self.negative_unit, self.n, self.fires)

    @override
    def extra_repr(self) -> str:
        low, high = (float(v) * 2 ** (self.n - 1) for v in self.unit.aminmax())
        largest = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return f"{self.kind}, n={self.n}, fires={self.fires!r}, largest={largest}"


class MultiThreshold(LevelledNeuron):
    """Currents in, levels out: what it sends means its average over time.

    ``MultiThreshold(Levels.smallest(p, q))`` is the neuron of ECMT; with `Levels.largest` or
    `Levels.single` and a kind it is one of DCGS, see `spiking.functional.multi_threshold.rate_coded`.

    >>> neuron = MultiThreshold(Levels.smallest(0.25, 0.25, n=3))  # sends 0.25, 0.5 or 1
    >>> neuron(torch.full((4, 1), 0.7)).flatten().tolist()
    [0.5, 1.0, 0.5, 0.5]

    Args:
        levels: thresholds.
        kind: see `LevelledNeuron`.
        backend: see `LevelledNeuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("v", "sent")

    def initial_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """The potential at rest, and for the ReLU kind the sum of all sent, 0."""
        return functional.rate_start(x, self.levels, self.kind)

    def run(
        self, x: Tensor, state: functional.RateState | None, keep_state: bool
    ) -> tuple[Tensor, functional.RateState | None]:
        """See `Neuron.run`; the state is as in `initial_state`."""
        return functional.rate_coded(
            x, self.levels, state, kind=self.kind, backend=self.backend, keep_state=keep_state
        )

    def fired(self, output: Tensor) -> Tensor:
        """One spike for each value that is not 0."""
        return (output != 0).to(output.dtype)
