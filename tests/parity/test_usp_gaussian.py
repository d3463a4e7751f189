"""Spike camera, Recon-Net, losses and trajectories of USP-Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import zoo
from lightning_modules import reconstruction_losses as losses
from spiking import camera
from tests.parity.goldens import over_files
from zoo.models.usp_gaussian import trajectory

pytestmark = pytest.mark.golden


def size(golden):
    return tuple(golden.sidecar[axis] for axis in "THW")


def unpacked(golden, key):
    """Spikes ``[T, H, W]`` of packed bits, the most significant one first."""
    shape = size(golden)
    return torch.from_numpy(np.unpackbits(golden[key].numpy())[: math.prod(shape)].reshape(shape))


def filled(golden, model, names):
    """Parameters by the sidecar's rule, in its order."""
    own = dict(model.named_parameters())
    assert set(own) == set(names)
    for k, name in enumerate(names):
        p = own[name]
        index = torch.arange(p.numel(), dtype=torch.float64)
        values = torch.sin(0.7 * index + 1.3 * k + golden.sidecar["salt"])
        values = values / math.sqrt(p.numel() / p.shape[0]) if p.dim() >= 2 else 0.1 * values
        values = values + float(p.dim() < 2 and name.endswith("weight"))
        p.data.copy_(values.reshape(p.shape))
    return model


def motion(vector):
    """Translation and quaternion (x, y, z, w) ``[..., 7]`` -> ``[..., 4, 4]``."""
    out = torch.eye(4).expand(*vector.shape[:-1], 4, 4).clone()
    turned = torch.cat([vector[..., 6:], vector[..., 3:6]], -1)
    out[..., :3, :3], out[..., :3, 3] = trajectory.rotation_matrix(turned), vector[..., :3]
    return out


@over_files("sim.spikes", "tfp_long", "tfi_*", "voxel")
def test_windows_and_means(golden):
    spikes = unpacked(golden, "sim.spikes")
    golden.close("tfp_long", camera.tfp(spikes), rtol=0, atol=1e-7)
    golden.equal("voxel", camera.long_voxel(spikes[None]))
    (key,) = [key for key in golden.keys if key.startswith("tfi_")]
    middle, window = (int(part.strip("w")) for part in key.split("_")[1:])
    golden.equal(key, camera.tfi(spikes, middle, window))


@over_files("recon_multi", "recon_single_mid")
def test_reconstruction_networks(golden):
    spikes = unpacked(golden, "sim.spikes")
    frames = camera.virtual_frames(len(golden["recon_multi"]))
    tau = torch.tensor([(f - frames[0]) / (frames[-1] - frames[0]) for f in frames])
    short, voxel = camera.short_windows(spikes, frames), camera.long_voxel(spikes)[None]
    two = filled(golden, zoo.create("usp_recon_net"), golden.sidecar["net_multi_param_names"])
    one = filled(golden, zoo.create("usp_recon_net", inputs="one"), golden.sidecar["net_single_param_names"])
    with torch.no_grad():
        golden.close("recon_multi", two(short, voxel, tau), rtol=1e-5, atol=1e-5)
        middle = len(frames) // 2
        golden.close("recon_single_mid", one(short[middle : middle + 1]), rtol=1e-5, atol=1e-5)


@over_files("render", "recon_for_loss", "loss.flip1.*", "loss.flip0.*", "loss.single_reblur")
def test_losses(golden):
    spikes = unpacked(golden, "sim.spikes")
    rendered, made = golden["render"].movedim(-1, 1), golden["recon_for_loss"]
    exposure, frames = camera.tfp(spikes), camera.virtual_frames(len(made))
    near = {"rtol": 1e-5, "atol": 1e-5}
    for flip in (0, 1):
        of = f"loss.flip{flip}."
        golden.close(of + "3dgs_reblur_loss", losses.rendering_loss(rendered, exposure), **near)
        golden.close(of + "spike_reblur_loss", losses.multi_reblur_loss(made, spikes, frames), **near)
        golden.close(of + "3dgs_spike_loss", losses.joint_loss(rendered, made, bool(flip)), **near)
        golden.close(of + "scale_reg_loss", losses.scale_regularizer(golden["loss.scales_log"]), **near)
    golden.close("loss.single_reblur", losses.single_reblur_loss(made, exposure), **near)


@over_files("pose.knots2_se3", "pose.knots4_se3", "pose.linear", "pose.cubic", "pose.bezier")
def test_trajectories(golden):
    near = {"rtol": 0, "atol": 2e-6}
    two, four = golden["pose.knots2_se3"], golden["pose.knots4_se3"]
    u = torch.linspace(0, 1, golden["pose.linear"].shape[-2])
    torch.testing.assert_close(trajectory.se3_exp(two), motion(golden["pose.knots2_SE3"]), **near)
    for kind, knots in (("linear", two), ("cubic", four), ("bezier", four)):
        expected = motion(golden[f"pose.{kind}"])
        torch.testing.assert_close(trajectory.interpolate(knots, u, kind), expected, **near)
    golden.close("pose.linear_matrix", trajectory.interpolate(two, u), **near)
    torch.testing.assert_close(trajectory.midpoint(two), motion(golden["pose.linear_mid"]), **near)
