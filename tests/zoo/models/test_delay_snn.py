"""Synapses with delays: what they compute, that they learn their delays, and that they stream."""

import pytest
import torch

import zoo
from spiking import streaming
from zoo.layers.delays import DelayedLinear


def delayed(weight, delay, taps=6, width=0.05):
    """One connection; with a narrow Gaussian a whole delay hits one step."""
    layer = DelayedLinear(1, 1, taps, width)
    layer.weight.data.fill_(weight)
    layer.delay.data.fill_(delay)
    return layer


def impulse(T=8):
    x = torch.zeros(T, 1, 1, 1, 1)
    x[1] = 1.0
    return x


@pytest.mark.parametrize("delay", [0, 1, 3, 5])
def test_a_whole_delay_hands_on_later(delay):
    y = delayed(2.5, delay)(impulse()).flatten()
    want = torch.zeros(8)
    want[1 + delay] = 2.5
    torch.testing.assert_close(y, want)


def test_a_delay_between_steps_is_shared_and_keeps_its_weight():
    y = delayed(1.0, 2.5, width=0.75)(impulse(12)).flatten().detach()
    assert float(y[3]) == pytest.approx(float(y[4]))
    assert y.argmax() in (3, 4)
    assert float(y.sum()) == pytest.approx(1.0)


def test_many_connections_are_a_sum():
    torch.manual_seed(0)
    layer = DelayedLinear(3, 4, 5)
    x = torch.randn(7, 2, 3, 2, 1)
    kernel, y = layer.kernel(), layer(x)
    want = torch.zeros_like(y)
    for t in range(7):
        for d in range(min(t, 4) + 1):
            want[t] += torch.einsum("oc,bchw->bohw", kernel[:, :, d], x[t - d])
    torch.testing.assert_close(y, want)


def test_a_delay_is_learnt():
    layer = delayed(1.0, 1.0, width=0.75)
    optimizer = torch.optim.Adam([layer.delay], lr=0.1)
    wanted = delayed(1.0, 3.0, width=0.75)(impulse()).detach()
    for _ in range(100):
        optimizer.zero_grad()
        ((layer(impulse()) - wanted) ** 2).sum().backward()
        optimizer.step()
    assert layer.delay.item() == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stream_remembers_what_is_still_on_its_way(chunk):
    torch.manual_seed(0)
    model = zoo.create("delay_snn_nano").eval()
    x = torch.poisson(torch.full((12, 2, 70, 1, 1), 0.5))
    with torch.no_grad():
        whole = model(x, steps=True)
        with streaming(model):
            parts = torch.cat([model(part, steps=True) for part in x.split(chunk)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    assert whole.std() > 0


def test_entries_know_their_sets():
    for name, channels, classes in (("nano", 70, 10), ("shd", 140, 20), ("ssc", 140, 35)):
        with torch.device("meta"):
            model = zoo.create(f"delay_snn_{name}")
        assert (model.in_chans, model.num_classes) == (channels, classes)
        assert model.default_cfg["input_size"] == (channels, 1, 1)


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="taps must be at least 1"):
        DelayedLinear(1, 1, 0)
    with pytest.raises(ValueError, match="width above 0"):
        DelayedLinear(1, 1, 2, 0.0)
