"""Spike camera, Recon-Net, losses and trajectories of USP-Gaussian."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import zoo
from datamodules.spike_camera import DatFile, noise_positions, simulate_physical, simulate_simple, write_dat
from lightning_modules import reconstruction_losses as losses
from spiking import camera
from tests.parity.goldens import over_files
from zoo.models.usp_gaussian import trajectory
from zoo.models.usp_gaussian.projection import rotation_matrices

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
    out[..., :3, :3], out[..., :3, 3] = rotation_matrices(turned), vector[..., :3]
    return out


def filmed(golden, library):
    """Frames ``[T, H, W]`` by the sidecar's rule, in float32."""
    T, H, W = size(golden)
    k, y, x = (library.arange(n, dtype=library.float32) for n in (T, H, W))
    k, y = k[:, None, None], y[:, None]
    numbers = [np.float32(round(float(c), 6)) for c in golden["frames_rule"]]
    mean, height, along, down, moves, bend, turns = numbers if library is np else map(float, numbers)
    wave = height * library.sin(along * x + down * y + moves * k) * library.cos(bend * y - turns * k)
    return np.clip(np.asarray(mean + wave), 0, 1)


@over_files("sim.phase", "sim.spikes", "v2s.phase", "v2s.spikes", "frames_rule")
def test_simulators(golden):
    threshold = float(re.search(r"threshold ([\d.]*\d)", golden.sidecar["v2s"]).group(1))
    agree = set()
    for library in (torch, np):  # frames are not stored, and two sines differ in their last bit
        frames = filmed(golden, library)
        physical = simulate_physical(frames, golden["sim.phase"].numpy())
        simple = simulate_simple(frames, golden["v2s.phase"].numpy(), threshold)
        agree.add(("sim", np.array_equal(physical, unpacked(golden, "sim.spikes").numpy())))
        agree.add(("v2s", np.array_equal(simple, unpacked(golden, "v2s.spikes").numpy())))
    assert {("sim", True), ("v2s", True)} <= agree


@over_files("noise.first_gaussians", "noise.positions")
def test_noise(golden):
    draws = golden["noise.first_gaussians"].numpy()
    positions = golden["noise.positions"].numpy()
    got = noise_positions(math.prod(size(golden)), lambda count: np.append(draws, np.full(count, 1e12)))
    assert np.array_equal(got, positions[: len(got)])
    assert len(got) == min(len(draws), len(positions))
    assert positions.max() < math.prod(size(golden)) - 1


@over_files("dat.bytes_first*frames", "sim.spikes")
def test_bytes_of_files(golden, tmp_path):
    (key,) = [key for key in golden.keys if key.startswith("dat.bytes_first")]
    count = int(re.search(r"first(\d+)frames", key).group(1))
    spikes = unpacked(golden, "sim.spikes").numpy()
    write_dat(tmp_path / "a.dat", spikes[:count])
    assert (tmp_path / "a.dat").read_bytes() == golden[key].numpy().tobytes()
    _, H, W = spikes.shape
    assert np.array_equal(DatFile(tmp_path / "a.dat", height=H, width=W)[:], spikes[:count])


@over_files("sim.spikes", "tfp_long", "tfi_*", "voxel")
def test_windows_and_means(golden):
    spikes = unpacked(golden, "sim.spikes")
    golden.close("tfp_long", camera.tfp(spikes), rtol=0, atol=1e-6)
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
    near = {"rtol": 1e-5, "atol": 1e-5}
    two, four = golden["pose.knots2_se3"], golden["pose.knots4_se3"]
    u = torch.linspace(0, 1, golden["pose.linear"].shape[-2])
    torch.testing.assert_close(trajectory.se3_exp(two), motion(golden["pose.knots2_SE3"]), **near)
    for kind, knots in (("linear", two), ("cubic", four), ("bezier", four)):
        expected = motion(golden[f"pose.{kind}"])
        torch.testing.assert_close(trajectory.interpolate(knots, u, kind), expected, **near)
    golden.close("pose.linear_matrix", trajectory.interpolate(two, u), **near)
    torch.testing.assert_close(trajectory.midpoint(two), motion(golden["pose.linear_mid"]), **near)
