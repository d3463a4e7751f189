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

COS = ("cos_layer", "cos_layer_iterative")
CALIBRATION = ("da_qcfs_calibration_qcfs", "da_qcfs_calibration_relu")
GOLDEN_FILES = {
    "conversion_cnn/qcfs_if_neuron",
    "conversion_cnn/srp_neuron",
    "conversion_cnn/cos_layer",
    "conversion_cnn/cos_layer_iterative",
    "conversion_cnn/cos_first_layer",
    "conversion_cnn/parallel_neuron",
    "conversion_cnn/parallel_neuron_channelwise",
    "conversion_cnn/da_qcfs_calibration_qcfs",
    "conversion_cnn/da_qcfs_calibration_relu",
    "conversion_cnn/bn_folding",
}
pytestmark = pytest.mark.golden


class Golden:
    """Tensors of one file; remembers which of them were asked for."""

    def __init__(self, sidecar, tensors):
        self.sidecar, self.tensors, self.seen = sidecar, tensors, set()

    def __getitem__(self, key):
        self.seen.add(key)
        return self.tensors[key]

    def close(self, key, got):
        expected = self[key]
        torch.testing.assert_close(got.to(expected.dtype), expected, rtol=0, atol=self.sidecar["tolerance"])

    def spikes(self, key, got, height=1.0):
        """Who fires must agree exactly, how high up to rounding."""
        assert torch.equal(got != 0, self[key] != 0), f"{key} differs"
        self.close(key, got * height)

    def everything_was_compared(self):
        assert self.seen == set(self.tensors), f"not looked at: {sorted(set(self.tensors) - self.seen)}"


@pytest.fixture
def golden(conversion_cnn):
    return lambda file: Golden(*conversion_cnn(file))


def test_integrate_and_fire(golden):
    case = golden("qcfs_if_neuron")
    theta, T = case.sidecar["threshold"], case.sidecar["T"]
    x = case["x_seq"] / theta
    spikes, v = integrate_fire(x)
    case.spikes("y_seq", spikes, theta)
    assert torch.equal(v, chunked(x)[-1])
    case.close("v_seq", chunked(x))
    still, _ = integrate_fire((case["x_const"] / theta).expand(T, *case["x_const"].shape))
    case.spikes("y_const_seq", still, theta)
    case.close("qcfs_of_x_const", still.mean(0) * theta)
    case.close("qcfs_of_x_const", qcfs(case["x_const"], torch.tensor([theta]), T))
    case.everything_was_compared()


def chunked(x):
    """Membranes after every step, one call a step."""
    v, membranes = 0.5, []
    for t in range(len(x)):
        v = integrate_fire(x[t : t + 1], v)[1]
        membranes.append(v)
    return torch.stack(membranes)


def test_srp(golden):
    case = golden("srp_neuron")
    theta, tau = case.sidecar["threshold"], case.sidecar["tau"]
    assert case.sidecar["mask_rule"].startswith("v(tau)/threshold > ")
    assert float(case.sidecar["mask_rule"].split()[-1]) == MARGIN
    x = case["x_seq"] / theta
    assert len(x) == tau + case.sidecar["T"]
    spikes, mask = srp(x, tau)
    assert torch.equal(mask, case["mask"].bool())
    case.spikes("y_seq", spikes, theta)
    rehearsed, v = integrate_fire(x[:tau])
    case.close("v_after_calibration", v)
    case.spikes("unmasked_spikes", torch.cat([rehearsed, integrate_fire(x[tau:])[0]]))
    case.everything_was_compared()


@pytest.mark.parametrize("file", COS)
def test_cos(golden, file):
    case = golden(file)
    theta, rho, K = (case.sidecar[key] for key in ("threshold", "rho", "iterations"))
    x = case["x"] / theta
    spikes = cos(x, rho, K)
    case.spikes("y", spikes, theta)
    case.close("v0_calibrated", initial_membrane(x, rho, K))
    for k in range(1, K):
        case.close(f"v0_after_iteration_{k}", initial_membrane(x, rho, k))
    before, v = integrate_fire(x[:rho])
    assert torch.equal(before.sum(0), case["n_before"])
    case.close("v_rho_before", v)
    assert torch.equal(spikes[:rho].sum(0), case["n_after"])
    mean = case["x"][:rho].mean(0)
    case.close("qcfs_spikes_wanted", qcfs(mean, torch.tensor([theta]), rho) * rho / theta)
    case.everything_was_compared()


