"""The losses of USP-Gaussian (arXiv 2411.10504), as its code has them; all weights are 1.

Everything is in spikes a frame, the unit of `spiking.camera.tfp`: about half of the true intensity.

Axes: M virtual times of one exposure, C channels, H W pixels, T frames, G Gaussians.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from spiking.camera import tfp

if TYPE_CHECKING:
    from collections.abc import Sequence

SSIM_WEIGHT = 0.2
SSIM_WINDOW = 11


def blur_loss(images: Tensor, long_exposure: Tensor) -> Tensor:
    """``0.8 L1 + 0.2 (1 - SSIM)`` between the mean of an exposure's images and what the camera saw of it.

    Args:
        images: ``[M, H, W]`` or ``[M, C, H, W]``.
        long_exposure: mean of the spikes, ``[H, W]``.

    Returns:
        A scalar.

    Raises:
        ValueError: images smaller than the window of SSIM, 11 x 11.
    """
    mean = images.mean(0)
    mean = mean.reshape(1, -1, *mean.shape[-2:])
    if min(mean.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least 11 x 11 pixels, got H, W = {tuple(mean.shape[-2:])}")
    target = long_exposure.to(mean).expand_as(mean)
    return (1 - SSIM_WEIGHT) * (mean - target).abs().mean() + SSIM_WEIGHT * (1 - _ssim(mean, target))


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of ``[1, C, H, W]``, averaged over the pixels whose window lies inside the image."""
    _, similarity = structural_similarity_index_measure(
        a, b, sigma=1.5, kernel_size=SSIM_WINDOW, data_range=1.0, return_full_image=True
    )
    border = SSIM_WINDOW // 2
    assert isinstance(similarity, Tensor)
    return similarity[..., border:-border, border:-border].mean()


def rendering_loss(rendered: Tensor, long_exposure: Tensor) -> Tensor:
    """L_gs: `blur_loss` of the renderings along the trajectory, ``[M, C, H, W]``."""
    return blur_loss(rendered, long_exposure)


def single_reblur_loss(reconstructed: Tensor, long_exposure: Tensor) -> Tensor:
    """`blur_loss` of the reconstructions ``[M, H, W]``; all of them equal to the long exposure solve it."""
    return blur_loss(_grey(reconstructed), long_exposure)


def multi_reblur_loss(reconstructed: Tensor, spikes: Tensor, frames: Sequence[int]) -> Tensor:
    """L_recon: the reconstructions, averaged over windows of several lengths, are the mean spikes there.

    The windows lie around the middle of the exposure and reach k times to either side, for k from M // 4 to
    M // 2. The authors call the mean absolute error "mse".

    Args:
        reconstructed: ``[M, H, W]`` or ``[M, 1, H, W]``; M is odd.
        spikes: the stream, ``[T, H, W]``.
        frames: the M virtual times.

    Returns:
        A scalar.

    Raises:
        ValueError: an even M, or another number of times than reconstructions.
    """
    images = _grey(reconstructed)
    count = len(images)
    if len(frames) != count or count % 2 == 0 or count < 3:
        raise ValueError(
            f"expected an odd number of times, 3 or more, with as many images, got {len(frames)} times"
            f" and {count} images"
        )
    middle, errors = count // 2, []
    for k in range(max(1, count // 4), count // 2 + 1):
        window = tfp(spikes, frames[middle - k], frames[middle + k]).to(images)
        errors.append((window - images[middle - k : middle + k + 1].mean(0)).abs().mean())
    return torch.stack(errors).mean()


def joint_loss(rendered: Tensor, reconstructed: Tensor, flip: bool = True) -> Tensor:
    """L_joint: renderings and reconstructions agree, forwards or backwards in time; both get gradients.

    A blurred image does not tell the direction of the motion, so the trajectory may come out reversed.

    Args:
        rendered: ``[M, C, H, W]``.
        reconstructed: ``[M, H, W]``, ``[M, 1, H, W]`` or ``[M, C, H, W]``.
        flip: whether the reversed order is tried, too.

    Returns:
        A scalar.
    """
    images = reconstructed.unsqueeze(1) if reconstructed.dim() == 3 else reconstructed
    forwards = (rendered - images).abs().mean()
    return torch.minimum(forwards, (rendered.flip(0) - images).abs().mean()) if flip else forwards


def loss_terms(
    rendered: Tensor | None,
    reconstructed: Tensor | None,
    spikes: Tensor,
    frames: Sequence[int],
    *,
    flip: bool = True,
    multi_reblur: bool = True,
) -> dict[str, Tensor]:
    """The terms of one view's loss, whose sum is trained on.

    Args:
        rendered: ``[M, C, H, W]``; None leaves out ``gs`` and ``joint``.
        reconstructed: ``[M, H, W]``; None leaves out ``recon`` and ``joint``.
        spikes: ``[T, H, W]``.
        frames: of the M images.
        flip: see `joint_loss`.
        multi_reblur: whether ``recon`` is `multi_reblur_loss` or `single_reblur_loss`.

    Returns:
        ``gs``, ``recon`` and ``joint``, as far as they are asked for.
    """
    terms: dict[str, Tensor] = {}
    if rendered is not None:
        terms["gs"] = rendering_loss(rendered, tfp(spikes))
    if reconstructed is not None and multi_reblur:
        terms["recon"] = multi_reblur_loss(reconstructed, spikes, frames)
    elif reconstructed is not None:
        terms["recon"] = single_reblur_loss(reconstructed, tfp(spikes))
    if rendered is not None and reconstructed is not None:
        terms["joint"] = joint_loss(rendered, reconstructed, flip)
    return terms


def scale_regularizer(log_scales: Tensor, max_ratio: float = 10.0, weight: float = 0.1) -> Tensor:
    """How far Gaussians are more elongated than ``max_ratio``: 0 for those that are not.

    Args:
        log_scales: logarithms of the three standard deviations, ``[G, 3]``.
        max_ratio: the largest one may be so many times the smallest one.
        weight: factor of the result.

    Returns:
        A scalar.
    """
    ratio = (log_scales.amax(-1) - log_scales.amin(-1)).exp()
    return weight * (ratio.clamp_min(max_ratio) - max_ratio).mean()


def _grey(images: Tensor) -> Tensor:
    """``[M, H, W]`` of ``[M, H, W]`` or ``[M, 1, H, W]``."""
    return images.squeeze(1) if images.dim() == 4 else images
