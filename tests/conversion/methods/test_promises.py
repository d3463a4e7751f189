"""What the four papers promise, of networks that `convert` has made."""

import copy
from contextlib import contextmanager

import pytest
import torch

from conversion import convert
from conversion.methods.cos import initial_membrane
from conversion.methods.parallel import MOMENTUM
from conversion.methods.srp import MARGIN, srp
from conversion.network.site import sites
from spiking.qcfs import QCFS

SIZE = (3, 12, 12)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@contextmanager
def watching(snn):
    """Currents in units of the threshold, and what is fired, ``[T, B, ...]``, by site."""
    seen, handles = {}, []
    for name, site in sites(snn).items():

        def keep(module, inputs, output, name=name):
            seen[name] = inputs[0] / module.v_threshold, output

        handles.append(site.register_forward_hook(keep))
    yield seen
    for handle in handles:
        handle.remove()


def make(net, method, time_steps, calibration=None, **settings):
    return convert(net, method, time_steps, calibration, input_size=SIZE, progress=False, **settings)


def with_levels(net, levels):
    """The same source with another L."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        if isinstance(module, QCFS):
            module.levels = levels
    return twin


@pytest.mark.parametrize("levels", [1, 3, 4, 8])
def test_first_site_is_lossless(make_qcfs_net, images, levels):
    """A network whose only site is the first one equals its source at T = L."""
    layers = list(make_qcfs_net(levels=levels))[:4]
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(216, 5)).double().eval()
    x = images().double()
    torch.testing.assert_close(make(net, "qcfs", levels)(x), net(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_parallel_is_lossless_at_t_equal_to_l(make_qcfs_net, images, seed):
    net = make_qcfs_net(seed)
    torch.testing.assert_close(make(net, "parallel", 4)(images()), net(images()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rho", [3, 4])
def test_iterated_cos_is_lossless_at_t_equal_to_rho(make_qcfs_net, images, rho):
    net = make_qcfs_net(levels=4).double()
    x = images().double()
    snn = make(net, "cos", rho, rho=rho, iterations=rho)
    torch.testing.assert_close(snn(x), with_levels(net, rho)(x), rtol=0, atol=1e-9)


def test_cos_without_iterations_is_qcfs(qcfs_net, images):
    plain, calibrated = make(qcfs_net, "qcfs", 6), make(qcfs_net, "cos", 6, rho=4, iterations=0)
    assert torch.equal(plain(images(), steps=True), calibrated(images(), steps=True))


def test_one_iteration_leaves_settled_neurons_alone(qcfs_net, images):
    snn = make(qcfs_net, "cos", 4, rho=4)
    with watching(snn) as seen:
        snn(images())
    for currents, _ in seen.values():
        v = 0.5 + currents.sum(0) - make_spikes(currents).sum(0)
        v0 = initial_membrane(currents, 4, 1)
        assert bool((v0[(v >= 0) & (v < 1)] == 0.5).all())
        assert bool((v0[v >= 1] > 0.5).all())


def make_spikes(currents):
    v, spikes = torch.full_like(currents[0], 0.5), []
    for x in currents:
        v = v + x
        spikes.append((v >= 1).to(v))
        v = v - spikes[-1]
    return torch.stack(spikes)


def test_srp_rehearses_as_qcfs_and_masks(qcfs_net, images):
    tau, T = 4, 5
    snn = make(qcfs_net, "srp", T, tau=tau)
    plain = make(qcfs_net, "qcfs", tau)
    with watching(snn) as seen, watching(plain) as unmasked:
        snn(images())
        plain(images())
    for name, (currents, fired) in seen.items():
        assert torch.equal(fired[:tau], unmasked[name][1]), "no mask is active anywhere in the rehearsal"
        mask = srp(currents, tau)[1]
        spikes = make_spikes(currents[:tau])
        v = 0.5 + currents[:tau].sum(0) - spikes.sum(0)
        assert bool((mask == (v > MARGIN)).float().mean() > 0.999)  # v is summed in another order
        silent = ~mask
        assert not bool(fired[tau:, silent].any())
        wanted = (currents[:tau].sum(0) + 0.5).floor().clamp(0, tau)
        debtors = (wanted == 0) & (spikes.sum(0) > 0)
        assert not bool((debtors & mask).any())


def test_srp_without_rehearsal_is_qcfs(qcfs_net, images):
    plain, zero = make(qcfs_net, "qcfs", 5), make(qcfs_net, "srp", 5, tau=0)
    assert torch.equal(plain(images(), steps=True), zero(images(), steps=True))


def test_parallel_spikes_are_sorted(qcfs_net, images):
    snn = make(qcfs_net, "parallel", 5)
    with watching(snn) as seen:
        snn(images())
    for _, fired in seen.values():
        assert bool((fired[1:] <= fired[:-1]).all())


def test_calibrated_parallel_is_the_calibrated_source(make_qcfs_net, images):
    net = make_qcfs_net(levels=8)
    snn = make(net, "parallel", 3, images(8), passes=20)
    assert any(bool(s.phi_in.any()) for s in sites(snn).values() if s.phi_in is not None)
    plain = make(net, "parallel", 3)
    assert not torch.equal(snn(images(8)), plain(images(8)))
    for site in sites(snn).values():
        if site.phi_in is not None:
            site.phi_in.zero_()
            site.phi_out.zero_()
    assert torch.equal(snn(images(8)), plain(images(8)))


def test_copies_that_agree_need_no_corrections(make_qcfs_net, images):
    snn = make(make_qcfs_net(levels=4), "parallel", 4, images(8), passes=3)
    assert not any(
        bool(s.phi_in.any() | s.phi_out.any()) for s in sites(snn).values() if s.phi_in is not None
    )


def test_corrections_approach_a_constant_mismatch(qcfs_net, images):
    """The first site sees the same currents in both copies; its phi_out follows one constant mismatch."""
    batches = 12
    found = {}
    for passes in (1, batches):
        snn = make(qcfs_net, "parallel", 2, images(8), passes=passes)
        first = next(iter(sites(snn).values()))
        assert not bool(first.phi_in.any())
        found[passes] = first.phi_out / (1 - MOMENTUM)
    assert bool(found[1].any())
    assert bool((found[batches].abs() <= batches * found[1].abs().amax() + 1e-6).all())


def test_training_free_conversion_approaches_the_source(relu_net, images):
    x = images(6)
    errors = []
    for T in (4, 32, 256):
        snn = convert(relu_net, "parallel", T, x, progress=False)
        for site in sites(snn).values():
            if site.phi_in is not None:
                site.phi_in.zero_()
                site.phi_out.zero_()
        errors.append(float((snn(x) - relu_net(x)).abs().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * float(relu_net(x).abs().mean())


def test_thresholds_grow_with_the_calibration_set(relu_net, images):
    x = images(12)
    small = convert(relu_net, "parallel", 4, x[:4], progress=False)
    large = convert(relu_net, "parallel", 4, x, progress=False)
    for few, many in zip(sites(small).values(), sites(large).values(), strict=True):
        assert bool((many.v_threshold >= few.v_threshold).all())


@pytest.mark.slow
def test_methods_come_in_the_expected_order(make_qcfs_net, images):
    """On average over networks: parallel and iterated COS lose nothing, COS less than QCFS."""
    runs = {
        "parallel": ("parallel", {}),
        "iterated": ("cos", {"rho": 4, "iterations": 4}),
        "cos": ("cos", {"rho": 4}),
        "qcfs": ("qcfs", {}),
    }
    errors = dict.fromkeys(runs, 0.0)
    for seed in range(4):
        net = make_qcfs_net(seed).double()
        for module in net:
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight *= 4  # large currents of both signs arrive unevenly
        x = images().double()
        for name, (method, settings) in runs.items():
            errors[name] += float((make(net, method, 4, **settings)(x) - net(x)).abs().mean())
    assert max(errors["parallel"], errors["iterated"]) < 1e-9
    assert errors["qcfs"] > 1e-9
    assert errors["cos"] < errors["qcfs"]
