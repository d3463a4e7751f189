"""DCGS's neurons in differential and in rate code: what the codes are, and how near each comes to the ANN."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import spiking
from conversion import convert
from conversion.network.site import sites
from spiking.reference import multi_threshold as reference

EVERYWHERE = {"policy": "official-transformer", "levels": 6}


class Mixed(nn.Module):
    """A layer, an exact function, a product of two signals, a ReLU and a head."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = F.gelu(self.first(x.flatten(2)))
        x = F.pad(x @ x.transpose(-2, -1), (0, 2))
        return self.head(self.second(x).relu()).mean(1)


def mixed(code, time_steps, **settings):
    torch.manual_seed(0)
    x = torch.randn(8, 4, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    model = Mixed().double().eval()
    return convert(model, "dcgs", time_steps, x, progress=False, code=code, **settings), x[:3]


def nearest(u, theta, n):
    """The level that a potential asks for, of an identity neuron: 2503.00301, the released code."""
    for level in (theta / 2**i for i in range(n)):
        if abs(u) >= 0.75 * level:
            return level if u > 0 else -level
    return 0.0


@torch.no_grad()
def test_rate_code_is_the_loop_over_steps():
    """A layer between two neurons, everything written out: charge, send, subtract; the mean of the logits."""
    T, n = 6, 3
    torch.manual_seed(0)
    ann = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)).double().eval()
    x = torch.randn(5, 1, 2, 2).double()
    snn = convert(
        ann, "dcgs", T, x, progress=False, code="rate", policy="official-transformer", levels=n, signed=False
    )
    first, second = (float(site.v_threshold) for site in sites(snn).values())
    for image in x:
        currents, v, w = image.flatten().tolist(), [0.0] * 4, [0.0] * 3
        arrived, before, total = torch.zeros(3).double(), torch.zeros(3).double(), torch.zeros(2).double()
        for t in range(1, T + 1):
            sent = []
            for i, current in enumerate(currents):
                v[i] += current
                sent.append(nearest(v[i], first, n))
                v[i] -= sent[-1]
            arrived += ann[1](torch.tensor(sent).double())
            exact = t * F.gelu(arrived / t)  # expectation compensation
            for i, current in enumerate((exact - before).tolist()):
                w[i] += current
            before = exact
            sent = [nearest(u, second, n) for u in w]
            w = [u - s for u, s in zip(w, sent, strict=True)]
            total += ann[3](torch.tensor(sent).double())
        torch.testing.assert_close(snn(image[None])[0], total / T)


@pytest.mark.parametrize("levels", [0, 4])
@torch.no_grad()
def test_neurons_in_rate_code_send_levels(levels):
    """IF with one threshold or several levels; ReLU and identity."""
    snn, x = mixed("rate", 8, levels=levels)
    seen = {}
    for name, site in sites(snn).items():
        site.register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    snn(x)
    assert {site.kind for site in sites(snn).values()} == {"identity", "relu"}
    for name, site in sites(snn).items():
        currents, sent = seen[name]
        expected = reference.rate_coded(currents, site.thresholds(), kind=site.kind)[0]
        assert torch.equal(sent, expected)
        steps = (sent.abs() / site.v_threshold).unique().log2()
        assert set(steps[steps.isfinite()].tolist()) <= {
            float(i) for i in range(1 - max(levels, 1), site.headroom + 1)
        }
        assert bool((sent != 0).any())


@pytest.mark.parametrize("code", ["differential", "rate"])
@torch.no_grad()
def test_a_code_can_stop_and_go_on(code):
    """T can be changed, the first steps are those of a longer run, and pieces of a stream are the whole."""
    snn, x = mixed(code, 8)
    whole = snn(x, steps=True)
    snn.time_steps = 3
    torch.testing.assert_close(snn(x, steps=True), whole[:3])
    torch.testing.assert_close(snn(x), whole[:3].mean(0))
    with spiking.streaming(snn):
        pieces = []
        for steps in (3, 4, 1):
            snn.time_steps = steps
            pieces.append(snn(x, steps=True))
    torch.testing.assert_close(torch.cat(pieces), whole)


@torch.no_grad()
def test_codes_agree_on_the_first_step_and_in_the_end():
    """With nothing sent before, there is nothing to correct (section 1 of 2503.00301)."""
    means = {}
    for code in ("differential", "rate"):
        snn, x = mixed(code, 256)
        steps = snn(x, steps=True)
        means[code] = steps.cumsum(0) / torch.arange(1, 257).view(-1, 1, 1)
    torch.testing.assert_close(means["differential"][0], means["rate"][0])
    torch.testing.assert_close(means["differential"][-1], means["rate"][-1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("code", ["differential", "rate"])
def test_gradients_reach_the_weights(code):
    snn, x = mixed(code, 4)
    snn(x).square().sum().backward()
    for name, parameter in snn.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(
    ("name", "arguments", "bound"),
    [
        ("resnet18", {}, 0.02),
        pytest.param("vit_tiny_patch16_224", {"img_size": 64}, 0.06, marks=pytest.mark.slow),
        pytest.param("convnext_atto", {}, 0.03, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_four_differential_steps_are_as_close_as_sixteen_of_rate_code(name, arguments, bound):
    """Random weights, random images; the network knows other images than it sees."""
    torch.manual_seed(0)
    ann = timm.create_model(name, num_classes=10, **arguments).eval()
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    calibration, x = images.chunk(2)
    expected = ann(x)

    def error(logits):
        return float((logits - expected).abs().mean() / expected.abs().mean())

    differential = convert(ann, "dcgs", 4, calibration, progress=False, **EVERYWHERE)
    rate = convert(ann, "dcgs", 16, calibration, progress=False, code="rate", **EVERYWHERE)
    fast, slow = error(differential(x)), error(rate(x))
    assert fast < bound
    assert fast < slow
    rate.time_steps = 4
    assert 2 * fast < error(rate(x))
    differential.time_steps = 16
    assert 3 * error(differential(x)) < slow
