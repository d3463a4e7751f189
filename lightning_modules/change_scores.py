"""How near generated images come to the true ones, without any network to download.

Axes: N samples, H W pixels; images lie in [-1, 1].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchmetrics.functional.image import structural_similarity_index_measure

if TYPE_CHECKING:
    from torch import Tensor


def image_scores(made: Tensor, true: Tensor) -> dict[str, Tensor]:
    """``psnr`` in dB and ``ssim``, means over images ``[N, 3, H, W]``."""
    error = (made - true).square().flatten(1).mean(1).clamp_min(1e-10)
    similarity = structural_similarity_index_measure(made, true, data_range=2.0)
    assert not isinstance(similarity, tuple)
    return {"psnr": (10 * (4 / error).log10()).mean(), "ssim": similarity}


def building_scores(
    made: Tensor, true: Tensor, change: Tensor, threshold: float
) -> dict[str, tuple[Tensor, int]]:
    """Which pixels are building, judged by the mean of their channels, with the number of pixels behind it.

    Args:
        made: ``[N, 3, H, W]``.
        true: ``[N, 3, H, W]``.
        change: ``[N, 1, H, W]``, 1 where something changes.
        threshold: of the mean.

    Returns:
        ``inside_acc``: share of the changed pixels that are right; ``building_iou``: intersection over union
        of building there; ``pixel_acc``: share of all pixels that are right.
    """
    inside = change[:, 0] > 0
    got, expected = (images.mean(1) > threshold for images in (made, true))
    right = got == expected
    both, either = ((got & expected) & inside).sum(), ((got | expected) & inside).sum()
    return {
        "inside_acc": (right[inside].float().mean().nan_to_num(), int(inside.sum())),
        "building_iou": ((both / either.clamp_min(1)).float(), int(either)),
        "pixel_acc": (right.float().mean(), right.numel()),
    }
