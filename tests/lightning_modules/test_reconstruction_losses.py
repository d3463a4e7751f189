"""Losses of USP-Gaussian as properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.spike_camera import simulate_physical
from lightning_modules import reconstruction_losses as losses
from spiking import camera

FRAMES = camera.virtual_frames(13)


def filmed(moving=True, H=16, W=24):
    """Noise-free frames ``[177, H, W]`` of a wave, and their spikes."""
    x = torch.arange(W) + (0.08 * torch.arange(177.0)[:, None, None] if moving else torch.zeros(177, 1, 1))
    frames = (0.5 + 0.4 * torch.sin(0.6 * x)).expand(177, H, W)
    return frames, torch.from_numpy(simulate_physical(frames.numpy(), np.random.default_rng(0)))


def test_multi_reblur_of_constant_scenes():
    still, spikes = filmed(moving=False)
    truth = camera.RATE * still[FRAMES]
    # windows of 48 frames and more: the rate of each is known within one spike
    assert losses.multi_reblur_loss(truth, spikes, FRAMES) < 1 / 49
    means = camera.tfp(spikes, 40, 136).expand(13, -1, -1)
    assert losses.multi_reblur_loss(means, spikes, FRAMES) < 1 / 49
    silent = torch.zeros(177, 4, 4, dtype=torch.uint8)
    assert losses.multi_reblur_loss(torch.zeros(13, 4, 4), silent, FRAMES) == 0
    assert losses.multi_reblur_loss(torch.ones(13, 4, 4), 1 - silent, FRAMES) == 0


def test_multi_reblur_forbids_the_trivial_solution():
    frames, spikes = filmed()
    truth = camera.RATE * frames[FRAMES]
    trivial = camera.tfp(spikes).expand(13, -1, -1)
    assert losses.multi_reblur_loss(trivial, spikes, FRAMES) > 2 * losses.multi_reblur_loss(
        truth, spikes, FRAMES
    )
    # the single blur cannot tell them apart
    assert losses.single_reblur_loss(trivial, camera.tfp(spikes)) < 1e-6


@pytest.mark.parametrize(("count", "ks"), [(13, (3, 4, 5, 6)), (5, (1, 2)), (7, (1, 2, 3)), (3, (1,))])
def test_multi_reblur_windows(count, ks):
    frames = camera.virtual_frames(count)
    spikes = filmed()[1]
    made = torch.rand(count, 16, 24, generator=torch.Generator().manual_seed(0))
    middle, errors = count // 2, []
    for k in ks:
        window = spikes[frames[middle - k] : frames[middle + k] + 1].float().mean(0)
        errors.append((window - made[middle - k : middle + k + 1].mean(0)).abs().mean())
    torch.testing.assert_close(losses.multi_reblur_loss(made, spikes, frames), sum(errors) / len(ks))
    torch.testing.assert_close(
        losses.multi_reblur_loss(made.unsqueeze(1), spikes, frames), sum(errors) / len(ks)
    )


def test_joint_loss_and_the_direction_of_time():
    draw = torch.Generator().manual_seed(0)
    made = torch.rand(5, 8, 9, generator=draw)
    rendered = made.flip(0).unsqueeze(1).expand(-1, 3, -1, -1) + 0.01
    assert losses.joint_loss(rendered, made) == pytest.approx(0.01, abs=1e-6)
    assert losses.joint_loss(rendered, made, flip=False) > 0.1
    both = [losses.joint_loss(way, made) for way in (rendered, rendered.flip(0))]
    assert both[0] == both[1]
    with_channel = losses.joint_loss(rendered, made.unsqueeze(1).expand(-1, 3, -1, -1))
    torch.testing.assert_close(with_channel, both[0])
    sides = [rendered.clone().requires_grad_(), made.clone().requires_grad_()]
    losses.joint_loss(*sides).backward()
    assert all(side.grad.abs().max() > 0 for side in sides)  # nobody is the teacher


def test_blur_loss():
    image = torch.rand(16, 24, generator=torch.Generator().manual_seed(0))
    moved = torch.stack([image.roll(m, -1) for m in (-1, 0, 1)])
    blurred = moved.mean(0)
    assert losses.rendering_loss(moved.unsqueeze(1).expand(-1, 3, -1, -1), blurred) < 1e-6
    assert losses.rendering_loss(moved[1:2].unsqueeze(1), blurred) > 0.05
    offset = losses.blur_loss(moved + 0.5, blurred)
    assert offset > 0.8 * 0.5  # 0.8 times the mean error, and something of SSIM
    with pytest.raises(ValueError, match=r"at least 11 x 11 pixels, got H, W = \(8, 24\)"):
        losses.blur_loss(moved[:, :8], blurred[:8])


def test_scale_regularizer():
    scales = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    assert losses.scale_regularizer(scales) == 0
    long = torch.tensor([[0.0, 0.0, 3.0]]).requires_grad_()
    expected = 0.1 * (torch.tensor(3.0).exp() - 10)
    torch.testing.assert_close(losses.scale_regularizer(long), expected)
    losses.scale_regularizer(long).backward()
    assert long.grad[0, 2] > 0


def test_what_is_refused():
    spikes = torch.zeros(177, 4, 4, dtype=torch.uint8)
    with pytest.raises(
        ValueError, match="odd number of times, 3 or more, with as many images, got 4 times and 4"
    ):
        losses.multi_reblur_loss(torch.zeros(4, 4, 4), spikes, [40, 72, 104, 136])
    with pytest.raises(ValueError, match="got 13 times and 5 images"):
        losses.multi_reblur_loss(torch.zeros(5, 4, 4), spikes, FRAMES)