def test_cos_of_a_still_image(golden):
    case = golden("cos_first_layer")
    theta, rho, T, K = (case.sidecar[key] for key in ("threshold", "rho", "T", "iterations"))
    x = (case["x"] / theta).expand(T, *case["x"].shape)
    case.spikes("y", cos(x, rho, K), theta)
    case.close("v0_calibrated", initial_membrane(x, rho, K))
    case.everything_was_compared()


def test_parallel_neuron_and_its_sequential_baseline(golden):
    case = golden("parallel_neuron")
    theta, T = case.sidecar["threshold"], case.sidecar["T"]
    for suffix in ("", "_vec"):
        x = case[f"x{suffix}"]
        assert len(x) == T
        y = parallel(x, theta)
        case.spikes(f"y{suffix}", y)
        case.close(f"qcfs_of_mean{suffix}", y.mean(0))
        case.close(f"qcfs_of_mean{suffix}", qcfs(x.mean(0), torch.tensor([theta]), T))
    case.spikes("y_if", integrate_fire(case["x"] / theta)[0], theta)
    channels = case["theta_channel"]
    case.spikes("y_if_channel", integrate_fire(case["x"] / channels)[0], channels)
    case.everything_was_compared()


def test_calibrated_parallel_neuron(golden):
    case = golden("parallel_neuron_channelwise")
    T = case.sidecar["T"]
    theta, phi_in, phi_out = case["theta"], case["phi_in"], case["phi_out"]
    y = parallel(case["x"], theta, phi_in, phi_out)
    case.spikes("y", y)
    case.close("bias", 0.5 * theta + T * phi_in)
    case.close("calibrated_qcfs_of_mean", y.mean(0))
    case.close("calibrated_qcfs_of_mean", da_qcfs(case["x"].mean(0), theta, T, phi_in, phi_out))
    case.everything_was_compared()


@pytest.mark.parametrize("file", CALIBRATION)
def test_calibration(golden, file):
    case = golden(file)
    T, L, momentum = (case.sidecar[key] for key in ("T", "L_reference", "momentum"))
    theta = case["theta"]
    if L is None:
        reference = partial(clipped_relu, v_threshold=theta)
    else:
        reference = partial(da_qcfs, v_threshold=theta, time_steps=L)
    phi_in = phi_out = torch.full(case["phi_in"].shape[1:], case.sidecar["initial_corrections"])
    for batch, (low, ref) in enumerate(zip(case["x_low"], case["x_ref"], strict=True)):
        y_low, y_ref, phi_in, phi_out = calibrate_step(
            low, ref, theta, T, phi_in, phi_out, reference, momentum
        )
        found = {"phi_in": phi_in, "phi_out": phi_out, "y_low": y_low, "y_ref": y_ref}
        for key, got in found.items():
            torch.testing.assert_close(got, case[key][batch], rtol=0, atol=case.sidecar["tolerance"])
    case.close("y_test", da_qcfs(case["x_test"], theta, T, phi_in, phi_out))
    case.everything_was_compared()


def test_torch_folds_batch_norm_as_the_authors_do(golden):
    """Folding is exact and optional, and torch brings it; there is none of our own."""
    case = golden("bn_folding")
    for name in sorted({key.partition(".")[0] for key in case.tensors}):
        weight = case[f"{name}.0.weight"]
        channels, inputs, *kernel = weight.shape
        has_bias = f"{name}.0.bias" in case.tensors
        conv = nn.Conv2d(inputs, channels, kernel, padding="same", bias=has_bias)
        norm = nn.BatchNorm2d(channels, eps=case.sidecar["eps"])
        for index, module in enumerate((conv, norm)):
            for key in module.state_dict():
                if key != "num_batches_tracked":
                    module.state_dict()[key].copy_(case[f"{name}.{index}.{key}"])
        folded = fuse_conv_bn_eval(conv.eval(), norm.eval())
        case.close(f"{name}.folded_weight", folded.weight.detach())
        case.close(f"{name}.folded_bias", folded.bias.detach())
        with torch.no_grad():
            case.close(f"{name}.y", norm(conv(case[f"{name}.x"])))
            case.close(f"{name}.y", folded(case[f"{name}.x"]))
    case.everything_was_compared()
