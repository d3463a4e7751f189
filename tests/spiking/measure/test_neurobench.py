"""Counts against those of NeuroBench 2.3.0 (arXiv 2304.04640), where both mean the same.

NeuroBench leaves out zero padding, and inputs and weights that are zero, and takes an input that is neither
0, 1 nor -1 for a multiplication. So both mean the same for plain spikes, dense weights, and images without a
zero. Weights and inputs are multiples of 1/16, whose sums are exact in any order.

The numbers below are what NeuroBench printed for these networks; the last test asks it again, where it is
installed (``pip install --no-deps neurobench`` and what it then misses; it brings packages under the GPL).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spiking
import zoo
from datamodules import MNIST5kDataModule
from spiking.measure.counter import OperationCounter

T, B = 3, 2


def fractions(*shape: int, seed: int) -> torch.Tensor:
    """Odd multiples of 1/16 between -1 and 1, so that none is zero."""
    draw = torch.Generator().manual_seed(seed)
    return (2 * torch.randint(-8, 8, shape, generator=draw) + 1) / 16


class Network(nn.Module):
    """Padding, strides, groups, dilation and linear layers: ``[B, (T,) 2, 9, 9]`` to ``[B, 5]``."""

    def __init__(self) -> None:
        super().__init__()
        self.time_steps = T
        self.stem, self.first = nn.Conv2d(2, 4, 3, padding=1), spiking.IF()
        self.conv, self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), spiking.IF()
        self.wide, self.third = nn.Conv2d(6, 4, 3, padding=2, dilation=2, bias=False), spiking.IF()
        self.hidden, self.fourth = nn.Linear(4 * 5 * 5, 12), spiking.IF()
        self.head = nn.Linear(12, 5)
        for i, parameter in enumerate(self.parameters()):
            parameter.data = fractions(*parameter.shape, seed=i)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(0, 1) if x.dim() == 5 else x.unsqueeze(0)
        x = self.stem(x.flatten(0, 1)).unflatten(0, (-1, B))
        x = self.first(x.expand(T, *x.shape[1:]))
        for layer, neuron in ((self.conv, self.second), (self.wide, self.third)):
            x = neuron(layer(x.flatten(0, 1)).unflatten(0, (T, B)))
        x = self.fourth(self.hidden(x.flatten(2)))
        return self.head(x).mean(0)


INPUTS = {
    "image": fractions(B, 2, 9, 9, seed=100),
    "frames": (fractions(B, T, 2, 9, 9, seed=101) > 0.4).float(),
}
COUNTED = {  # NeuroBench 2.3.0, Python 3.11, torch 2.14.1
    "image": {
        "Effective_MACs": 5000.0,
        "Effective_ACs": 6175.5,
        "Dense": 23576.0,
        "ActivationSparsity": 1 - 1247 / 3516,
    },
    "frames": {
        "Effective_MACs": 0.0,
        "Effective_ACs": 7219.5,
        "Dense": 33576.0,
        "ActivationSparsity": 1 - 435 / 3516,
    },
}


def ours(model: nn.Module, x: torch.Tensor, frames: bool = False) -> dict[str, float]:
    """The same quantities, for one sample over all steps; products are left out."""
    with (
        torch.no_grad(),
        OperationCounter(model, time_axis=1 if frames else False) as counter,
        spiking.FiringRateMonitor(model) as monitor,
    ):
        model(x)
    rows = [row for row in counter.report().rows if row.kind != "matmul"]
    return {
        "Effective_MACs": sum(row.macs * (1 - row.padding) for row in rows),
        "Effective_ACs": sum(row.sops * (1 - row.padding) for row in rows),
        "Dense": sum(row.dense_macs * (1 - row.padding) for row in rows),
        "ActivationSparsity": 1 - monitor.rate(),
    }


def theirs(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """What NeuroBench counts."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    network = TorchModel(model)
    for kind in {type(m) for m in model.modules() if isinstance(m, spiking.Neuron)}:
        network.add_activation_module(kind)
    data = torch.utils.data.TensorDataset(x, torch.zeros(len(x)))
    loader = torch.utils.data.DataLoader(data, batch_size=len(x))
    metrics = [[], [SynapticOperations, ActivationSparsity]]
    found = Benchmark(network, loader, [], [lambda y: y.argmax(-1)], metrics).run(quiet=True)
    return {**found["SynapticOperations"], "ActivationSparsity": found["ActivationSparsity"]}


@pytest.mark.parametrize("kind", INPUTS)
def test_the_counts_are_those_of_neurobench(kind):
    found = ours(Network().eval(), INPUTS[kind], kind == "frames")
    assert found == pytest.approx(COUNTED[kind], rel=1e-9)


@pytest.mark.parametrize("kind", INPUTS)
def test_neurobench_still_counts_so(kind):
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    assert theirs(Network().eval(), INPUTS[kind]) == pytest.approx(COUNTED[kind], rel=1e-9)


def test_a_trained_transformer():
    """Between the stem and the classifier of SpikingResformer there are plain spikes and nothing else."""
    pytest.importorskip("neurobench", reason="NeuroBench is not installed")
    model = zoo.load("spikingresformer_nano")
    digits = MNIST5kDataModule(eval_batch_size=8)
    digits.prepare_data()
    digits.setup("test")
    x, _ = next(iter(digits.test_dataloader()))
    assert ours(model, x) == pytest.approx(theirs(model, x), rel=1e-9)
