"""Recurrent layers are unrolled over their sequence: linear layers with neurons, and gates."""

import pytest
import torch
from torch import nn

from conversion import convert

IMAGES = torch.randn(6, 3, 4, 8, generator=torch.Generator().manual_seed(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 6, 4, 2), nn.Linear(5, 4)
        self.layer = getattr(nn, kind)(6, 5, batch_first=True)

    def forward(self, x):
        x = self.stem(x).relu().flatten(2).transpose(1, 2)
        return self.head(self.layer(x)[0].mean(1))


@pytest.mark.parametrize("kind", ["LSTM", pytest.param("GRU", marks=pytest.mark.slow)])
def test_recurrent_layers_are_unrolled(kind):
    ann = Recurrent(kind).eval()
    snn = convert(ann, "dcgs", 32, IMAGES, progress=False)
    with torch.no_grad():
        expected = ann(IMAGES)
        assert float((snn(IMAGES) - expected).norm() / (expected - expected.mean()).norm()) < 0.01
    assert len(snn.report.rows) == 4, [r.name for r in snn.report.rows]  # the input, two states, the head
