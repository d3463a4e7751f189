"""What streams of a spike camera say about light: windows, mean rates, intervals between spikes.

A pixel integrates light and fires when a threshold is crossed, so intensity 1 gives `RATE` spikes a frame.
The frames of USP-Gaussian (arXiv 2411.10504) are the defaults: of a view's 177 the exposure is 40 to 136.

Axes: T frames, M virtual times, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

GAIN = 250 * (2 / 1e7) * 1.09e-13 / (1.83e-4 * 15e-15)  # charge of a frame at intensity 1
THRESHOLD = 4.0
RATE = GAIN / THRESHOLD  # spikes a frame at intensity 1

FRAMES = 177
EXPOSURE = (40, 136)  # first and last frame
SHORT = 41
BINS = 34
_VOXEL = (20, 156)

Binning = Literal["strided", "consecutive"]


def virtual_frames(count: int, first: int = EXPOSURE[0], last: int = EXPOSURE[1]) -> list[int]:
    """The frames at which an exposure is looked at, evenly spaced, both ends included.

    >>> virtual_frames(5)
    [40, 64, 88, 112, 136]

    Args:
        count: M.
        first: first frame of the exposure.
        last: its last frame.

    Raises:
        ValueError: fewer than two times, or times that fall between frames.
    """
    if count < 2:
        raise ValueError(f"an exposure needs at least 2 virtual times, got {count}")
    step, rest = divmod(last - first, count - 1)
    if rest or step < 1:
        raise ValueError(
            f"{count} virtual times do not fall on frames {first} to {last}:"
            f" {count - 1} does not divide {last - first}"
        )
    return list(range(first, last + 1, step))


def tfp(spikes: Tensor, first: int = EXPOSURE[0], last: int = EXPOSURE[1]) -> Tensor:
    """Texture from playback: the mean of the frames ``first`` to ``last``, both included.

    Args:
        spikes: ``[..., T, H, W]``.
        first: first frame.
        last: last frame.

    Returns:
        Spikes a frame ``[..., H, W]``, `RATE` times the mean intensity; float32 for integers.

    Raises:
        ValueError: the stream has no such frames.
    """
    chosen = _frames(spikes, first, last)
    dtype = spikes.dtype if spikes.is_floating_point() else torch.float32
    return chosen.mean(-3, dtype=dtype)


def tfi(spikes: Tensor, middle: int, window: int) -> Tensor:
    """Texture from intervals: one over the time between the spikes around a frame.

    The last spike up to ``middle`` and the first one after it are looked for in ``window`` frames on either
    side; a side without any counts as a spike at its far end.

    Args:
        spikes: ``[..., T, H, W]``.
        middle: the frame.
        window: frames on either side.

    Returns:
        Spikes a frame ``[..., H, W]``, float32.

    Raises:
        ValueError: the stream has no such frame, or the window is empty.
    """
    frames = spikes.shape[-3]
    _frames(spikes, middle, middle)
    if window < 1:
        raise ValueError(f"window must be at least 1 frame, got {window}")
    start, end = max(0, middle - window + 1), min(frames - 1, middle + window)
    before = spikes[..., start : middle + 1, :, :] != 0
    after = spikes[..., middle + 1 : end + 1, :, :] != 0
    times = torch.arange(frames, device=spikes.device).view(-1, 1, 1)
    left = torch.where(before, times[start : middle + 1], middle - window).amax(-3)
    right = torch.full_like(left, middle + window)
    if after.shape[-3]:
        right = torch.where(after, times[middle + 1 : end + 1], middle + window).amin(-3)
    return 1.0 / (right - left).float()


def long_voxel(spikes: Tensor, binning: Binning = "strided") -> Tensor:
    """Spike counts over the exposure and its surroundings: frames 20 to 156 without the middle one.

    ``strided`` is what the authors' code does: channel j adds frames j, j + 34, j + 68 and j + 102 of the
    136. ``consecutive`` adds four frames in a row.

    Args:
        spikes: ``[..., 177, H, W]``.
        binning: which frames a channel adds.

    Returns:
        Counts ``[..., 34, H, W]``: uint8 for integers, else in the dtype of ``spikes``.

    Raises:
        ValueError: an unknown binning, or a stream that is too short.
    """
    if binning not in get_args(Binning):
        raise ValueError(f"unknown binning {binning!r}; known: {', '.join(get_args(Binning))}")
    first, last = _VOXEL
    chosen = _frames(spikes, first, last)
    middle = (last - first) // 2
    kept = torch.cat([chosen[..., :middle, :, :], chosen[..., middle + 1 :, :, :]], -3)
    each = kept.shape[-3] // BINS
    dtype = spikes.dtype if spikes.is_floating_point() else torch.uint8
    shape, axis = ((each, BINS), -4) if binning == "strided" else ((BINS, each), -3)
    counts: Tensor = kept.unflatten(-3, shape).sum(axis, dtype=dtype)
    return counts


def short_windows(spikes: Tensor, frames: Sequence[int], length: int = SHORT) -> Tensor:
    """The frames around each virtual time, ``[..., T, H, W]`` -> ``[..., M, length, H, W]``.

    Args:
        spikes: the stream.
        frames: the M times.
        length: frames of a window, an odd number.

    Raises:
        ValueError: an even length, or a window that reaches beyond the stream.
    """
    if length % 2 == 0:
        raise ValueError(f"a window around a frame has an odd length, got {length}")
    half = length // 2
    return torch.stack([_frames(spikes, f - half, f + half) for f in frames], -4)


def _frames(spikes: Tensor, first: int, last: int) -> Tensor:
    if spikes.dim() < 3:
        raise ValueError(f"expected spikes [..., T, H, W], got {tuple(spikes.shape)}")
    frames = spikes.shape[-3]
    if not 0 <= first <= last < frames:
        raise ValueError(f"frames {first} to {last} are not in a stream of {frames} frames")
    return spikes[..., first : last + 1, :, :]
