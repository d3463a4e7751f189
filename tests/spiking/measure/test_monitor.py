"""Firing rates by hooks: numbers, steps, rasters, sums over processes, nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spiking
from spiking.layers import FoldTime
from spiking.measure.monitor import FiringRateMonitor


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        FoldTime(nn.Conv2d(2, 4, 3)), spiking.LIF(), FoldTime(nn.Conv2d(4, 3, 3)), spiking.IF()
    ).eval()


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_rates_are_means_of_spikes_over_all_calls():
    model, x = network(), torch.randn(4, 3, 2, 8, 8) * 3
    first = model[1](model[0](x))
    second = model[3](model[2](first))
    with FiringRateMonitor(model) as monitor, torch.no_grad():
        whole = model(x)
        model(x[:, :1])  # another batch size
    assert torch.equal(whole, second)
    seen = torch.cat([first, first[:, :1]], 1)
    assert 0 < seen.mean() < 1
    assert monitor.rates()["1"] == pytest.approx(seen.double().mean().item(), abs=1e-12)
    assert list(monitor.rates()) == ["1", "3"]
    torch.testing.assert_close(monitor.rates_per_step()["1"], seen.double().mean((1, 2, 3, 4)))
    counts = monitor.counts()
    assert counts.shape == (2, 4, 2)
    assert counts[0, :, 0].sum() == seen.sum()
    assert counts[0, :, 1].sum() == seen.numel()
    every = counts.sum((0, 1))
    assert monitor.rate() == pytest.approx((every[0] / every[1]).item())


def test_sequences_of_unequal_length():
    neuron = spiking.IF()
    with FiringRateMonitor(neuron) as monitor:
        neuron(torch.ones(3, 1, 5))
        neuron(torch.zeros(1, 1, 5))
        neuron(torch.ones(2, 1, 5))
    assert monitor.rates_per_step()[""].tolist() == pytest.approx([2 / 3, 1.0, 1.0])
    assert monitor.rates() == {"": pytest.approx(25 / 30)}


def test_half_precision_is_counted_exactly():
    neuron = spiking.IF()
    with FiringRateMonitor(neuron) as monitor:
        neuron(torch.ones(1, 1, 5000, dtype=torch.bfloat16))  # a bfloat16 sum would say 4992
    assert monitor.counts()[0, 0].tolist() == [5000.0, 5000.0]


def test_two_processes_sum_their_counts():
    model, x = network(), torch.randn(3, 4, 2, 8, 8) * 3
    with FiringRateMonitor(model) as left:
        model(x[:, :1])
    with FiringRateMonitor(model) as right, FiringRateMonitor(model) as both:
        model(x[:, 1:])
    with both:
        model(x[:, :1])
    other = right.counts()
    assert left.rates(lambda t: t + other.sum(1)) == pytest.approx(both.rates())
    assert left.rate(lambda t: t + other.sum((0, 1))) == pytest.approx(both.rate())
    for name, steps in left.rates_per_step(lambda t: t + other).items():
        torch.testing.assert_close(steps, both.rates_per_step()[name])


def test_a_layer_that_did_not_run_holds_zeros_for_the_sum():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = spiking.IF(), spiking.IF()

        def forward(self, x):
            return self.a(x)

    model = Half()
    with FiringRateMonitor(model) as monitor:
        model(torch.ones(2, 1, 1))
    assert monitor.rates() == {"a": 1.0}
    assert monitor.counts()[1].tolist() == [[0, 0], [0, 0]]


def test_raster_holds_sample_zero_of_the_first_call():
    model, x = network(), torch.randn(4, 3, 2, 8, 8) * 3
    with FiringRateMonitor(model, raster=["1"]) as monitor:
        model(x)
        model(torch.zeros_like(x))
    assert list(monitor.rasters()) == ["1"]
    assert torch.equal(monitor.rasters()["1"], model[1](model[0](x))[:, 0].flatten(1))
    with FiringRateMonitor(model, raster=True) as monitor:
        model(x)
    assert {k: tuple(v.shape) for k, v in monitor.rasters().items()} == {"1": (4, 144), "3": (4, 48)}


def test_hooks_go_away_also_after_an_exception():
    model = network()
    with FiringRateMonitor(model):
        assert hooks(model) == 3
    assert hooks(model) == 0
    with pytest.raises(ZeroDivisionError), FiringRateMonitor(model):
        raise ZeroDivisionError
    assert hooks(model) == 0


def test_gradients_and_outputs_are_untouched():
    model, x = network(), torch.randn(2, 1, 2, 8, 8).requires_grad_()
    plain = torch.autograd.grad(model(x).sum(), x)[0]
    with FiringRateMonitor(model, raster=True):
        watched = torch.autograd.grad(model(x).sum(), x)[0]
    assert torch.equal(plain, watched)


@pytest.mark.compile
def test_a_compiled_model_is_counted():
    model = network()
    fast = torch.compile(model, backend="aot_eager")
    x = torch.randn(2, 1, 2, 8, 8) * 3
    with torch.no_grad():
        fast(x)
        with FiringRateMonitor(fast) as monitor:
            fast(x)
        with FiringRateMonitor(model) as plain:
            model(x)
    assert monitor.rates() == plain.rates()


def test_errors_name_the_thing():
    with pytest.raises(ValueError, match="contains no spiking neurons"):
        FiringRateMonitor(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"no neuron at '2'; the neurons are 1, 3"):
        FiringRateMonitor(network(), raster=["2"])
    monitor = FiringRateMonitor(network())
    assert monitor.rates() == {}
    with pytest.raises(RuntimeError, match="no neuron has run"):
        monitor.rate()
    with monitor, pytest.raises(RuntimeError, match="already active"):
        monitor.__enter__()
