"""LM-H and LM-HT: neurons whose output carries the threshold, made to start from a quantised ANN."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking import functional
from spiking.arguments import flag, integer, number
from spiking.budget import require_matrix
from spiking.layers import check_time_steps
from spiking.neurons.base import Neuron
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.neurons.base import SurrogateLike


class LMH(Neuron):
    """LM-H (ICLR 2024, code hzc1208/STBP_LMH): a dendrite and a soma with four learnable couplings.

    ``d = (sig(alpha_1) - 1/2) d + (sig(beta_1) - 1/2) u + x``, then
    ``u = (sig(alpha_2) + 1/2) u + (sig(beta_2) + 1/2) d``; the output is the threshold where ``u`` reaches
    it, and is taken off ``u``. With all raw values 0, where they start, this is an IF neuron that starts at
    half its threshold. The threshold is a buffer, since conversion gives every layer its own.

    Args:
        v_threshold: see `Neuron`.
        surrogate: see `Neuron`; the authors' is the triangle of half-width 1.
        backend: see `Neuron`.
    """

    state_names: ClassVar[tuple[str, ...]] = ("d", "u")

    parameter_names: ClassVar[tuple[str, ...]] = ("alpha_1", "beta_1", "alpha_2", "beta_2")

    def __init__(
        self, v_threshold: float = 1.0, surrogate: SurrogateLike = "triangle", backend: str = "auto"
    ) -> None:
        super().__init__(v_threshold, surrogate, backend)
        for name in self.parameter_names:
            setattr(self, name, nn.Parameter(torch.zeros(())))
        threshold_buffer(self)

    @property
    def spike_value(self) -> Tensor:
        """The threshold, which every spike carries."""
        return torch.as_tensor(self.v_threshold)

    def coefficients(self) -> Tensor:
        """``[5]``: the two couplings of the dendrite, the two of the soma, the threshold."""
        raw = torch.stack([getattr(self, name) for name in self.parameter_names])
        shift = raw.new_tensor([-0.5, -0.5, 0.5, 0.5])
        return torch.cat([raw.sigmoid() + shift, torch.as_tensor(self.v_threshold).reshape(1)])

    def initial_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The dendrite at 0, the soma at half its threshold."""
        zero = torch.zeros_like(x, dtype=state_dtype(x))
        return zero, zero + torch.as_tensor(self.v_threshold).to(zero.dtype) * 0.5

    def run(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None, keep_state: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """See `Neuron.run`; the state is the potentials of dendrite and soma."""
        d, u = state or (None, None)
        return functional.lmh(
            x,
            self.coefficients(),
            d,
            u,
            surrogate=self.surrogate,
            backend=self.backend,
            keep_state=keep_state,
        )

    @override
    def extra_repr(self) -> str:
        return f"surrogate={type(self.surrogate).__name__.lower()}"


class LMHT(Neuron):
    """LM-HT (NeurIPS 2024, arXiv 2402.00411, code hzc1208/LMHT_SNN): L equidistant thresholds, mixed time.

    A step emits up to L spikes of the size of the threshold, and every step sees the currents of all steps
    through the temporal-global information matrix omega:
    ``m(t) = lambda v(t-1) + scale sum_j omega[t, j] x(j)``,
    ``y(t) = theta clip(floor(m(t) / theta), 0, L)``, ``v(t) = m(t) - y(t)``. The slope of ``y`` is 1 from
    ``theta / 2`` to ``(L + 1/2) theta``, both inside; nothing flows through ``v(t-1)``.

    The parameters are raw: ``lambda = sig(alpha) + 1/2`` and ``omega = 2 sig(mask) / T'``, T' being the
    length of the input, so that a fresh neuron has ``lambda = 1`` and ``omega = 1 / T``, and equals a
    quantiser of L T levels. An omega below ``2 / T`` can never be the identity where T > 1; with
    ``squash=False`` the parameters are lambda (one for every step) and omega themselves, and
    ``set_matrix(torch.eye(T))`` makes an LM-HT of one level an IF neuron. Reparameterised networks
    (`conversion.lmht.reparameterise`) are stored that way, too.

    A single frame ``[1, B, ...]`` is taken as given at all T steps and, as in the authors' code for event
    data, is not divided by T: it counts T-fold. The authors keep two matrices, one of which is never used;
    there is one here. Threshold, ``v_init`` and ``input_scale`` are buffers, since conversion sets them for
    every layer.

    Args:
        time_steps: T, fixed by the matrix.
        levels: L.
        v_threshold: theta; None takes the authors' ``2 / levels`` (1 for one level), so that the largest
            output is 2.
        v_init: potential before the first step, in thresholds.
        input_scale: factor of the currents.
        squash: whether the parameters are raw.
        backend: see `Neuron`.
        time_steps_in: T', steps of the currents where they differ from T: the matrix is ``[T, T']``.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("alpha", "mask")
    time_steps: int
    time_steps_in: int
    v_init: Tensor
    input_scale: Tensor

    def __init__(
        self,
        time_steps: int,
        levels: int = 2,
        v_threshold: float | None = None,
        v_init: float = 0.0,
        input_scale: float = 1.0,
        squash: bool = True,
        backend: str = "auto",
        time_steps_in: int | None = None,
    ) -> None:
        integer("levels", levels)
        theta = min(1.0, 2.0 / levels) if v_threshold is None else v_threshold
        super().__init__(theta, "rect", backend)
        self.time_steps = check_time_steps(time_steps)
        self.time_steps_in = (
            self.time_steps if time_steps_in is None else integer("time_steps_in", time_steps_in)
        )
        self.levels = levels
        self.squash = flag("squash", squash)
        threshold_buffer(self)
        self.register_buffer("v_init", torch.tensor(number("v_init", v_init)))
        self.register_buffer("input_scale", torch.tensor(number("input_scale", input_scale)))
        require_matrix(type(self).__name__, time_steps, self.time_steps_in)
        raw = 0.0 if squash else 1.0
        self.alpha = nn.Parameter(torch.full(() if squash else (time_steps,), raw))
        self.mask = nn.Parameter(torch.full((time_steps, self.time_steps_in), raw / self.time_steps_in))

    @property
    def causal(self) -> bool:
        """False: every step depends on all others."""
        return False

    @property
    def spike_value(self) -> Tensor:
        """The threshold, which every spike carries."""
        return torch.as_tensor(self.v_threshold)

    def leak(self) -> Tensor:
        """The leak lambda at every step, ``[T]``."""
        return (self.alpha.sigmoid() + 0.5).expand(self.time_steps) if self.squash else self.alpha

    def matrix(self, steps: int | None = None) -> Tensor:
        """The matrix omega ``[T, T']`` for currents of ``steps`` steps: T' of them, or one frame."""
        if not self.squash:
            return self.mask
        omega = 2.0 * self.mask.sigmoid() / (steps or self.time_steps_in)
        return omega.sum(1, keepdim=True) if steps == 1 and self.time_steps_in > 1 else omega

    @torch.no_grad()
    def set_matrix(self, omega: Tensor) -> None:
        """Makes ``omega [T, T']`` the matrix.

        Raises:
            ValueError: another shape, or entries that a squashed matrix cannot have.
        """
        T, steps = self.time_steps, self.time_steps_in
        if omega.shape != (T, steps):
            raise ValueError(f"expected a matrix [T, T'] = [{T}, {steps}], got {list(omega.shape)}")
        if not self.squash:
            self.mask.copy_(omega)
            return
        low, high = float(omega.min()), float(omega.max())
        if not 0.0 < low <= high < 2.0 / steps:
            raise ValueError(
                f"a squashed matrix lies between 0 and 2 / T' = {2.0 / steps:g}, got entries from {low:g} to"
                f" {high:g}; build the neuron with squash=False"
            )
        self.mask.copy_(torch.logit(omega.to(self.mask) * steps / 2.0))

    def run(self, x: Tensor, state: None, keep_state: bool) -> tuple[Tensor, None]:
        """See `Neuron.run`; there is no state."""
        functional.check(x)
        if x.shape[0] != self.time_steps_in and not (x.shape[0] == 1 and self.squash):
            frame = " (or one frame)" if self.squash else ""
            name = "T" if self.time_steps_in == self.time_steps else "T'"
            way = "time_steps" if name == "T" else "time_steps_in"
            raise ValueError(
                f"LMHT was built for {name} = {self.time_steps_in}, got T = {x.shape[0]}; its parameters fix"
                f" T: give sequences of {self.time_steps_in} steps{frame}, or build the model with"
                f" {way}={x.shape[0]}"
            )
        y = functional.lmht(
            x,
            self.matrix(x.shape[0]) * self.input_scale,
            self.leak(),
            torch.as_tensor(self.v_threshold),
            self.v_init,
            levels=self.levels,
            backend=self.backend,
        )
        return y, None

    @override
    def extra_repr(self) -> str:
        taken = "" if self.time_steps_in == self.time_steps else f"time_steps_in={self.time_steps_in}, "
        return f"time_steps={self.time_steps}, {taken}levels={self.levels}, squash={self.squash}"


def threshold_buffer(neuron: Neuron) -> None:
    """Turns the threshold of ``neuron`` into a buffer, so that it is saved with the weights."""
    value = neuron.v_threshold
    del neuron.v_threshold
    neuron.register_buffer("v_threshold", torch.tensor(value))
