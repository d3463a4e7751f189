"""How near images of a scene come to the true ones: PSNR, SSIM and LPIPS, in both directions of time.

Images in spikes a frame are about half as bright as the scene; they are brought to its brightness first. The
direction of a motion cannot be told from its blur, so a sequence is compared forwards and backwards, and the
better one counts.

Axes: M virtual times, K frames whose true image is known, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from lightning_modules.perceptual import SMALLEST, backbone_file, perceptual_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

BRIGHTNESS = 2.0  # the authors' factor; one over the firing rate is 2.0147
SSIM_WINDOW = 7  # as scikit-image has it, with which the authors measured


def brightness_corrected(images: Tensor, factor: float = BRIGHTNESS) -> Tensor:
    """Images in spikes a frame, of any shape -> intensities, clipped to [0, 1]."""
    return (factor * images).clamp(0, 1)


def psnr(made: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image, ``[K, H, W]`` in [0, 1] -> ``[K]``."""
    error = (made - sharp).square().flatten(1).mean(1)
    return -10 * error.clamp_min(1e-10).log10()  # equal images: 100 dB instead of infinity


def ssim(made: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity of each image over windows of 7 x 7, ``[K, H, W]`` in [0, 1] -> ``[K]``."""
    _, similarity = structural_similarity_index_measure(
        made.unsqueeze(1),
        sharp.unsqueeze(1),
        gaussian_kernel=False,
        kernel_size=SSIM_WINDOW,
        data_range=1.0,
        return_full_image=True,
    )
    border = SSIM_WINDOW // 2
    assert isinstance(similarity, torch.Tensor)
    return similarity[..., border:-border, border:-border].flatten(1).mean(1)


def lpips(made: Tensor, sharp: Tensor) -> Tensor | None:
    """Learned perceptual distance of each image by AlexNet, ``[K, H, W]`` in [0, 1] -> ``[K]``.

    None where its backbone is not on this machine (nothing is downloaded) or the images are smaller than 64
    pixels.
    """
    if min(made.shape[-2:]) < SMALLEST["alex"] or not backbone_file("alex").is_file():
        return None
    network = perceptual_network("alex").to(made.device)
    pair = [(2 * x - 1).unsqueeze(1).expand(-1, 3, -1, -1) for x in (made, sharp)]
    distances: Tensor = network(*pair)
    return distances.flatten()


@torch.no_grad()
def sequence_scores(
    made: Tensor,
    sharp: Tensor,
    frames: Sequence[int],
    sharp_frames: Sequence[int],
    factor: float = BRIGHTNESS,
) -> dict[str, float]:
    """Compare images of one exposure with the true ones.

    Args:
        made: images in spikes a frame, ``[M, H, W]``.
        sharp: true images in [0, 1], ``[K, H, W]``.
        frames: the M virtual times of ``made``.
        sharp_frames: the K frames of ``sharp``.
        factor: brings ``made`` to the brightness of ``sharp``.

    Returns:
        ``psnr``, ``ssim`` and, if it can be had, ``lpips`` of the middle time; with ``_sequence`` behind the
        name the mean over all times whose true image is known, in the better direction; ``reversed``: 1 if
        that is backwards. Nothing without true images.

    Raises:
        ValueError: shapes that do not fit.
    """
    if len(made) != len(frames) or len(sharp) != len(sharp_frames) or made.shape[1:] != sharp.shape[1:]:
        raise ValueError(
            f"{len(frames)} times and images {tuple(made.shape)} do not fit to {len(sharp_frames)} true"
            f" images {tuple(sharp.shape)}"
        )
    bright, truth = brightness_corrected(made.float(), factor), sharp.to(made.device, torch.float32)
    known = {int(frame): k for k, frame in enumerate(sharp_frames)}
    middle, scores = frames[len(frames) // 2], {}
    if middle in known:
        at = slice(len(frames) // 2, len(frames) // 2 + 1)
        scores.update(_means(bright[at], truth[known[middle]][None]))
    chosen = [m for m, frame in enumerate(frames) if frame in known]
    if len(chosen) > 1:
        compared = truth[[known[frames[m]] for m in chosen]]
        ways = [_means(way[chosen], compared) for way in (bright, bright.flip(0))]
        better = max((0, 1), key=lambda i: ways[i]["psnr"])
        scores.update({f"{name}_sequence": value for name, value in ways[better].items()})
        scores["reversed"] = float(better)
    return scores


def _means(made: Tensor, sharp: Tensor) -> dict[str, float]:
    values = {"psnr": psnr(made, sharp)}
    if min(made.shape[-2:]) >= SSIM_WINDOW:
        values["ssim"] = ssim(made, sharp)
    distance = lpips(made, sharp)
    if distance is not None:
        values["lpips"] = distance
    return {name: float(value.mean()) for name, value in values.items()}
