"""Windows, mean rates and intervals of a spike stream."""

from __future__ import annotations

import pytest
import torch

from spiking import camera


def stream(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=draw) < 0.3).to(torch.uint8)


def test_virtual_frames():
    assert camera.virtual_frames(13) == [40 + 8 * m for m in range(13)]
    assert camera.virtual_frames(2) == [40, 136]
    assert camera.virtual_frames(3, 0, 10) == [0, 5, 10]
    with pytest.raises(ValueError, match="at least 2 virtual times, got 1"):
        camera.virtual_frames(1)
    with pytest.raises(
        ValueError, match="6 virtual times do not fall on frames 40 to 136: 5 does not divide 96"
    ):
        camera.virtual_frames(6)


def test_mean_rate_takes_both_ends():
    spikes = torch.zeros(177, 2, 2, dtype=torch.uint8)
    spikes[[40, 136]] = 1
    assert torch.equal(camera.tfp(spikes), torch.full((2, 2), 2 / 97))
    assert camera.tfp(spikes, 136, 136).unique().tolist() == [1.0]
    assert camera.tfp(spikes[None].double()).dtype == torch.float64
    with pytest.raises(ValueError, match="frames 40 to 136 are not in a stream of 100 frames"):
        camera.tfp(spikes[:100])
    with pytest.raises(ValueError, match=r"expected spikes \[..., T, H, W\]"):
        camera.tfp(spikes[0])


@pytest.mark.parametrize(("middle", "window"), [(88, 40), (0, 5), (176, 10), (3, 200)])
def test_intervals_by_their_definition(middle, window):
    spikes = stream(177, 5, 6) * stream(177, 5, 6, seed=1)
    expected = torch.zeros(5, 6)
    for y in range(5):
        for x in range(6):
            left, right = middle - window, middle + window
            for t in range(max(0, middle - window + 1), middle + 1):
                left = t if spikes[t, y, x] else left
            for t in range(min(176, middle + window), middle, -1):
                right = t if spikes[t, y, x] else right
            expected[y, x] = 1 / (right - left)
    torch.testing.assert_close(camera.tfi(spikes, middle, window), expected)
    torch.testing.assert_close(camera.tfi(spikes[None, None], middle, window)[0, 0], expected)


def test_a_constant_rate_is_read_from_intervals():
    spikes = torch.zeros(177, 1, 1, dtype=torch.uint8)
    spikes[::4] = 1
    assert camera.tfi(spikes, 90, 40).item() == 0.25
    with pytest.raises(ValueError, match="window must be at least 1 frame, got 0"):
        camera.tfi(spikes, 90, 0)


@pytest.mark.parametrize("binning", ["strided", "consecutive"])
def test_voxel_sums_to_136_frames(binning):
    spikes = stream(177, 4, 5)
    voxel = camera.long_voxel(spikes, binning)
    assert voxel.shape == (34, 4, 5)
    rest = torch.cat([spikes[20:88], spikes[89:157]])
    assert torch.equal(voxel.sum(0), rest.sum(0))
    index = 7
    frames = [index + 34 * i for i in range(4)] if binning == "strided" else range(4 * index, 4 * index + 4)
    assert torch.equal(voxel[index], rest[list(frames)].sum(0).to(torch.uint8))
    spikes[88] = 1 - spikes[88]  # the middle one is not looked at
    assert torch.equal(camera.long_voxel(spikes, binning), voxel)
    assert torch.equal(camera.long_voxel(spikes[None].float(), binning)[0], voxel.float())


def test_voxel_refuses_other_binnings():
    with pytest.raises(ValueError, match="unknown binning 'random'; known: strided, consecutive"):
        camera.long_voxel(stream(177, 2, 2), "random")


def test_short_windows():
    spikes = stream(177, 3, 4)
    short = camera.short_windows(spikes, [40, 88])
    assert short.shape == (2, 41, 3, 4)
    assert torch.equal(short[1, 20], spikes[88])
    assert torch.equal(short[0], spikes[20:61])
    assert camera.short_windows(spikes[None, None], [40]).shape == (1, 1, 1, 41, 3, 4)
    with pytest.raises(ValueError, match="odd length, got 40"):
        camera.short_windows(spikes, [88], 40)
    with pytest.raises(ValueError, match="frames -1 to 39 are not in a stream"):
        camera.short_windows(spikes, [19])
