"""Both simulators against a plain loop, and what their rates mean."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules import DataError
from datamodules.spike_camera import add_noise, noise_positions, simulate_physical, simulate_simple
from datamodules.spike_camera.kernel import integrate
from datamodules.spike_camera.simulate import GAIN, grey
from spiking import camera


def physical(frames, phase, gain=GAIN, threshold=4.0):
    """The definition, frame by frame."""
    gain = np.float32(gain)
    v = gain * phase.astype(np.float32)
    spikes = []
    for frame in frames:
        v = v + gain * frame
        fires = v > threshold
        v = np.where(fires, np.mod(v, np.float32(threshold)), v)
        spikes.append(fires)
    return np.stack(spikes)


def simple(frames, phase, threshold=5.0):
    v = phase * threshold
    spikes = []
    for frame in frames:
        v = v + frame
        fires = v - threshold >= 0
        v = np.where(fires, v - threshold, v)
        spikes.append(fires)
    return np.stack(spikes)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 8), (30, 71), (64, 65)])
def test_fused_is_the_loop(size):
    draw = np.random.default_rng(0)
    frames, phase = draw.random((50, *size), dtype=np.float32), draw.random(size)
    assert np.array_equal(simulate_physical(frames, phase), physical(frames, phase))
    assert np.array_equal(simulate_simple(frames, phase), simple(frames, phase))
    assert np.array_equal(simulate_simple(frames, phase, 1.0), simple(frames, phase, 1.0))


def test_threads_change_nothing():
    frames = np.random.default_rng(0).random((20, 9001), dtype=np.float32)
    start = np.zeros(9001, np.float32)
    one, three = (integrate(frames, start, "above", GAIN, 4.0, threads=n) for n in (1, 3))
    assert np.array_equal(one, three)
    assert np.array_equal(one, physical(frames, start))


def test_comparisons_differ():
    ones = np.ones((8, 1, 1), np.float32)
    start = np.zeros((1, 1))
    # gain 2 reaches the threshold of 4 exactly: not above it, so it fires a frame later
    assert simulate_physical(ones, start, gain=2.0).ravel().tolist() == [0, 0, 1, 0, 1, 0, 1, 0]
    assert simulate_simple(ones, start, threshold=2.0).ravel().tolist() == [0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("intensity", [0.0, 0.01, 0.2, 0.5, 0.77, 1.0])
def test_firing_rate_of_a_constant_image(intensity):
    T = 500
    spikes = simulate_physical(np.full((T, 4, 5), intensity, np.float32), np.random.default_rng(0))
    assert abs(spikes.mean(0) - 0.49636 * intensity).max() <= 1 / T + 1e-4
    assert pytest.approx(0.49636, abs=5e-6) == camera.RATE
    assert camera.RATE * 4 == GAIN
    spikes = simulate_simple(np.full((T, 4, 5), intensity, np.float32), np.random.default_rng(0))
    assert abs(spikes.mean(0) - intensity / 5).max() <= 1 / T + 1e-4


def test_noise():
    draw = np.random.default_rng(0)
    positions = noise_positions(200_000, draw)
    assert positions.max() < 199_999
    assert positions.min() >= 0
    assert np.diff(positions).mean() == pytest.approx(140, abs=5)
    spikes = np.zeros((7, 3, 5), np.uint8)
    noisy = add_noise(spikes, np.array([0, 8, 104]))
    assert not spikes.any()
    # positions count through T first, then through the row
    assert np.argwhere(noisy).tolist() == [[0, 0, 0], [1, 0, 1], [6, 2, 4]]
    assert np.array_equal(add_noise(np.ones_like(spikes), np.array([3])), np.ones_like(spikes))
    assert len(noise_positions(1, draw)) == 0
    with pytest.raises(ValueError, match="positive mean distance, got mean 0"):
        noise_positions(10, draw, (0.0, 1.0))


def test_grey():
    assert grey(np.ones((2, 2, 3)) * [1, 0, 0])[0, 0] == pytest.approx(0.30)
    assert grey(np.full((2, 5), 0.5)).shape == (2, 5)


@pytest.mark.parametrize("simulate", [simulate_physical, simulate_simple])
def test_what_is_refused(simulate):
    draw = np.random.default_rng(0)
    with pytest.raises(DataError, match=r"must lie in \[0, 1\], got 0 to 255; divide 8-bit images by 255"):
        simulate(255 * np.eye(4)[None], draw)
    with pytest.raises(DataError, match="got nan"):
        simulate(np.full((2, 2, 2), np.nan), draw)
    with pytest.raises(DataError, match=r"expected frames \[T, H, W\], got \(3, 2\)"):
        simulate(np.zeros((3, 2)), draw)
    with pytest.raises(DataError, match=r"phase has the shape \(2, 3\), frames have H, W = \(2, 2\)"):
        simulate(np.zeros((3, 2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="gain must lie between 0 and the threshold 4, got 4"):
        simulate_physical(np.zeros((1, 2, 2)), draw, gain=4.0)
    with pytest.raises(ValueError, match=r"at least 1, the largest intensity, got 0.5"):
        simulate_simple(np.zeros((1, 2, 2)), draw, threshold=0.5)
