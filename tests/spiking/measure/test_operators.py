"""Products that no layer of torch stands for: functions, attention, layers with a forward of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import spiking
from spiking.measure.counter import profile_energy


class Function(nn.Module):
    """A model that is a function of its input and a weight ``[6, 4]``."""

    def __init__(self, function):
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.randn(6, 4)), function

    def forward(self, x):
        return self.function(x, self.weight)


FUNCTIONS = {
    "linear": (lambda x, w: F.linear(x, w), 2 * 5 * 4 * 6),
    "matmul": (lambda x, w: x @ w.t(), 2 * 5 * 4 * 6),
    "matmul_left": (lambda x, w: w @ x.transpose(1, 2), 2 * 5 * 4 * 6),
    "einsum": (lambda x, w: torch.einsum("bnc,oc->bno", x, w), 2 * 5 * 4 * 6),
    "tensordot": (lambda x, w: torch.tensordot(x, w, ([2], [1])), 2 * 5 * 4 * 6),
    "vector": (lambda x, w: x @ w[0], 2 * 5 * 4),
    "bmm": (lambda x, w: torch.bmm(x, x.transpose(1, 2)), 2 * 5 * 5 * 4),
    "baddbmm": (lambda x, w: torch.baddbmm(torch.ones(5), x, x.transpose(1, 2)), 2 * 5 * 5 * 4),
    "gram": (lambda x, w: torch.einsum("bnc,bmc->bnm", x, x), 2 * 5 * 5 * 4),
    "conv1d": (lambda x, w: F.conv1d(x.transpose(1, 2), w[..., None].expand(6, 4, 3)), 2 * 3 * 3 * 4 * 6),
    "conv_transpose1d": (
        lambda x, w: F.conv_transpose1d(x.transpose(1, 2), w.t()[..., None].expand(4, 6, 3)),
        2 * 5 * 3 * 4 * 6,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("inference", [False, True])
def test_functions_are_counted(name, inference):
    function, macs = FUNCTIONS[name]
    with torch.inference_mode(inference):
        report = profile_energy(Function(function), torch.randn(2, 5, 4))
    assert report.samples == 2
    assert report.macs == report.ann_macs == macs / 2
    assert [row.padding for row in report.rows] == [0.0]


@pytest.mark.parametrize("side", ["a", "b"])
def test_spikes_in_a_product_of_signals_add(side):
    spikes = (torch.rand(3, 5, 5) < 0.3).float()
    real = torch.randn(3, 5, 5)

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(5, 5)

        def forward(self, x):
            self.stem(x)
            return spikes @ real if side == "a" else real @ spikes

    row = profile_energy(Product(), real).rows[1]
    assert (row.name, row.kind, row.input) == ("matmul", "matmul", "spikes")
    assert row.sops == pytest.approx(spikes.sum().item() * 5 / 3)
    assert row.firing_rate_in == pytest.approx(spikes.mean().item())


def test_two_spiking_operands_cost_what_the_sparser_one_does():
    few, many = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    few[0, 0, 0] = 1

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(4, 4)

        def forward(self, x):
            self.stem(x)
            return few @ many

    row = profile_energy(Product(), torch.randn(1, 4)).rows[1]
    assert (row.sops, row.dense_macs) == (4, 64)


# projections of q, k, v and of the output, two products over 5 positions of width 8
ATTENTION = 5 * 8 * 8 * 4 + 2 * 5 * 5 * 8


@pytest.mark.parametrize("weights", [False, True])
def test_multihead_attention(weights):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=weights)[0]

    fast = torch.backends.mha.get_fastpath_enabled()
    report = profile_energy(Net(), torch.randn(3, 5, 8))
    assert report.macs == ATTENTION
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert any("softmax" in name for name in report.uncounted)
    assert all(row.name.startswith("attention.") for row in report.rows)


def test_a_transformer_layer_of_torch():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    report = profile_energy(nn.TransformerEncoder(layer, 2), torch.randn(3, 5, 8))
    assert report.macs == 2 * (ATTENTION + 2 * 5 * 8 * 16)


def test_fused_attention_costs_what_its_products_do():
    class Net(nn.Module):
        def forward(self, x):
            q, k, v = x.unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v)

    x = torch.randn(3, 5, 24)
    fused = profile_energy(Net(), x)
    with sdpa_kernel(SDPBackend.MATH):
        plain = profile_energy(Net(), x)
    assert fused.macs == plain.macs == 2 * 2 * 5 * 5 * 4
    assert [row.name for row in fused.rows] == ["attention_scores", "attention_values"]
    assert fused.uncounted["softmax"] == 2 * 5 * 5


def test_spikes_as_values_of_fused_attention_add():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(4, 4)

        def forward(self, x):
            q = self.stem(x)[:, None]
            return F.scaled_dot_product_attention(q, q, spikes)

    spikes = (torch.rand(2, 1, 5, 4) < 0.4).float()
    rows = {row.name: row for row in profile_energy(Net(), torch.randn(2, 5, 4)).rows}
    assert rows["attention_scores"].macs == 5 * 5 * 4
    assert rows["attention_values"].sops == spikes.sum().item() * 5 / 2


def test_a_layer_with_a_forward_of_its_own_is_counted_by_what_it_does():
    class Padded(nn.Conv2d):  # standardises its weights and pads in a function
        def forward(self, x):
            weight = self.weight - self.weight.mean()
            return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, self.bias)

    report = profile_energy(nn.Sequential(Padded(3, 4, 3)), torch.randn(2, 3, 6, 6))
    assert [(row.name, row.kind, row.macs) for row in report.rows] == [("0", "conv", 36 * 4 * 3 * 9)]


def test_what_is_not_counted_is_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm, self.neuron = nn.Linear(6, 4), nn.LayerNorm(4), spiking.LIF()

        def forward(self, x):
            y = self.norm(self.fc(x)).softmax(-1).exp().transpose(0, 1)
            return self.neuron(y.expand(3, *y.shape)) + torch.cdist(y, y).sum()

    report = profile_energy(Net(), torch.randn(2, 6))
    for name, values in {"layer_norm": 4, "softmax": 4, "exp": 4, "neuron updates": 12}.items():
        assert report.uncounted[name] == values
    assert any("cdist" in name for name in report.uncounted)
    assert "transpose" not in report.uncounted
    assert report.to_dict()["uncounted"] == report.uncounted
    assert "not counted, in values given out: " in str(report)
    assert "layer_norm 4" in str(report)
    assert "not counted, in values given out: nothing" in str(
        profile_energy(nn.Linear(3, 2), torch.rand(1, 3))
    )


def test_operators_outside_the_model_are_not_counted():
    model = nn.Linear(4, 4)
    with spiking.OperationCounter(model) as counter:
        y = model(torch.randn(2, 4))
        (y @ y.t()).sum().backward()
        torch.randn(9, 9) @ torch.randn(9, 9)
    assert [row.name for row in counter.report().rows] == [""]
    assert counter.report().macs == 16


def test_shapes_suffice_for_macs():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(512, 5))
        x = torch.empty(2, 3, 8, 8)
    report = profile_energy(model, x)
    assert report.macs == 64 * 8 * 27 + 512 * 5


def test_recurrent_and_bilinear_layers_are_named():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bilinear = nn.Bilinear(6, 6, 3)

        def forward(self, x):
            return self.bilinear(x, x)

    with pytest.raises(RuntimeError, match="what has run is not counted: trilinear"):
        profile_energy(Net(), torch.randn(2, 6))
    report = profile_energy(nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 4)), torch.randn(2, 3, 6))
    assert report.uncounted or len(report.rows) > 1


@pytest.mark.compile
def test_a_compiled_model_is_counted():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x)
            return y @ y.transpose(-1, -2)

    model, x = Net(), torch.randn(2, 3, 4)
    compiled = torch.compile(model, backend="aot_eager")
    compiled(x)
    assert profile_energy(compiled, x).to_dict() == profile_energy(model, x).to_dict()
