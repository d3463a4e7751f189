"""A neuron of one's own from a few lines of arithmetic, as fast as those of this package."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn

from spiking.functional.written import UntraceableError, refusal, written
from spiking.neurons.base import Neuron
from spiking.reference.neurons import state_dtype
from spiking.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.functional.launches import Kernel
    from spiking.functional.tracing import Symbol
    from spiking.kernels.rules.program import Program

PLAIN = (bool, int, float, str, type(None))
MODULE = frozenset({*vars(nn.Module()), "_traced"})


class StepNeuron(Neuron):
    """A neuron whose step a subclass writes, `dynamics`; kernels over T come out of these lines.

    The lines run as they are on tensors, step by step, wherever something else than the plain result is
    wanted (``backend="reference"``, float64, compilers, exporters). Else they are run once on symbols; the
    operations that they perform are differentiated and compiled into one kernel over all steps, forward and
    backward: on a CPU, where that needs no compiler on the machine, and in Triton on CUDA. A fused norm in
    front and `spiking.streaming` work as with any other neuron.

    What a kernel can hold: ``+ - * /``, powers 2 and 3, comparisons, ``&``, ``|``, `fire`, ``torch.where``,
    ``exp``, ``sigmoid``, ``tanh``, ``relu``, ``abs``, ``clamp``, ``maximum``, ``minimum``, ``square``,
    ``zeros_like``, ``ones_like``, ``detach``; numbers among the attributes, and up to 8 learnt ones
    (``nn.Parameter`` with one entry); up to 2 states. Whatever goes beyond runs step by step, after a warning
    that says what it was.

    Args:
        v_threshold: see `Neuron`.
        surrogate: see `Neuron`.
        backend: see `Neuron`.

    Attributes:
        state_names: what the states are called, in order.
        rest: the states before the first step, by name; 0 where missing.
    """

    rest: ClassVar[Mapping[str, float]] = {}
    _traced: tuple[Any, Program] | None = None

    def dynamics(self, x: Any, *states: Any) -> tuple[Any, ...]:
        """One step.

        Args:
            x: currents ``[B, ...]``.
            states: one ``[B, ...]`` for each of `state_names`.

        Returns:
            Spikes ``[B, ...]`` and the states after the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must write dynamics(self, x, *states)")

    def fire(self, above: Any) -> Any:
        """1 where ``above``, potential less threshold, is at least 0, else 0; with the surrogate's slope."""
        return self.surrogate(above) if isinstance(above, Tensor) else above.fire()

    def initial_state(self, x: Tensor) -> tuple[Tensor, ...]:
        """See `rest`; for steps like ``x [B, ...]``."""
        return tuple(torch.full_like(x, value, dtype=state_dtype(x)) for value in self._rests())

    def run(
        self, x: Tensor, state: tuple[Tensor, ...] | None, keep_state: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `Neuron.run`; the state is a tuple in the order of `state_names`."""
        kernel = self._kernel(x, state, keep_state)
        if kernel is not None:
            from spiking.kernels import ops  # loads the compiler, so not before it is wanted

            spikes, ends = ops.neuron(x, *kernel)
            return spikes, ends if keep_state else None
        dtype = state_dtype(x)
        states = self.initial_state(x[0]) if state is None else tuple(s.to(dtype) for s in state)
        fired = []
        for current in x.to(dtype).unbind(0):
            spikes, states = self._advance(self, current, states)
            fired.append(spikes)
        return torch.stack(fired).to(x.dtype), states if keep_state else None

    def kernel(self, x: Tensor) -> Kernel:
        """See `Neuron.kernel`."""
        return self._kernel(x, None, False)

    def _kernel(self, x: Tensor, state: tuple[Tensor, ...] | None, keep_state: bool) -> Kernel:
        try:
            return written(
                x,
                state,
                find=self._program,
                rests=self._rests(),
                parameters=cast("dict[str, Tensor]", self._parameters),
                surrogate=self.surrogate,
                backend=self.backend,
                keep_state=keep_state,
            )
        except UntraceableError as error:
            if self.backend != "auto":
                raise ValueError(
                    f"backend {self.backend!r} cannot run {type(self).__name__}.dynamics: {error};"
                    " use backend='auto'"
                ) from error
            _say_slow(type(self).__name__, str(error))
            return None

    def _program(self) -> Program:
        """The lines as a program; written down anew where an attribute has changed.

        Raises:
            UntraceableError: a kernel cannot hold them.
        """
        own = {name: value for name, value in vars(self).items() if name not in MODULE}
        own.pop("rest", None)
        known = self.training, self._rests(), *own.items()
        plain = not self._modules and all(isinstance(value, (*PLAIN, Surrogate)) for value in own.values())
        if plain and self._traced is not None and self._traced[0] == known:
            return self._traced[1]
        learnt = [
            name for name, value in self._parameters.items() if value is not None and value.numel() == 1
        ]
        if reason := refusal(len(self.state_names), len(learnt)):
            raise UntraceableError(reason)
        from spiking.functional.tracing import trace  # not needed before a neuron is written

        program = trace(self._on_symbols, self.state_names, learnt)
        object.__setattr__(self, "_traced", (known, program) if plain else None)
        return program

    def _on_symbols(self, x: Symbol, states: tuple[Symbol, ...], parameters: dict[str, Symbol]) -> Any:
        """One step of a twin that has symbols in the places of its learnt numbers."""
        twin = object.__new__(type(self))
        twin.__dict__ = {**vars(self), "_parameters": {**self._parameters, **parameters}}
        return self._advance(twin, x, states)

    def _advance(self, neuron: StepNeuron, x: Any, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        given, count = neuron.dynamics(x, *states), 1 + len(self.state_names)
        if not isinstance(given, tuple) or len(given) != count:
            got = f"{len(given)} values" if isinstance(given, tuple) else type(given).__name__
            raise ValueError(
                f"{type(self).__name__}.dynamics must give {count} values, spikes and"
                f" {', '.join(self.state_names)}, got {got}"
            )
        return given[0], given[1:]

    def _rests(self) -> tuple[float, ...]:
        return tuple(float(self.rest.get(name, 0.0)) for name in self.state_names)


@lru_cache(maxsize=256)
def _say_slow(label: str, reason: str) -> None:
    warnings.warn(
        f"{label}.dynamics runs step by step in plain PyTorch, since {reason}; backend='reference'"
        " says that this is meant",
        RuntimeWarning,
        stacklevel=4,
    )
