"""DCGS's levels above the threshold: what a differential neuron reaches without them, and with them."""

import pytest
import torch
from torch import nn

from conversion import convert
from conversion.convert import rebuild
from conversion.methods.dcgs import DCGSConversion
from conversion.network.clock import Clock
from conversion.network.site import Activation, SiteSpec, sites


class Gated(nn.Module):
    """A squeeze-and-excitation one of whose channels is far larger than all others."""

    def __init__(self, width=64):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.reduce, self.expand = nn.Conv2d(width, 8, 1), nn.Conv2d(8, width, 1)
        self.project, self.head = nn.Conv2d(width, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = nn.functional.silu(self.stem(x))
        gate = self.expand(nn.functional.relu(self.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head(self.project(x * gate).relu().mean((2, 3)))


def gated(loud):
    torch.manual_seed(0)
    model = Gated().eval()
    with torch.no_grad():
        model.stem.weight[0] *= loud
        model.reduce.weight[:, 0] *= 20 / loud  # it counts as much as twenty others
        model.project.weight[:, 0] *= 20 / loud
    return model, torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_value_goes_no_further_than_the_largest_level_over_all_steps():
    """In closed form: ``theta (1 + 1/2 + ... + 1/T)``, with the same level sent at every step."""
    model, x = gated(1.0)
    far = 40.0  # thresholds
    for headroom in (0, 5):
        snn = convert(model, "dcgs", 1, x, headroom=headroom, threshold="max", progress=False)
        site = next(iter(sites(snn).values()))
        for time_steps in (1, 4, 16, 64):
            signal = (far * site.v_threshold).expand(time_steps, 1, *site.shape)
            reached = site.run(signal, None, False)[0][-1] / site.v_threshold
            wanted = far if headroom else sum(1 / t for t in range(1, time_steps + 1))
            tolerance = 0.3 if headroom and time_steps == 1 else 0.02  # the nearest level of one step
            torch.testing.assert_close(reached, torch.full_like(reached, wanted), rtol=tolerance, atol=0.0)


@torch.no_grad()
def test_quiet_neurons_stay_as_they_are():
    """The smallest level and all that is below the threshold do not depend on what is above it."""
    model, x = gated(1.0)
    signals = None
    for headroom in (0, 8):
        snn = convert(model, "dcgs", 8, x, headroom=headroom, threshold="max", progress=False)
        site = next(iter(sites(snn).values()))
        size = (8, 2, *site.shape)
        values = torch.rand(size, generator=torch.Generator().manual_seed(0)) * site.v_threshold * 0.1
        sent = site.run(values, None, False)[0]
        assert signals is None or torch.equal(sent, signals)
        signals = sent


@torch.no_grad()
def test_a_loud_channel_arrives():
    model, x = gated(300.0)
    expected = model(x)
    errors = {}
    for headroom in (0, None):
        snn = convert(model, "dcgs", 16, x, headroom=headroom, threshold="95%", progress=False)
        errors[headroom] = float((snn(x) - expected).norm() / (expected - expected.mean()).norm())
    assert errors[None] < 0.02 < 0.1 < errors[0]


@pytest.mark.parametrize(
    ("settings", "headroom"),
    [
        ({}, 8),
        ({"levels": 20}, 4),
        ({"levels": 0}, 0),
        ({"headroom": 2}, 2),
        ({"policy": "official-cnn"}, 0),
        ({"policy": "official-transformer"}, 0),
    ],
    ids=str,
)
def test_policies_as_published_have_none(settings, headroom):
    spec = SiteSpec(name="relu", activation=Activation(kind="relu"), shape=(3,))
    assert DCGSConversion(**settings).site(spec, Clock(1)).headroom == headroom


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"headroom": -1}, "headroom must be an integer of at least 0"),
        ({"headroom": 1, "levels": 0}, "one threshold, above which there is no headroom"),
        ({"headroom": 12, "levels": 13}, "more than 24 levels a side"),
    ],
)
def test_values_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        DCGSConversion(**settings)


@torch.no_grad()
def test_networks_of_earlier_versions_keep_their_levels():
    model, x = gated(1.0)
    recipe = convert(model, "dcgs", 1, x, progress=False).recipe
    assert {site.headroom for site in sites(rebuild(model, recipe)).values()} == {8}
    earlier = {k: v for k, v in recipe["settings"].items() if k != "headroom"}
    rebuilt = rebuild(model, {**recipe, "settings": earlier})
    assert {site.headroom for site in sites(rebuilt).values()} == {0}
