"""CLIF: a LIF neuron with a second, complementary potential."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from spiking import functional
from spiking.arguments import time_constant
from spiking.functional import launches
from spiking.neurons.base import Neuron
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.functional.launches import Kernel
    from spiking.neurons.base import SurrogateLike


class CLIF(Neuron):
    """Complementary LIF (2402.04663): ``m`` remembers recent firing and deepens the soft reset.

    Args:
        tau: time constant in steps, at least 1.
        v_threshold: see `Neuron`.
        surrogate: see `Neuron`; the paper's is a rectangle of width 1.
        backend: see `Neuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("v", "m")

    def __init__(
        self,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        surrogate: SurrogateLike = "rect",
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, surrogate, backend)
        self.tau = time_constant("tau", tau)

    def initial_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both potentials at 0."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero.clone()

    def run(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, keep_state: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """See `Neuron.run`; the state is ``(v, m)``."""
        v, m = state or (None, None)
        return functional.clif(
            x,
            v,
            m,
            tau=self.tau,
            v_threshold=self.v_threshold,
            surrogate=self.surrogate,
            backend=self.backend,
            keep_state=keep_state,
        )

    def kernel(self, x: Tensor) -> Kernel:
        """See `Neuron.kernel`."""
        return launches.clif(
            x,
            tau=self.tau,
            v_threshold=self.v_threshold,
            surrogate=self.surrogate,
            backend=self.backend,
            keep_state=False,
        )

    @override
    def parameters_text(self) -> list[str]:
        return [f"tau={self.tau:g}"]
