"""IF, LIF, PLIF and KLIF: charge, fire, reset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking import reference
from spiking.arguments import flag, number, time_constant
from spiking.functional import launches
from spiking.functional.neurons import LeakOptions, one_state
from spiking.neurons.base import Neuron
from spiking.reference.firing import FiringOptions
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.functional.launches import Kernel
    from spiking.neurons.base import SurrogateLike


class ResettingNeuron(Neuron):
    """Base of neurons with a hard or soft reset.

    Args:
        v_threshold: see `Neuron`.
        v_reset: potential after a spike; ``None`` subtracts the threshold instead (soft reset).
        detach_reset: no gradient through the reset.
        surrogate: see `Neuron`.
        backend: see `Neuron`.
    """

    def __init__(
        self,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        surrogate: SurrogateLike = "sigmoid",
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, surrogate, backend)
        self.v_reset = None if v_reset is None else number("v_reset", v_reset)
        self.detach_reset = flag("detach_reset", detach_reset)

    def initial_state(self, x: Tensor) -> Tensor:
        """The potential at rest: ``v_reset``, or 0 for a soft reset."""
        return torch.full_like(x, self.v_reset or 0.0, dtype=state_dtype(x))

    def _firing(self) -> FiringOptions:
        return {
            "v_threshold": self.v_threshold,
            "v_reset": self.v_reset,
            "detach_reset": self.detach_reset,
            "surrogate": self.surrogate,
        }

    @override
    def parameters_text(self) -> list[str]:
        return [f"v_reset={self.v_reset}", f"detach_reset={self.detach_reset}"]


class IF(ResettingNeuron):
    """Integrate-and-fire, ``h(t) = v(t-1) + x(t)``; arguments as in `ResettingNeuron`."""

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state is the potential ``[B, ...]``."""
        kernel = self.kernel(x, state, keep_state)
        return reference.if_(x, state, **self._firing()) if kernel is None else one_state(x, *kernel)

    def kernel(self, x: Tensor, state: Tensor | None = None, keep_state: bool = False) -> Kernel:
        """See `Neuron.kernel`; by default from rest, without the last state."""
        firing = self.v_threshold, self.v_reset, self.detach_reset, self.surrogate
        return launches.if_(x, state, *firing, backend=self.backend, keep_state=keep_state)


class LIF(ResettingNeuron):
    """Leaky integrate-and-fire (STBP, 1706.02609); see `spiking.reference.lif`.

    Args:
        tau: time constant in steps, at least 1. ``u = k u + x`` of many papers is
            ``decay_input=False`` with ``tau = 1 / (1 - k)``.
        decay_input: whether the current is divided by ``tau``, too.
        v_threshold: see `Neuron`.
        v_reset: see `ResettingNeuron`.
        detach_reset: see `ResettingNeuron`.
        surrogate: see `Neuron`.
        backend: see `Neuron`.
    """

    def __init__(
        self,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        surrogate: SurrogateLike = "sigmoid",
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, detach_reset, surrogate, backend)
        self.tau = time_constant("tau", tau)
        self.decay_input = flag("decay_input", decay_input)

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state is the potential ``[B, ...]``."""
        kernel = self.kernel(x, state, keep_state)
        if kernel is not None:
            return one_state(x, *kernel)
        return reference.lif(x, state, tau=self.tau, decay_input=self.decay_input, **self._firing())

    def kernel(self, x: Tensor, state: Tensor | None = None, keep_state: bool = False) -> Kernel:
        """See `Neuron.kernel`; by default from rest, without the last state."""
        firing = self.v_threshold, self.v_reset, self.detach_reset, self.surrogate
        return launches.lif(
            x, state, self.tau, self.decay_input, *firing, backend=self.backend, keep_state=keep_state
        )

    @override
    def parameters_text(self) -> list[str]:
        return [f"tau={self.tau:g}", f"decay_input={self.decay_input}", *super().parameters_text()]


class PLIF(ResettingNeuron):
    """LIF with a learnable time constant, ``1 / tau = sigmoid(w)`` (2007.05785).

    Args:
        init_tau: time constant at the start, above 1; ``w = -ln(init_tau - 1)``.
        decay_input: see `LIF`.
        v_threshold: see `Neuron`.
        v_reset: see `ResettingNeuron`.
        detach_reset: see `ResettingNeuron`.
        surrogate: see `Neuron`.
        backend: see `Neuron`.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("w",)

    def __init__(
        self,
        init_tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        surrogate: SurrogateLike = "sigmoid",
        backend: str = "auto",
    ) -> None:
        super().__init__(v_threshold, v_reset, detach_reset, surrogate, backend)
        number("init_tau", init_tau, above=1.0)
        self.decay_input = flag("decay_input", decay_input)
        self.w = nn.Parameter(torch.tensor(-math.log(init_tau - 1.0)))

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state is the potential ``[B, ...]``."""
        kernel = self.kernel(x, state, keep_state)
        if kernel is not None:
            return one_state(x, *kernel)
        return reference.plif(x, self.w, state, decay_input=self.decay_input, **self._firing())

    def kernel(self, x: Tensor, state: Tensor | None = None, keep_state: bool = False) -> Kernel:
        """See `Neuron.kernel`; by default from rest, without the last state."""
        firing = self.v_threshold, self.v_reset, self.detach_reset, self.surrogate
        return launches.plif(
            x, self.w, state, self.decay_input, *firing, backend=self.backend, keep_state=keep_state
        )

    @override
    def parameters_text(self) -> list[str]:
        return [f"decay_input={self.decay_input}", *super().parameters_text()]


class KLIF(LIF):
    """LIF with a learnable gain, ``h = relu(k * charge)`` (2302.09238).

    Args:
        scale_reset: the reset acts on ``h / k`` with the threshold ``v_threshold / k``.
        tau: see `LIF`.
        decay_input: see `LIF`.
        v_threshold: see `Neuron`.
        v_reset: see `ResettingNeuron`.
        detach_reset: see `ResettingNeuron`.
        surrogate: see `Neuron`.
        backend: see `Neuron`.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("k",)

    def __init__(
        self,
        scale_reset: bool = False,
        tau: float = 2.0,
        decay_input: bool = True,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = False,
        surrogate: SurrogateLike = "sigmoid",
        backend: str = "auto",
    ) -> None:
        super().__init__(tau, decay_input, v_threshold, v_reset, detach_reset, surrogate, backend)
        self.scale_reset = flag("scale_reset", scale_reset)
        self.k = nn.Parameter(torch.tensor(1.0))

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state is the potential ``[B, ...]``."""
        kernel = self.kernel(x, state, keep_state)
        if kernel is not None:
            return one_state(x, *kernel)
        leak: LeakOptions = {"tau": self.tau, "decay_input": self.decay_input}
        return reference.klif(x, self.k, state, scale_reset=self.scale_reset, **leak, **self._firing())

    def kernel(self, x: Tensor, state: Tensor | None = None, keep_state: bool = False) -> Kernel:
        """See `Neuron.kernel`; by default from rest, without the last state."""
        firing = self.v_threshold, self.v_reset, self.detach_reset, self.surrogate
        return launches.klif(
            x,
            self.k,
            state,
            self.scale_reset,
            self.tau,
            self.decay_input,
            *firing,
            backend=self.backend,
            keep_state=keep_state,
        )

    @override
    def parameters_text(self) -> list[str]:
        return [f"scale_reset={self.scale_reset}", *super().parameters_text()]
