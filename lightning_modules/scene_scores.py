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
        frames: M frames; the middle one must be among them.
        sharp: true images ``[K, H, W]``.
        at: their frames.
        factor: of the brightness.

    Returns:
        ``psnr`` and its like of the rendering, or of Recon-Net where nothing is rendered;
        ``sequence_psnr``..., ``recon_psnr``..., ``recon_sequence_psnr``...
    """
    found: dict[str, float] = {}
    kinds = {"": made.grey, "recon_": made.reconstructed}
    if made.rendered is None:
        kinds[""] = made.reconstructed
    middle = list(frames).index(MIDDLE)
    several = len(set(frames) & set(at)) > 1
    for prefix, images in kinds.items():
        if images is None:
            continue
        if MIDDLE in at:
            one = sequence_scores(images[middle : middle + 1], sharp, [MIDDLE], at, factor=factor)
            found |= {f"{prefix}{name}": value for name, value in one.items()}
        if several:
            whole = sequence_scores(images, sharp, frames, at, factor=factor)
            found |= {f"{prefix}sequence_{name}": value for name, value in whole.items()}
    return found


def baseline_scores(spikes: Tensor, sharp: Tensor, at: Sequence[int], factor: float) -> dict[str, float]:
    """What plain means of the spikes ``[T, H, W]`` are worth: of the exposure, and of the short window."""
    if MIDDLE not in at:
        return {}
    half = camera.SHORT // 2
    means = {"tfp": camera.tfp(spikes), "short_tfp": camera.tfp(spikes, MIDDLE - half, MIDDLE + half)}
    return {
        f"{name}_psnr": sequence_scores(mean.unsqueeze(0), sharp, [MIDDLE], at, factor=factor)["psnr"]
        for name, mean in means.items()
    }
