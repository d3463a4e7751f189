"""The diffusion of UP-Diff: how latents are noised, what is predicted, and how steps are weighted.

Axes: N latents, each with a time step t of its own; C h w channels and pixels of a latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from zoo.models.up_diff.extra import require

if TYPE_CHECKING:
    from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]
SETTINGS: dict[str, Any] = {  # those of Stable Diffusion 1
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


@dataclass(frozen=True)
class NoiseSchedule:
    """``z_t = sqrt(abar_t) z_0 + sqrt(1 - abar_t) eps`` for t in 0 ... 999, with ``sqrt(beta)`` linear in t.

    Args:
        prediction: what the network predicts: the noise ``eps`` as published, or
            ``v = sqrt(abar) eps - sqrt(1 - abar) z_0`` (arXiv 2202.00512).

    Raises:
        ValueError: another prediction.
    """

    prediction: Prediction = "epsilon"
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.prediction not in get_args(Prediction):
            raise ValueError(f"prediction must be 'epsilon' or 'v_prediction', got {self.prediction!r}")

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler of diffusers that holds the numbers."""
        require("diffusers")
        from diffusers import DDPMScheduler

        return DDPMScheduler(**SETTINGS, prediction_type=self.prediction)

    @property
    def betas(self) -> Tensor:
        """``[1000]``."""
        betas: Tensor = self.scheduler.betas
        return betas

    @property
    def alphas_cumprod(self) -> Tensor:
        """abar, ``[1000]``."""
        alphas: Tensor = self.scheduler.alphas_cumprod
        return alphas

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t, ``[N, C, h, w]``, of z_0 and eps of that shape and t ``[N]``."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, t)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict, ``[N, C, h, w]``."""
        if self.prediction == "epsilon":
            return noise
        velocity: Tensor = self.scheduler.get_velocity(latents, noise, t)
        return velocity

    def weights(self, t: Tensor, snr_gamma: float | None = None) -> Tensor:
        """Weights ``[N]`` of the squared errors: 1, or the min-SNR weights of arXiv 2303.09556.

        Args:
            t: ``[N]``.
            snr_gamma: the largest signal-to-noise ratio that counts, 5 in that paper.
        """
        if snr_gamma is None:
            return t.new_ones(t.shape, dtype=self.alphas_cumprod.dtype)
        abar = self.alphas_cumprod.to(t.device)[t]
        snr = abar / (1 - abar)
        return snr.clamp(max=snr_gamma) / (snr if self.prediction == "epsilon" else snr + 1)
