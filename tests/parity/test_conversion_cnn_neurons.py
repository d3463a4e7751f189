"""The neurons of QCFS, SRP, COS and Parallel Conversion against the authors' codes, site by site."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from conversion.methods.cos import cos, initial_membrane
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.parallel import calibrate_step, clipped_relu, da_qcfs, parallel
from conversion.methods.srp import MARGIN, srp
from spiking.qcfs import qcfs
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden


@over_files("x_seq", "y_seq", "v_seq", "x_const")
def test_integrate_and_fire(golden):
    theta, T = golden.sidecar["threshold"], golden.sidecar["T"]
    x = golden["x_seq"] / theta
    spikes, v = integrate_fire(x)
    golden.spikes("y_seq", spikes, theta)
    assert torch.equal(v, chunked(x)[-1])
    golden.close("v_seq", chunked(x))
    still, _ = integrate_fire((golden["x_const"] / theta).expand(T, *golden["x_const"].shape))
    golden.spikes("y_const_seq", still, theta)
    golden.close("qcfs_of_x_const", still.mean(0) * theta)
    golden.close("qcfs_of_x_const", qcfs(golden["x_const"], torch.tensor([theta]), T))
    golden.everything_was_compared()


def chunked(x):
    """Membranes after every step, one call a step."""
    v, membranes = 0.5, []
    for t in range(len(x)):
        v = integrate_fire(x[t : t + 1], v)[1]
        membranes.append(v)
    return torch.stack(membranes)


@over_files("x_seq", "y_seq", "v_after_calibration", "unmasked_spikes")
def test_srp(golden):
    theta, tau = golden.sidecar["threshold"], golden.sidecar["tau"]
    assert golden.sidecar["mask_rule"].startswith("v(tau)/threshold > ")
    assert float(golden.sidecar["mask_rule"].split()[-1]) == MARGIN
    x = golden["x_seq"] / theta
    assert len(x) == tau + golden.sidecar["T"]
    spikes, mask = srp(x, tau)
    assert torch.equal(mask, golden["mask"].bool())
    golden.spikes("y_seq", spikes, theta)
    rehearsed, v = integrate_fire(x[:tau])
    golden.close("v_after_calibration", v)
    golden.spikes("unmasked_spikes", torch.cat([rehearsed, integrate_fire(x[tau:])[0]]))
    golden.everything_was_compared()


@over_files("x", "y", "v0_calibrated", "n_before", "n_after")
def test_cos(golden):
    theta, rho, K = (golden.sidecar[key] for key in ("threshold", "rho", "iterations"))
    x = golden["x"] / theta
    spikes = cos(x, rho, K)
    golden.spikes("y", spikes, theta)
    golden.close("v0_calibrated", initial_membrane(x, rho, K))
    for k in range(1, K):
        golden.close(f"v0_after_iteration_{k}", initial_membrane(x, rho, k))
    before, v = integrate_fire(x[:rho])
    assert torch.equal(before.sum(0), golden["n_before"])
    golden.close("v_rho_before", v)
    assert torch.equal(spikes[:rho].sum(0), golden["n_after"])
    mean = golden["x"][:rho].mean(0)
    golden.close("qcfs_spikes_wanted", qcfs(mean, torch.tensor([theta]), rho) * rho / theta)
    golden.everything_was_compared()


@over_files("x", "y", "v0_calibrated", "!n_before")
def test_cos_of_a_still_image(golden):
    theta, rho, T, K = (golden.sidecar[key] for key in ("threshold", "rho", "T", "iterations"))
    x = (golden["x"] / theta).expand(T, *golden["x"].shape)
    golden.spikes("y", cos(x, rho, K), theta)
    golden.close("v0_calibrated", initial_membrane(x, rho, K))
    golden.everything_was_compared()


@over_files("x", "y_if", "qcfs_of_mean")
def test_parallel_neuron_and_its_sequential_baseline(golden):
    theta, T = golden.sidecar["threshold"], golden.sidecar["T"]
    for suffix in ("", "_vec"):
        x = golden[f"x{suffix}"]
        assert len(x) == T
        y = parallel(x, theta)
        golden.spikes(f"y{suffix}", y)
        golden.close(f"qcfs_of_mean{suffix}", y.mean(0))
        golden.close(f"qcfs_of_mean{suffix}", qcfs(x.mean(0), torch.tensor([theta]), T))
    golden.spikes("y_if", integrate_fire(golden["x"] / theta)[0], theta)
    channels = golden["theta_channel"]
    golden.spikes("y_if_channel", integrate_fire(golden["x"] / channels)[0], channels)
    golden.everything_was_compared()


@over_files("x", "y", "calibrated_qcfs_of_mean")
def test_calibrated_parallel_neuron(golden):
    T = golden.sidecar["T"]
    theta, phi_in, phi_out = golden["theta"], golden["phi_in"], golden["phi_out"]
    y = parallel(golden["x"], theta, phi_in, phi_out)
    golden.spikes("y", y)
    golden.close("bias", 0.5 * theta + T * phi_in)
    golden.close("calibrated_qcfs_of_mean", y.mean(0))
    golden.close("calibrated_qcfs_of_mean", da_qcfs(golden["x"].mean(0), theta, T, phi_in, phi_out))
    golden.everything_was_compared()


@over_files("x_low", "x_ref", "phi_in", "y_test")
def test_calibration(golden):
    T, L, momentum = (golden.sidecar[key] for key in ("T", "L_reference", "momentum"))
    theta = golden["theta"]
    if L is None:
        reference = partial(clipped_relu, v_threshold=theta)
    else:
        reference = partial(da_qcfs, v_threshold=theta, time_steps=L)
    phi_in = phi_out = torch.full(golden["phi_in"].shape[1:], golden.sidecar["initial_corrections"])
    for batch, (low, ref) in enumerate(zip(golden["x_low"], golden["x_ref"], strict=True)):
        y_low, y_ref, phi_in, phi_out = calibrate_step(
            low, ref, theta, T, phi_in, phi_out, reference, momentum
        )
        found = {"phi_in": phi_in, "phi_out": phi_out, "y_low": y_low, "y_ref": y_ref}
        for key, got in found.items():
            torch.testing.assert_close(got, golden[key][batch], rtol=0, atol=golden.sidecar["tolerance"])
    golden.close("y_test", da_qcfs(golden["x_test"], theta, T, phi_in, phi_out))
    golden.everything_was_compared()


@over_files("*.folded_weight", "*.folded_bias")
def test_torch_folds_batch_norm_as_the_authors_do(golden):
    """Folding is exact and optional, and torch brings it; there is none of our own."""
    for name in sorted({key.partition(".")[0] for key in golden.keys}):
        weight = golden[f"{name}.0.weight"]
        channels, inputs, *kernel = weight.shape
        has_bias = f"{name}.0.bias" in golden
        conv = nn.Conv2d(inputs, channels, kernel, padding="same", bias=has_bias)
        norm = nn.BatchNorm2d(channels, eps=golden.sidecar["eps"])
        for index, module in enumerate((conv, norm)):
            for key in module.state_dict():
                if key != "num_batches_tracked":
                    module.state_dict()[key].copy_(golden[f"{name}.{index}.{key}"])
        folded = fuse_conv_bn_eval(conv.eval(), norm.eval())
        golden.close(f"{name}.folded_weight", folded.weight.detach())
        golden.close(f"{name}.folded_bias", folded.bias.detach())
        with torch.no_grad():
            golden.close(f"{name}.y", norm(conv(golden[f"{name}.x"])))
            golden.close(f"{name}.y", folded(golden[f"{name}.x"]))
    golden.everything_was_compared()
