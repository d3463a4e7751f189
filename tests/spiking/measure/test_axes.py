"""Which axis is time: said, known or seen; never guessed from the number of axes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spiking
from spiking.layers import fold_time
from spiking.measure.counter import OperationCounter, profile_energy


class Sequence(nn.Module):
    """A convolution over samples of a signal, ``[T, B, C, L]``."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 5), nn.Conv1d(8, 16, 5, stride=2)
        self.neuron = spiking.LIF(v_threshold=0.2)

    def forward(self, x):
        self.spikes = self.neuron(fold_time(self.a, x))
        return fold_time(self.b, self.spikes)


class Perceptron(nn.Module):
    """``[T, B, N]``, or ``[B, N]`` that is repeated."""

    def __init__(self, time_steps=None):
        super().__init__()
        self.first, self.neuron, self.second = nn.Linear(6, 5), spiking.LIF(v_threshold=0.2), nn.Linear(5, 3)
        self.repeats = 4 if time_steps is None else time_steps
        if time_steps:
            self.time_steps = time_steps

    def forward(self, x):
        x = self.first(x)
        self.spikes = self.neuron(x if x.dim() == 3 else x.expand(self.repeats, *x.shape))
        return self.second(self.spikes).mean(0)


@pytest.mark.parametrize("said", [None, 0, True])
@pytest.mark.parametrize("T", [6, 2])
def test_sequences_of_signals(said, T):
    torch.manual_seed(0)
    model, x = Sequence().eval(), torch.randn(T, 2, 4, 50)
    report = profile_energy(model, x, time_axis=said)
    right = nn.functional.conv1d(model.spikes.flatten(0, 1), torch.ones(16, 8, 5), stride=2).sum().item() / 2
    assert report.samples == 2
    assert report.sops == pytest.approx(right)
    assert right > 0
    assert [row.ann_macs for row in report.rows] == [46 * 8 * 4 * 5, 21 * 16 * 8 * 5]
    assert report.macs == T * 46 * 8 * 4 * 5


@pytest.mark.parametrize("said", [None, 0])
def test_perceptrons_over_time(said):
    model = Perceptron().eval()
    report = profile_energy(model, torch.randn(5, 3, 6), time_axis=said)
    assert report.samples == 3
    assert report.rows[0].macs == 5 * 30
    assert report.rows[1].sops == pytest.approx(model.spikes.sum().item() * 3 / 3)
    assert report.ann_macs == 30 + 15


@pytest.mark.parametrize("said", [None, False])
@pytest.mark.parametrize("stated", [None, 4])
def test_perceptrons_that_encode(said, stated):
    model = Perceptron(stated).eval()
    report = profile_energy(model, torch.randn(7, 6), time_axis=said)
    assert report.samples == 7
    assert report.rows[0].macs == report.rows[0].ann_macs == 30, "the first layer runs once"
    assert (report.rows[1].dense_macs, report.rows[1].ann_macs) == (4 * 15, 15)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 4, 8, 8), (2, 2, 8, 8)])
def test_still_images_whatever_their_number(shape):
    class Net(nn.Module):
        time_steps = 4

        def __init__(self):
            super().__init__()
            self.stem, self.neuron = nn.Conv2d(shape[1], 4, 3), spiking.LIF(v_threshold=0.2)
            self.head = nn.Linear(4 * 36, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.neuron(x.expand(4, *x.shape)).flatten(2)).mean(0)

    report = profile_energy(Net().eval(), torch.randn(shape))
    assert report.samples == shape[0]
    assert report.rows[0].macs == report.rows[0].ann_macs == 36 * 4 * shape[1] * 9
    assert report.rows[1].ann_macs == 4 * 36 * 3


def test_networks_without_neurons_take_batches():
    conv = nn.Sequential(nn.Conv1d(4, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 46, 3))
    report = profile_energy(conv, torch.randn(6, 4, 50))
    assert (report.samples, report.macs) == (6, 46 * 8 * 20 + 8 * 46 * 3)
    assert report.macs == report.ann_macs
    video = nn.Conv3d(3, 4, 3)
    assert profile_energy(video, torch.randn(2, 3, 5, 8, 8)).samples == 2


def test_a_batch_axis_in_front():
    class BatchFirst(Perceptron):
        def forward(self, x):
            return super().forward(x.transpose(0, 1))

    report = profile_energy(BatchFirst().eval(), torch.randn(3, 5, 6), time_axis=1)
    assert (report.samples, report.ann_macs) == (3, 45)


def test_steps_that_the_model_takes_one_by_one():
    class Loop(Perceptron):
        def forward(self, x):
            with spiking.streaming(self):
                return torch.cat([self.second(self.neuron(self.first(step)[None])) for step in x]).mean(0)

    report = profile_energy(Loop().eval(), torch.randn(5, 3, 6))
    assert (report.samples, report.ann_macs) == (3, 45)
    assert report.rows[0].macs == 5 * 30


def test_what_can_be_read_either_way_is_an_error():
    model, x = Perceptron().eval(), torch.randn(4, 4, 6)
    with pytest.raises(ValueError, match=r"\(4, 4, 6\) of Perceptron .* say time_axis=0 .* time_axis=False"):
        profile_energy(model, x)
    assert profile_energy(model, x, time_axis=0).ann_macs == 45
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

    class Stated(nn.Linear):
        time_steps = 3

    with pytest.raises(ValueError, match="say time_axis=0"):
        profile_energy(Stated(6, 2), torch.randn(3, 2, 6))
    assert profile_energy(Stated(6, 2), torch.randn(2, 3, 6)).samples == 2
    with pytest.raises(ValueError, match=r"time_axis must be 0 .* got 2"):
        profile_energy(model, x, time_axis=2)


def test_metrics_and_batches_go_on_after_an_error():
    model = Perceptron().eval()
    with OperationCounter(model) as counter:
        with pytest.raises(RuntimeError):
            model(torch.randn(5, 3, 7))
        model(torch.randn(5, 3, 6))
    assert (counter.samples, counter.report().ann_macs) == (3, 45)
