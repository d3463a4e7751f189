"""What the conversions promise of whole networks, on small ones built by hand from the functions.

Double precision: there the promises are exact, and no rounding can hide a broken one.
"""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from conversion.methods.cos import cos
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.parallel import calibrate_step, clipped_relu, da_qcfs, parallel
from conversion.methods.srp import srp
from spiking.layers import fold_time

EXACT = {"rtol": 0, "atol": 1e-12}


class Network(nn.Module):
    """Convolutions with batch norm, a residual sum, average pooling and two linear layers: five sites.

    ``site(i, current)`` is the activation; everything else is affine. Time, if any, is axis 0.
    """

    def __init__(self, seed, width=6, pixels=8):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            chans = ((2, width), (width, width), (width, width))
            self.convs = nn.ModuleList(nn.Conv2d(*c, 3, padding=1) for c in chans)
            self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in chans)
            self.hidden = nn.Linear(width * (pixels // 2) ** 2, 20)
            self.head = nn.Linear(20, 5)
            for norm in self.norms:
                nn.init.uniform_(norm.weight, 1.0, 4.0)  # deep sites get uneven currents
                nn.init.uniform_(norm.bias, -0.3, 0.5)
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.1, 0.5)
            nn.init.normal_(self.hidden.weight, std=0.2)
            self.theta = torch.rand(4, dtype=torch.float64) + 0.6
            self.image = torch.randn(3, 2, pixels, pixels, dtype=torch.float64)
        self.double().eval().requires_grad_(False)

    def affine(self, i, x):
        return self.norms[i](self.convs[i](x))

    def forward(self, x, site, layer=lambda module, x: module(x)):
        a = site(0, layer(partial(self.affine, 0), x))
        b = site(1, layer(partial(self.affine, 1), a))
        c = site(2, layer(partial(self.affine, 2), b) + a)
        pooled = layer(lambda m: nn.functional.avg_pool2d(m, 2).flatten(1), c)
        return layer(self.head, site(3, layer(self.hidden, pooled)))

    def over_time(self, steps, site):
        """Logits ``[T, B, K]`` of a still image."""
        return self(self.image.expand(steps, *self.image.shape), site, fold_time)

    def qcfs(self, levels):
        """Logits of the source."""
        return self(self.image, lambda i, x: da_qcfs(x, self.theta[i], levels))

    def spiking(self, steps, fire):
        """Logits over time, with spikes of ``fire`` over currents in units of the threshold."""
        return self.over_time(steps, lambda i, x: fire(x / self.theta[i]) * self.theta[i])


NETWORKS = [Network(seed) for seed in range(4)]


def plain(x):
    return integrate_fire(x)[0]


def error(net, logits, levels):
    return (logits - net.qcfs(levels)).abs().max().item()


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("rho", [3, 4, 6])
def test_cos_with_rho_iterations_is_lossless(net, rho):
    run = [net.spiking(rho, lambda x, K=K: cos(x, rho, K)).mean(0) for K in (0, rho)]
    assert torch.equal(run[0], net.spiking(rho, plain).mean(0))
    assert error(net, run[0], rho) > 0.01
    assert error(net, run[1], rho) < 1e-12


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("steps", [1, 3, 4, 8])
def test_parallel_conversion_is_lossless(net, steps):
    logits = net.over_time(steps, lambda i, x: parallel(x, net.theta[i])).mean(0)
    torch.testing.assert_close(logits, net.qcfs(steps), **EXACT)


@pytest.mark.parametrize("seed", range(4))
def test_parallel_conversion_is_lossless_in_single_precision(seed):
    net = Network(seed).float()
    net.theta, net.image = net.theta.float(), net.image.float()
    logits = net.over_time(4, lambda i, x: parallel(x, net.theta[i])).mean(0)
    torch.testing.assert_close(logits, net.qcfs(4), rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
def test_a_network_of_one_site_loses_nothing(steps):
    net = NETWORKS[0]
    current, theta = net.affine(0, net.image), net.theta[0]
    fired = integrate_fire(current.expand(steps, *current.shape) / theta)[0].mean(0) * theta
    torch.testing.assert_close(net.convs[1](fired), net.convs[1](da_qcfs(current, theta, steps)), **EXACT)


def test_errors_at_as_many_steps_as_levels_are_ordered():
    """On average; a single network may be an exception."""
    levels, mean = 4, {}
    methods = {
        "parallel": lambda net: net.over_time(levels, lambda i, x: parallel(x, net.theta[i])),
        "cos iterated": lambda net: net.spiking(levels, lambda x: cos(x, levels, levels)),
        "cos": lambda net: net.spiking(levels, lambda x: cos(x, levels)),
        "qcfs": lambda net: net.spiking(levels, plain),
    }
    for name, method in methods.items():
        errors = [(method(net).mean(0) - net.qcfs(levels)).abs().mean() for net in map(Network, range(8))]
        mean[name] = sum(errors) / len(errors)
    assert mean["parallel"] < 1e-12
    assert mean["cos iterated"] < 1e-12
    assert 1e-3 < mean["cos"] < mean["qcfs"]


@pytest.mark.parametrize("net", NETWORKS)
def test_srp_rehearses_all_layers_at_once(net):
    """Masks are those of the plain network's membranes, whatever the masks of the layers before do."""
    tau, run, masks, membranes = 4, 5, {}, {}

    def masked(i, x):
        spikes, masks[i] = srp(x / net.theta[i], tau)
        return spikes * net.theta[i]

    def watched(i, x):
        spikes, membranes[i] = integrate_fire(x / net.theta[i])
        return spikes * net.theta[i]

    logits = net.over_time(tau + run, masked)
    rehearsal = net.over_time(tau, watched)
    torch.testing.assert_close(logits[:tau], rehearsal, **EXACT)
    for i in range(4):
        assert torch.equal(masks[i], membranes[i] > 0.001)
        assert not masks[i].all()
    assert not torch.allclose(logits[tau:], net.spiking(run, plain))


@pytest.mark.parametrize(
    "fire",
    [plain, lambda x: srp(x, 3)[0], lambda x: cos(x, 4), lambda x: cos(x, 4, 4), parallel],
    ids=["qcfs", "srp", "cos", "cos iterated", "parallel"],
)
def test_a_batch_is_converted_sample_by_sample(fire):
    net = Network(0)
    whole = net.spiking(7, fire)
    assert torch.equal(whole, net.spiking(7, fire))
    for i, image in enumerate(net.image.split(1)):
        net.image = image
        torch.testing.assert_close(net.spiking(7, fire), whole[:, i : i + 1], **EXACT)


def test_folded_batch_norm_changes_nothing():
    net = NETWORKS[1]
    folded = copy.deepcopy(net)
    folded.convs = nn.ModuleList(map(fuse_conv_bn_eval, net.convs, net.norms))
    folded.norms = nn.ModuleList(nn.Identity() for _ in net.norms)
    torch.testing.assert_close(folded.qcfs(4), net.qcfs(4), **EXACT)
    torch.testing.assert_close(folded.spiking(6, plain), net.spiking(6, plain), **EXACT)


# ---------------------------------------------------------------- calibrated networks


def calibrate(net, batches, steps, reference):
    """Corrections of the three maps, after passes of a doubled batch; and the reference copy's logits."""
    zeros = torch.zeros(6, 1, 1, dtype=torch.float64)
    phi = dict.fromkeys(range(3), (zeros, zeros))

    def site(i, x):
        if i not in phi:  # as in the authors' code, where classifier sites have T levels for both copies
            return da_qcfs(x, net.theta[i], steps)
        low, ref = x.chunk(2)
        y_low, y_ref, *phi[i] = calibrate_step(low, ref, net.theta[i], steps, *phi[i], partial(reference, i))
        return torch.cat([y_low, y_ref])

    for image in batches:
        logits = net(torch.cat([image, image]), site).chunk(2)[1]
    return phi, logits


def images(count, seed=7):
    return torch.randn(count, 16, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_calibrated_network_is_its_calibrated_activations(net, steps):
    """For any corrections; classifier sites have none."""
    generator = torch.Generator().manual_seed(steps)
    phi = 0.1 * torch.randn(3, 2, 6, 1, 1, generator=generator, dtype=torch.float64)
    corrections = [*phi, (None, None)]
    spiking = net.over_time(steps, lambda i, x: parallel(x, net.theta[i], *corrections[i])).mean(0)
    analog = net(net.image, lambda i, x: da_qcfs(x, net.theta[i], steps, *corrections[i]))
    torch.testing.assert_close(spiking, analog, **EXACT)
    assert (analog - net.qcfs(steps)).abs().max() > 0.01


def test_the_reference_copy_is_the_source():
    net = NETWORKS[0]
    *_, last = batches = images(3)
    _, logits = calibrate(net, batches, 3, lambda i, x: da_qcfs(x, net.theta[i], 8))
    source = net(last, lambda i, x: da_qcfs(x, net.theta[i], 8 if i < 3 else 3))
    torch.testing.assert_close(logits, source, **EXACT)


def test_equal_levels_find_nothing_to_correct():
    net = NETWORKS[2]
    phi, _ = calibrate(net, images(3), 4, lambda i, x: da_qcfs(x, net.theta[i], 4))
    assert all(not part.any() for pair in phi.values() for part in pair)


def recorded_maxima(net, batches):
    """Largest pre-activation of each channel (of each site, behind linear layers) of the ReLU network."""
    tops = {}

    def site(i, x):
        top = x.amax((0, 2, 3), keepdim=True)[0] if x.dim() == 4 else x.amax().reshape(1)
        tops[i] = torch.maximum(tops[i], top) if i in tops else top
        return clipped_relu(x, tops[i])

    for image in batches:
        net(image, site)
    return tops


def test_training_free_conversion_approaches_the_relu_network():
    net, batches = copy.deepcopy(NETWORKS[3]), images(4)
    net.theta = recorded_maxima(net, batches)
    more = recorded_maxima(net, torch.cat([batches, images(4, seed=8)]))
    assert all((more[i] >= net.theta[i]).all() for i in net.theta)
    relu = net(batches[0], lambda i, x: x.relu())
    errors = []
    for steps in (4, 64, 1024, 16384):
        low = net(batches[0], lambda i, x, steps=steps: da_qcfs(x, net.theta[i], steps))
        errors.append((low - relu).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 < 0.1 < errors[0]
