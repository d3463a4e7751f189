"""How near the images of an exposure come to the true ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_modules.reconstruction_metrics import sequence_scores
from lightning_modules.scene_imaging import MIDDLE
from spiking import camera

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lightning_modules.scene_imaging import Made


def scene_scores(
    made: Made, frames: Sequence[int], sharp: Tensor, at: Sequence[int], factor: float
) -> dict[str, float]:
    """Scores of the middle frame, and of the sequence in the direction that fits better.

    Args:
        made: images at ``frames``.
        frames: M frames around the middle one.
        sharp: true images ``[K, H, W]``.
        at: their frames.
        factor: of the brightness.

    Returns:
        ``psnr`` and its like of `sequence_scores` for the rendering, or for Recon-Net where nothing is
        rendered; with ``recon_`` in front for Recon-Net.
    """
    kinds = {"": made.reconstructed if made.grey is None else made.grey, "recon_": made.reconstructed}
    return {
        f"{prefix}{name}": value
        for prefix, images in kinds.items()
        if images is not None
        for name, value in sequence_scores(images, sharp, frames, at, factor).items()
        if name != "reversed"
    }


def baseline_scores(spikes: Tensor, sharp: Tensor, at: Sequence[int], factor: float) -> dict[str, float]:
    """What plain means of the spikes ``[T, H, W]`` are worth: of the exposure, and of the short window."""
    if MIDDLE not in at:
        return {}
    half = camera.SHORT // 2
    means = {"tfp": camera.tfp(spikes), "short_tfp": camera.tfp(spikes, MIDDLE - half, MIDDLE + half)}
    return {
        f"{name}_psnr": sequence_scores(mean.unsqueeze(0), sharp, [MIDDLE], at, factor)["psnr"]
        for name, mean in means.items()
    }
