"""What all units over time share: no state of their own, one call over all time steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from spiking.arguments import number
from spiking.kernels import BACKENDS
from spiking.neurons.stream import STREAMS, Stream
from spiking.reference.neurons import state_dtype
from spiking.surrogate import Surrogate, get_surrogate

if TYPE_CHECKING:
    from spiking.functional.launches import Kernel

SurrogateLike = str | Surrogate | Mapping[str, Any]


class Temporal(nn.Module):
    """A unit over time, ``[T, B, ...]`` -> ``[T, B, ...]``; it starts from rest at every call.

    Subclasses write `run` and `initial_state`. Neurons are such units, and so is whatever else must know
    earlier steps.

    Attributes:
        state_names: what the parts of the state are called, in order.
    """

    state_names: ClassVar[tuple[str, ...]] = ("v",)

    @property
    def stream(self) -> Stream | None:
        """What `spiking.streaming` carries for this unit; None where this thread does not stream it."""
        return STREAMS.get(self)

    @property
    def causal(self) -> bool:
        """Whether a step depends on no later one; only causal units can stream."""
        return True

    def run(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Outputs ``[T, ...]`` and, with ``keep_state``, the state after the last step.

        Args:
            x: inputs ``[T, ...]``.
            state: as given by an earlier call, None for rest.
            keep_state: whether the last state is wanted.
        """
        raise NotImplementedError

    def initial_state(self, x: Tensor) -> Any:
        """The state at rest for steps like ``x [B, ...]``: `run` with it does what it does with None."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, ...]`` -> ``[T, B, ...]`` in the dtype of ``x``.

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: no time axis, or a T other than the parameters were built for.
        """
        stream = STREAMS.get(self)
        if stream is None:
            return self.run(x, None, False)[0]
        stream.check(self, x)
        outputs, stream.state = self.run(x, stream.state, True)
        stream.shape = tuple(x.shape[1:])
        return outputs

    def step(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """One step with explicit state: ``x [B, ...]`` -> outputs ``[B, ...]`` and the new state.

        Raises:
            RuntimeError: the unit is not causal.
        """
        if not self.causal:
            raise RuntimeError(
                f"{type(self).__name__} is not causal: a step depends on later ones, so it takes"
                " whole sequences [T, B, ...]"
            )
        outputs, state = self.run(x.unsqueeze(0), state, True)
        return outputs[0], state


class Neuron(Temporal):
    """Maps currents ``[T, B, ...]`` to spikes ``[T, B, ...]``; starts from rest at every call.

    Subclasses write `run`. Outputs are 0 and 1 unless the class says otherwise (`spike_value`).

    Args:
        v_threshold: fires at this potential and above.
        surrogate: name, object, or mapping such as ``{"name": "atan", "alpha": 2.0}``.
        backend: ``"auto"``, ``"reference"``, ``"cpu"`` or ``"triton"``; see `spiking.functional.neurons`.

    Attributes:
        time_steps: T if the parameters fix it, else None.
    """

    time_steps: int | None = None
    parameter_names: ClassVar[tuple[str, ...]] = ()  # learnt ones, which weight decay leaves alone

    def __init__(
        self, v_threshold: float = 1.0, surrogate: SurrogateLike = "sigmoid", backend: str = "auto"
    ) -> None:
        super().__init__()
        self.v_threshold = number("v_threshold", v_threshold, above=0.0)
        self.surrogate = as_surrogate(surrogate)
        if not isinstance(backend, str) or backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
        self.backend = backend

    def kernel(self, x: Tensor) -> Kernel:
        """Operands and launch of the fused kernel that runs steps like ``x [T, B, ...]`` from rest.

        None where there is none. A class that gives one gives what its own `run` uses.
        """
        return None

    @property
    def spike_value(self) -> float | Tensor:
        """What one spike is in the output: 1, or the threshold where the output carries it."""
        return 1.0

    def fired(self, output: Tensor) -> Tensor:
        """How many spikes stand behind each value of an output ``[T, B, ...]``: here the value itself."""
        return output

    def initial_state(self, x: Tensor) -> Any:
        """The state at rest for steps like ``x [B, ...]``."""
        return torch.zeros_like(x, dtype=state_dtype(x))

    def extra_repr(self) -> str:
        """Settings that the submodules do not show."""
        own = self.parameters_text()
        surrogate = f"{type(self.surrogate).__name__.lower()}"
        return ", ".join([*own, f"v_threshold={self.v_threshold:g}", f"surrogate={surrogate}"])

    def parameters_text(self) -> list[str]:
        """Further settings, for `extra_repr`."""
        return []


def as_surrogate(surrogate: SurrogateLike) -> Surrogate:
    """A surrogate from its name, from ``{"name": ..., **parameters}``, or as it is."""
    if isinstance(surrogate, str | Surrogate):
        return get_surrogate(surrogate)
    if not isinstance(surrogate, Mapping):
        raise TypeError(f"surrogate must be a name, a mapping or a Surrogate, got {surrogate!r}")
    options = dict(surrogate)
    if "name" not in options:
        raise ValueError(f"a surrogate given as a mapping needs a 'name', got {options}")
    return get_surrogate(options.pop("name"), **options)
