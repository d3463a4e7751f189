"""The noise of DiDA: how image codes fade into noise as time goes back from 1 to 0, and how they return.

The arithmetic is that of URSA (arXiv 2510.24717, section 3; its scheduler), which Emu3.5 (arXiv 2510.26583,
section on discrete diffusion adaptation) cites for its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    from torch import Generator


class NoisePath(ABC):
    """A path of distributions over K codes, uniform at t = 0 and certain of the clean code at t = 1."""

    codes: int

    @abstractmethod
    def probabilities(self, clean: Tensor, t: Tensor) -> Tensor:
        """``p_t(x | clean)``.

        Args:
            clean: codes ``[...]``.
            t: times in [0, 1), of a shape that broadcasts with ``clean``.

        Returns:
            ``[..., K]``, which sums to 1.
        """

    @abstractmethod
    def velocity(self, current: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        """Rates at which the codes ``current [...]`` jump to every other on their way to ``clean [...]``.

        Returns:
            ``[..., K]``, not negative, in jumps per unit of time.
        """

    def corrupt(self, clean: Tensor, t: Tensor, generator: Generator | None = None) -> Tensor:
        """Draw codes ``[...]`` from ``p_t(x | clean)``."""
        return draw(self.probabilities(clean, t), generator)


class MetricPath(NoisePath):
    """Codes that look alike are confused first: ``p_t(x | x1) = softmax_x(-beta_t d(x, x1))``.

    ``d`` is the squared distance of embeddings and ``beta_t = c (t / (1 - t))^alpha``.

    Args:
        embeddings: of the codes, ``[K, D]``.
        c: scale of ``beta``.
        alpha: power of ``beta``.
        normalize: bring the embeddings to unit length first, as for codes of a learned codebook.

    Raises:
        ValueError: ``c`` or ``alpha`` is not positive, or embeddings are no ``[K, D]``.
    """

    def __init__(
        self, embeddings: Tensor, c: float = 3.0, alpha: float = 0.9, normalize: bool = True
    ) -> None:
        if embeddings.ndim != 2:
            raise ValueError(f"embeddings must be [K, D], got {tuple(embeddings.shape)}")
        for name, value in {"c": c, "alpha": alpha}.items():
            if value <= 0:
                raise ValueError(f"{name} of the metric path must be positive, got {value}")
        embeddings = embeddings.float()
        self.embeddings = torch.nn.functional.normalize(embeddings, dim=-1) if normalize else embeddings
        self.codes = len(embeddings)
        self.c, self.alpha = c, alpha

    def distances(self, codes: Tensor) -> Tensor:
        """Squared distances of ``codes [...]`` to every code, ``[..., K]``.

        They are made for the codes at hand: a table of all pairs of 131,072 codes would fill 64 GiB.
        """
        own = self.embeddings.to(codes.device)
        chosen = own[codes]
        squares = chosen.square().sum(-1, keepdim=True) + own.square().sum(-1)
        return (squares - 2 * chosen @ own.T).clamp(min=0)

    @override
    def probabilities(self, clean: Tensor, t: Tensor) -> Tensor:
        odds = (t / (1 - t)).expand(clean.shape)
        beta = self.c * odds**self.alpha
        return torch.softmax(-beta.unsqueeze(-1) * self.distances(clean), dim=-1)

    def rate(self, t: Tensor) -> Tensor:
        """Derivative of ``beta``; 0 at t = 0, where it would be infinite: the first step moves nothing."""
        safe = t.clamp(min=torch.finfo(t.dtype).tiny)
        slope = self.c * self.alpha * safe ** (self.alpha - 1) / (1 - t) ** (self.alpha + 1)
        return torch.where(t > 0, slope, torch.zeros_like(t))

    @override
    def velocity(self, current: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        to_clean = self.distances(clean)
        nearer = (to_clean.gather(-1, current.unsqueeze(-1)) - to_clean).clamp(min=0)
        rate = self.rate(t).expand(clean.shape).unsqueeze(-1)
        return self.probabilities(clean, t) * rate * nearer


class MixturePath(NoisePath):
    """A code is kept with probability t, otherwise every code is as likely.

    Args:
        codes: K.
    """

    def __init__(self, codes: int) -> None:
        self.codes = codes

    @override
    def probabilities(self, clean: Tensor, t: Tensor) -> Tensor:
        share = t.expand(clean.shape).unsqueeze(-1)
        return share * _one_hot(clean, self.codes, share.dtype) + (1 - share) / self.codes

    @override
    def velocity(self, current: Tensor, clean: Tensor, t: Tensor) -> Tensor:
        rate = 1 / (1 - t.expand(clean.shape).unsqueeze(-1))
        return _one_hot(clean, self.codes, rate.dtype) * rate


def draw(probabilities: Tensor, generator: Generator | None = None) -> Tensor:
    """One index for each distribution ``[..., K]``, which need not sum to 1 but must not be all zero."""
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).reshape(probabilities.shape[:-1])


def jump(
    path: NoisePath,
    current: Tensor,
    clean: Tensor,
    t: Tensor,
    dt: Tensor,
    generator: Generator | None = None,
) -> Tensor:
    """Codes ``[...]`` after a step from t to t + dt: each may jump once, towards ``clean``."""
    rates = off_place(path.velocity(current, clean, t), current)
    moves = torch.rand(current.shape, generator=generator, device=current.device) < jump_probability(
        rates, dt
    )
    silent = rates.sum(-1, keepdim=True) == 0  # a draw needs some weight; these do not move
    return torch.where(moves, draw(rates + silent, generator), current)


def off_place(velocity: Tensor, current: Tensor) -> Tensor:
    """The same rates ``[..., K]`` with none for staying at ``current [...]``."""
    return velocity.scatter(-1, current.unsqueeze(-1), 0.0)


def jump_probability(rates: Tensor, dt: Tensor) -> Tensor:
    """Probability that a code with these rates ``[..., K]`` leaves its place within ``dt``, ``[...]``."""
    return -torch.expm1(-dt * rates.sum(-1))


def time_grid(steps: int, shift: float = 1.0) -> Tensor:
    """Times of ``steps`` passes, from 0 on, float64 ``[steps]``; a shift above 1 stays longer in the noise.

    Raises:
        ValueError: no step, or a shift that is not positive.
    """
    if steps < 1:
        raise ValueError(f"the number of passes must be at least 1, got {steps}")
    if shift <= 0:
        raise ValueError(f"shift must be positive, got {shift}")
    sigma = 1 - torch.arange(steps, dtype=torch.float64) / steps
    return 1 - shifted(sigma, shift)


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Noise levels in [0, 1], moved towards 1 by a shift above 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def training_times(draws: Tensor, shift: float = 1.0) -> Tensor:
    """Times t in [0, 1) for training from uniform ``draws`` in [0, 1)."""
    return 1 - shifted(1 - 0.999 * draws, shift)


def _one_hot(codes: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.one_hot(codes, count).to(dtype)
