"""From frames to what a spike camera would have recorded (USP-Gaussian, arXiv 2411.10504).

Each pixel integrates light and fires when a threshold is crossed. The two simulators of the authors' code
differ in threshold, comparison and precision.

Axes: T frames, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.loading.errors import DataError
from datamodules.spike_camera.kernel import integrate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Frames = npt.NDArray[Any]

GAIN = 250 * (2 / 1e7) * 1.09e-13 / (1.83e-4 * 15e-15)  # charge of a frame at intensity 1
THRESHOLD = 4.0
NOISE_INTERVAL = (140.0, 50.0)  # mean and deviation of the distance between false spikes, in frames
GREY = (0.30, 0.59, 0.11)  # R, G, B of frames to simulate


def grey(images: Frames, weights: tuple[float, float, float] = GREY) -> Frames:
    """Weighted sum over the last axis, ``[..., 3]`` -> ``[...]`` float32; other images are grey already."""
    if images.ndim >= 3 and images.shape[-1] in (3, 4):
        mixed: Frames = images[..., :3].astype(np.float32) @ np.array(weights, dtype=np.float32)
        return mixed
    return images.astype(np.float32)


def simulate_physical(
    frames: Frames,
    phase: Frames | np.random.Generator,
    gain: float = GAIN,
    threshold: float = THRESHOLD,
) -> npt.NDArray[np.uint8]:
    """The simulator of the published data: mean rate ``gain / threshold * I``, 0.49636 at intensity 1.

    ``v <- v + gain * I``, a spike if ``v > threshold``, then ``v <- v mod threshold``. One extra step before
    the first frame integrates ``phase``; its output is dropped.

    Args:
        frames: intensities in [0, 1], ``[T, H, W]``.
        phase: intensities ``[H, W]`` of the extra step, or what draws them uniformly.
        gain: charge of a frame at intensity 1, below the threshold.
        threshold: of firing.

    Returns:
        Spikes 0 and 1, uint8 ``[T, H, W]``.

    Raises:
        DataError: frames that are no stream, or intensities outside [0, 1].
        ValueError: a gain that could fire twice a frame.
    """
    if not 0 < gain < threshold:
        raise ValueError(f"gain must lie between 0 and the threshold {threshold:g}, got {gain:g}")
    light, shape = _light(frames)
    first = _phase(phase, shape, np.float32)
    v = np.float32(gain) * first.reshape(-1)
    return integrate(light, v, "above", gain, threshold).reshape(-1, *shape)


def simulate_simple(
    frames: Frames, phase: Frames | np.random.Generator, threshold: float = 5.0
) -> npt.NDArray[np.uint8]:
    """Integrate and fire with a soft reset, from a uniform start: mean rate ``I / threshold``.

    Args:
        frames: intensities in [0, 1], ``[T, H, W]``.
        phase: shares ``[H, W]`` of the threshold at the start, or what draws them uniformly.
        threshold: reached, a pixel fires.

    Returns:
        Spikes 0 and 1, uint8 ``[T, H, W]``.

    Raises:
        DataError: frames that are no stream, or intensities outside [0, 1].
        ValueError: a threshold below the largest intensity.
    """
    if not threshold >= 1:
        raise ValueError(f"threshold must be at least 1, the largest intensity, got {threshold:g}")
    light, shape = _light(frames)
    v = _phase(phase, shape, np.float64).reshape(-1) * threshold
    return integrate(light, v, "reached", 1.0, threshold).reshape(-1, *shape)


def noise_positions(
    size: int,
    draw: np.random.Generator | Callable[[int], Frames],
    interval: tuple[float, float] = NOISE_INTERVAL,
) -> npt.NDArray[np.int64]:
    """Where a sensor fires without light: the running sum of normal draws, rounded down, below ``size - 1``.

    Args:
        size: H * W * T, positions of the flattened stream ``[H, W, T]``.
        draw: random generator, or a function from a number to so many draws.
        interval: mean and deviation of a draw.

    Returns:
        Positions, in the order in which they were drawn.
    """
    mean, deviation = interval
    if not mean > 0 or not deviation >= 0:
        raise ValueError(f"noise needs a positive mean distance, got mean {mean:g}, deviation {deviation:g}")
    sums = np.zeros(1)
    while sums[-1] < size - 1:  # once, but for rare runs of short distances
        count = int(1.1 * (size - sums[-1]) / mean) + 64
        steps = draw.normal(mean, deviation, count) if isinstance(draw, np.random.Generator) else draw(count)
        sums = np.concatenate([sums, sums[-1] + np.cumsum(np.asarray(steps, dtype=np.float64))])
    reached = int(np.argmax(sums >= size - 1))
    positions = np.floor(sums[1:reached]).astype(np.int64)
    return positions[positions >= 0]


def add_noise(spikes: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """A copy of the stream ``[T, H, W]`` with further spikes at positions of ``[H, W, T]``, T fastest."""
    noisy = spikes.copy()
    pixel, t = np.divmod(positions, len(spikes))
    noisy.reshape(len(spikes), -1)[t, pixel] = 1
    return noisy


def _light(frames: Frames) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    if frames.ndim != 3 or 0 in frames.shape:
        raise DataError(f"expected frames [T, H, W], got {frames.shape}")
    low, high = float(frames.min()), float(frames.max())
    if not (low >= 0.0 and high <= 1.0):  # false for NaN, too
        raise DataError(
            f"intensities must lie in [0, 1], got {low:g} to {high:g}; divide 8-bit images by 255"
        )
    light = np.ascontiguousarray(frames, dtype=np.float32).reshape(len(frames), -1)
    return light, (frames.shape[1], frames.shape[2])


def _phase(phase: Frames | np.random.Generator, shape: tuple[int, int], dtype: type[Any]) -> Frames:
    if isinstance(phase, np.random.Generator):
        return phase.random(shape, dtype=dtype)
    if phase.shape != shape:
        raise DataError(f"phase has the shape {phase.shape}, frames have H, W = {shape}")
    return phase.astype(dtype)
