"""Neurons in differential code (DCGS, 2503.00301): a spike corrects what is represented already."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from spiking.functional import multi_threshold as functional
from spiking.levels import Levels
from spiking.neurons.multi_threshold import LevelledNeuron
from spiking.reference.neurons import state_dtype


class Differential(LevelledNeuron):
    """Currents with the bias in slot 0 to levels, as the paper's code has it.

    ``MTH_diff`` is ``Differential(Levels.largest(theta, n), "relu")``, ``MTH_diff_line`` the same with
    ``"identity"``; with ``Levels.single(theta)`` it is ``IF_diff`` and what ``IF_diff_line`` was meant to be.

    >>> neuron = Differential(Levels.largest(1.0, n=3))  # sends 1, 0.5 or 0.25
    >>> x = torch.tensor([0.0, 0.7, 0.0, 0.0]).view(4, 1)  # no bias; the value 0.7, then nothing new
    >>> neuron(x).flatten().tolist()
    [0.0, 0.5, 0.5, 0.0]

    Args:
        levels: thresholds.
        kind: ``"identity"``, ``"relu"`` or ``"positive"``.
        backend: see `LevelledNeuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("steps", "bias", "input_mean", "output_mean")

    def initial_state(self, x: Tensor) -> None:
        """None: the first slot makes it."""

    def run(
        self, x: Tensor, state: functional.SlotState | None, keep_state: bool
    ) -> tuple[Tensor, functional.SlotState]:
        """See `Neuron.run`; the state is `spiking.functional.multi_threshold.SlotState`."""
        return functional.differential(x, self.levels, state, kind=self.kind, backend=self.backend)

    def fired(self, output: Tensor) -> Tensor:
        """One spike for each value that is not 0."""
        return (output != 0).to(output.dtype)


class Tracking(LevelledNeuron):
    """The same neurons between represented values, ``[T, B, ...]``.

    See `spiking.functional.multi_threshold.track`.

    >>> neuron = Tracking(Levels.largest(1.0, n=3))
    >>> neuron(torch.full((3, 1), 0.7)).flatten().tolist()
    [0.5, 0.75, 0.75]

    Args:
        levels: thresholds.
        kind: ``"identity"``, ``"relu"`` or ``"positive"``.
        code: ``"differential"``, or ``"rate"`` for `MultiThreshold` between means.
        backend: see `LevelledNeuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("steps", "mean")

    def __init__(
        self, levels: Levels, kind: str = "identity", code: str = "differential", backend: str = "auto"
    ) -> None:
        super().__init__(levels, kind, backend)
        if code not in functional.CODES:
            raise ValueError(f"unknown code {code!r}; known: {', '.join(functional.CODES)}")
        self.code = code

    def initial_state(self, x: Tensor) -> functional.TrackState:
        """No step done, nothing sent."""
        return 0, torch.zeros_like(x, dtype=state_dtype(x))

    def run(
        self, x: Tensor, state: functional.TrackState | None, keep_state: bool
    ) -> tuple[Tensor, functional.TrackState | None]:
        """See `Neuron.run`; the state is `spiking.functional.multi_threshold.TrackState`."""
        mo, _, state = functional.track(
            x, self.levels, state, kind=self.kind, code=self.code, backend=self.backend, keep_state=keep_state
        )
        return mo, state

    def fired(self, output: Tensor) -> Tensor:
        """One spike wherever the mean has moved as only a level moves it; whole sequences only."""
        if self.stream is not None:
            raise RuntimeError(
                "spikes of a tracking neuron cannot be told from the means of a chunk alone; count them over"
                " whole sequences, outside of spiking.streaming"
            )
        t = torch.arange(1, len(output) + 1, device=output.device).view(-1, *(1,) * (output.dim() - 1))
        before = torch.cat([torch.zeros_like(output[:1]), output[:-1]])
        sent = t * output - (t if self.code == "differential" else t - 1) * before
        smallest = self.unit if self.negative_unit is None else torch.minimum(self.unit, self.negative_unit)
        return (sent.abs() > smallest.clamp_min(0) / 2).to(output.dtype)

    @override
    def extra_repr(self) -> str:
        return f"{self.code}, {super().extra_repr()}"
