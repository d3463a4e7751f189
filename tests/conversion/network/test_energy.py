"""Counts of operations against the definition, and the published ratio."""

import pytest
import torch
from oracles.compensation import compensate_product
from torch import nn
from torch.nn import functional as F

import spiking
from conversion import convert
from conversion.network import operation as energy
from spiking.functional import multi_threshold
from spiking.levels import Levels
from spiking.measure.operations import sent_before


def spikes(*shape, seed=0, share=0.3):
    generator = torch.Generator().manual_seed(seed)
    sent = torch.rand(shape, generator=generator) < share
    return sent * torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    ("channels", "out", "settings"),
    [
        (4, 6, {}),
        (4, 6, {"stride": 2, "padding": 1}),
        (4, 8, {"groups": 2, "padding": (2, 1), "dilation": 2}),
        (4, 4, {"groups": 4, "stride": (1, 2)}),
    ],
)
def test_convolutions(channels, out, settings):
    x, weight = spikes(5, 2, channels, 7, 8), torch.randn(out, channels // settings.get("groups", 1), 3, 2)
    sop, mac = energy.conv_operations(x, weight, **settings)
    for t in range(5):
        counted = F.conv2d((x[t] != 0).float(), torch.ones_like(weight), **settings).sum()
        dense = F.conv2d(torch.ones_like(x[t]), torch.ones_like(weight), **settings).sum()
        assert sop[t] == counted
        assert mac[t] == dense
    full, same = energy.conv_operations(torch.ones_like(x), weight, **settings)
    assert torch.equal(full, same)
    assert torch.equal(same, mac)
    assert (sop < mac).all()


def test_linear_layers_and_products():
    x = spikes(5, 2, 3, 7)
    sop, mac = energy.linear_operations(x, 4)
    assert sop.tolist() == [float((x[t] != 0).sum() * 4) for t in range(5)]
    assert mac.tolist() == [2 * 3 * 7 * 4.0] * 5
    full, _ = energy.linear_operations(torch.ones_like(x), 4)
    assert torch.equal(full, mac)
    a, b = spikes(5, 2, 3, 6, 7), spikes(5, 2, 3, 7, 4, seed=1)
    sums_a, sums_b = a.cumsum(0), b.cumsum(0)
    sop, mac = energy.product_operations(a, b, sums_a, sums_b)
    masks = [(m != 0).double() for m in (a, b, sums_a, sums_b)]
    for t in range(5):
        now_a, now_b, all_a, all_b = (m[t] for m in masks)
        assert sop[t] == (now_a @ now_b + now_a @ all_b + all_a @ now_b).sum()
        assert mac[t] == a[0].numel() * b.shape[-1]
    full, _ = energy.product_operations(*[torch.ones_like(t) for t in (a, b, a, b)])
    assert torch.equal(full, 3 * mac), "three partial products: a rate above 1 is possible"
    silent = torch.zeros_like(a)
    first, _ = energy.product_operations(torch.ones_like(a), torch.ones_like(b), silent, torch.zeros_like(b))
    assert torch.equal(first, mac)


def test_what_was_sent_before():
    x = torch.tensor([[0.0, 1.0], [2.0, -1.0], [0.0, 0.0]])
    assert sent_before(x).tolist() == [[False, False], [False, True], [True, True]]


def test_the_published_ratio():
    """A log of 16 steps that DCGS's authors left in the configuration of a ResNet."""
    rate = [
        0.4526, 0.4611, 0.4387, 0.4157, 0.3888, 0.3602, 0.3315, 0.3047,
        0.282, 0.2624, 0.2457, 0.2308, 0.218, 0.2064, 0.1964, 0.1872,
    ]  # fmt: skip
    ratio = [
        0.0885, 0.1804, 0.2575, 0.3254, 0.3804, 0.4228, 0.454, 0.477,
        0.4966, 0.5133, 0.5289, 0.542, 0.5544, 0.5654, 0.5763, 0.5861,
    ]  # fmt: skip
    found = energy.energy_ratio(torch.tensor(rate))
    torch.testing.assert_close(found, torch.tensor(ratio), rtol=0, atol=5e-4)  # of four digits, times t


def test_rates_are_those_of_all_layers_up_to_t():
    one = torch.tensor([4.0, 0.0]), torch.tensor([8.0, 8.0])
    other = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0])
    torch.testing.assert_close(energy.mean_rate([one, other]), torch.tensor([0.5, 0.4]))


def test_the_full_ratio_charges_what_the_published_one_leaves_out():
    sop, nothing = torch.tensor([500.0, 300.0]), torch.zeros(2)
    published = energy.energy_ratio((sop / 1000).cumsum(0) / torch.tensor([1.0, 2.0]))
    bare = energy.full_energy_ratio(sop, nothing, nothing, nothing, ann_macs=1000.0, ann_evaluations=0.0)
    torch.testing.assert_close(bare, published)
    values, neurons = torch.tensor([50.0, 50.0]), torch.tensor([200.0, 200.0])
    image = torch.tensor([400.0, 0.0])
    full = energy.full_energy_ratio(sop, image, values, neurons, ann_macs=1000.0, ann_evaluations=50.0)
    spent = torch.tensor([0.9 * 700 + 4.6 * 450, 0.9 * 500 + 4.6 * 50]).cumsum(0)
    torch.testing.assert_close(full, spent / (4.6 * 1050))
    assert (full > bare).all()


def test_counting_changes_nothing():
    x = spikes(4, 2, 5, 6)
    levels = Levels.largest(1.0, 4)
    s = multi_threshold.rate_coded(x, levels)[0]
    kept, y = s.clone(), compensate_product(s, s.transpose(-2, -1))[0]
    energy.linear_operations(s, 3)
    energy.product_operations(s, s.transpose(-2, -1), s.cumsum(0), s.transpose(-2, -1).cumsum(0))
    assert torch.equal(s, kept)
    assert torch.equal(compensate_product(s, s.transpose(-2, -1))[0], y)


def test_activations_that_stay_real_valued_are_named():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ]
    net, x = nn.Sequential(*layers).eval(), torch.randn(4, 3, 8, 8)
    report = spiking.profile_energy(convert(net, "qcfs", 4, x, progress=False), x)
    assert report.analog_activations == ("hardswish",)
    assert "real-valued activations, without neurons: hardswish" in str(report)
    net[3] = nn.ReLU().eval()
    report = spiking.profile_energy(convert(net, "qcfs", 4, x, progress=False), x)
    assert not report.analog_activations
    assert "real-valued activations" not in str(report)
