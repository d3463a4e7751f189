"""Operation counts against brute force, energies against hand calculation, nothing left behind."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import spiking
from spiking.layers import FoldTime, SpikeMatmul, fold_time
from spiking.measure.counter import OperationCounter, profile_energy
from spiking.measure.energy import E_AC, E_MAC
from spiking.measure.metrics import EnergyMetric, SynapticOperations


def spikes(*shape: int, rate: float = 0.3) -> torch.Tensor:
    return (torch.rand(shape) < rate).float()


def count_one(module: nn.Module, *inputs: torch.Tensor):
    """The row of a single layer, run on frames so that its input counts as spikes."""
    with OperationCounter(module) as counter:
        module(*inputs)
    return counter.report(1).rows[0]


CONVS = [
    nn.Conv2d(3, 4, 3, bias=False),
    nn.Conv2d(3, 4, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), groups=2),
    nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4),
    nn.Conv2d(3, 4, 4, padding="same"),
    nn.Conv2d(3, 4, 3, padding=2, padding_mode="circular"),
    nn.Conv2d(3, 4, 5, padding=2, padding_mode="reflect", stride=2),
    nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"),
    nn.Conv1d(3, 4, 3, padding=1, stride=2),
    nn.Conv3d(2, 4, (1, 3, 2), padding=1),
    nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    nn.ConvTranspose1d(3, 4, 4, dilation=2, padding=2),
]


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_convolutions_equal_the_same_layer_with_unit_weights(conv: nn.Module):
    torch.manual_seed(1)
    space = conv.weight.dim() - 2
    x = spikes(2, conv.in_channels, *(7, 6, 5)[:space])
    row = count_one(conv, x)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        if conv.bias is not None:
            conv.bias.zero_()
        reached, real = conv(x).sum().item(), conv(torch.ones_like(x)).sum().item()
    transposed = isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d))
    out, into = conv(x).numel(), x.numel()
    lanes = into * conv.out_channels if transposed else out * conv.in_channels
    dense = lanes // conv.groups * math.prod(conv.kernel_size)  # positions on padding, too
    assert row.dense_macs == dense
    assert row.sops == pytest.approx(reached * dense / real, rel=1e-14)
    assert row.padding == pytest.approx(1 - real / dense, abs=1e-14)
    full = count_one(conv, torch.ones_like(x))
    assert full.sops == full.dense_macs, "all inputs fire: as many additions as MACs"
    if getattr(conv, "padding_mode", "zeros") != "zeros" or not any(_pads(conv)):
        assert row.sops == reached, "no zero padding: the additions themselves"
    assert row.macs == 0
    assert row.kind == "conv"
    assert row.firing_rate_in == pytest.approx(x.mean().item())


def _pads(conv: nn.Module) -> tuple[int, ...]:
    if conv.padding == "same" or isinstance(conv, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return (1,)
    return conv.padding


def test_linear_and_products_equal_a_loop():
    x = spikes(3, 5, 7)
    assert count_one(nn.Linear(7, 4), x).sops == x.sum() * 4

    real, k = torch.randn(2, 3, 4, 5), spikes(2, 3, 5, 6)
    row = count_one(SpikeMatmul("b"), real, k)
    assert row.sops == (torch.ones_like(real) @ k).sum()
    assert row.dense_macs == 2 * 3 * 4 * 5 * 6
    row = count_one(SpikeMatmul("a"), k, torch.randn(2, 3, 6, 4))
    assert row.sops == (k @ torch.ones(2, 3, 6, 4)).sum()
    shared = spikes(5, 6)  # the same spikes for every entry of the batch
    assert count_one(SpikeMatmul("b"), real, shared).sops == (torch.ones_like(real) @ shared).sum()
    analog = count_one(SpikeMatmul("a"), real, torch.randn(2, 3, 5, 4))
    assert (analog.sops, analog.macs) == (0, 2 * 3 * 4 * 5 * 4)


class Small(nn.Module):
    """Stem once for a still image, two spiking layers, attention-like product, classifier."""

    def __init__(self, time_steps: int = 4):
        super().__init__()
        self.time_steps = time_steps
        self.stem, self.first = nn.Conv2d(3, 4, 3, padding=1), spiking.LIF(v_threshold=0.3)
        self.conv, self.second = nn.Conv2d(4, 8, 3), spiking.LIF(v_threshold=0.1)
        self.mix = SpikeMatmul("b")
        self.head = nn.Linear(8, 5)

    def forward(self, x, *, steps=False):
        x = x.unsqueeze(0) if x.dim() == 4 else x
        x = fold_time(self.stem, x)
        x = self.first(x.expand(self.time_steps, *x.shape[1:]) if x.shape[0] == 1 else x)
        s = self.second(fold_time(self.conv, x)).flatten(3)
        s = self.mix(torch.full((8, 8), 0.1), s)
        y = self.head(s.mean(-1))
        return y if steps else y.mean(0)


def test_a_whole_network_by_hand():
    torch.manual_seed(0)
    model, x = Small().eval(), torch.randn(2, 3, 6, 6)
    seen = {}
    for name in ("first", "second"):
        model.get_submodule(name).register_forward_hook(lambda m, a, out, n=name: seen.update({n: out}))
    report = profile_energy(model, x)
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["stem", "conv", "mix", "head"]
    assert [r.input for r in report.rows] == ["analog", "spikes", "spikes", "analog"]

    stem = 4 * 3 * 9 * 36  # once, not T times
    assert (rows["stem"].macs, rows["stem"].ann_macs, rows["stem"].sops) == (stem, stem, 0)
    assert rows["stem"].firing_rate_in is None
    unit = nn.functional.conv2d(seen["first"].flatten(0, 1), torch.ones(8, 4, 3, 3))
    assert rows["conv"].sops == unit.sum() / 2
    assert rows["conv"].firing_rate_in == pytest.approx(seen["first"].mean().item())
    dense = 8 * 4 * 9 * 16
    assert (rows["conv"].dense_macs, rows["conv"].ann_macs, rows["conv"].macs) == (4 * dense, dense, 0)
    assert seen["second"].sum() > 0
    assert rows["mix"].sops == seen["second"].sum() * 8 / 2
    assert rows["mix"].ann_macs == 8 * 8 * 16
    assert (rows["head"].macs, rows["head"].ann_macs) == (4 * 40, 40)

    assert report.macs == stem + 4 * 40
    assert report.sops == rows["conv"].sops + rows["mix"].sops
    assert report.energy_pj == pytest.approx(E_MAC * report.macs + E_AC * report.sops)
    assert report.energy_mj == pytest.approx(report.energy_pj * 1e-9)
    assert report.ann_macs == stem + dense + 8 * 8 * 16 + 40
    assert report.ann_energy_mj == pytest.approx(4.6e-9 * report.ann_macs)
    assert [r.name for r in report.inner().rows] == ["conv", "mix"]
    assert report.without("mix").sops == rows["conv"].sops
    with pytest.raises(ValueError, match="no counted layer 'nope'; there are stem, conv, mix, head"):
        report.without("nope")


def test_frames_run_the_stem_at_every_step():
    model = Small().eval()
    still, frames = torch.rand(2, 3, 6, 6), torch.rand(4, 2, 3, 6, 6)
    once, each = profile_energy(model, still).rows[0], profile_energy(model, frames).rows[0]
    assert each.macs == 4 * once.macs
    assert each.ann_macs == once.ann_macs


def test_per_sample_numbers_do_not_depend_on_the_batch():
    model, x = Small().eval(), torch.randn(3, 3, 6, 6)
    one, two = profile_energy(model, x), profile_energy(model, torch.cat([x, x]))
    assert one.to_dict()["layers"] == two.to_dict()["layers"]
    assert two.samples == 6
    with OperationCounter(model) as counter:
        for part in x.split([2, 1]):
            model(part)
    torch.testing.assert_close(counter.report().sops, one.sops)
    assert counter.report(6).sops == pytest.approx(one.sops / 2)
    counter.reset()
    with pytest.raises(RuntimeError, match="nothing to report"):
        counter.report()


@pytest.mark.parametrize("layout", ["folded", "steps", "images"])
def test_linear_layers_find_their_number_of_passes(layout: str):
    class Tokens(nn.Module):
        time_steps = 3

        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):  # [T, B, N, C]
            if layout == "folded":
                return self.fc(x.flatten(0, 1))
            return self.fc(x) if layout == "steps" else self.fc(x[0])

    row = profile_energy(Tokens(), spikes(3, 2, 5, 6), time_axis=True).rows[0]
    assert row.ann_macs == 5 * 6 * 4
    assert row.dense_macs == row.ann_macs * (1 if layout == "images" else 3)


def inner(x: torch.Tensor):
    """The row of a second layer that sees ``x``; the first layer is stricter about its input."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(x.shape[-1], 10)

        def forward(self, y):
            self.a(y)
            return self.b(x)

    return profile_energy(Two(), torch.rand(1, 1)).rows[1]


def test_sums_of_spikes_are_several_additions():
    s = spikes(4, 1, 2, 8, 8)
    assert inner(s + spikes(4, 1, 2, 8, 8) * 2).sops > inner(s).sops
    assert inner(torch.full((1, 7), 3.0)).sops == 3 * 7 * 10
    assert inner(-s).sops == inner(s).sops  # taking away costs what adding costs
    pooled = nn.functional.avg_pool2d(s[0], 2)
    assert inner(pooled).sops == s[0].sum() * 10  # the 1/4 goes into the weights
    assert inner(s / 3).macs == s.numel() * 10
    assert inner(torch.rand(4, 8)).input == "analog"
    assert inner(torch.full((1, 7), 200.0)).input == "analog"
    assert inner(torch.full((1, 7), math.nan)).input == "analog"
    assert inner(torch.zeros(1, 7)).sops == 0


def test_the_first_layer_takes_images_for_images():
    conv = nn.Conv2d(1, 2, 3)
    digits = torch.randint(0, 17, (1, 1, 8, 8)).float()
    for image in (digits, digits / 16):  # few grey levels, yet no spikes
        assert profile_energy(conv, image).rows[0].input == "analog"
    assert profile_energy(conv, spikes(1, 1, 8, 8)).rows[0].input == "spikes"
    events = profile_energy(FoldTime(conv), digits.expand(3, -1, -1, -1, -1)).rows[0]
    assert events.input == "spikes"  # event counts


def test_calls_that_differ_are_mixed():
    layer = nn.Linear(4, 3)
    with OperationCounter(layer) as counter:
        layer(torch.ones(2, 4))
        layer(torch.full((2, 4), 0.3))
    row = counter.report().rows[0]
    assert (row.input, row.sops, row.macs, row.firing_rate_in) == ("mixed", 6, 6, 1.0)
    assert row.ann_macs == 12


def test_large_counts_are_exact():
    x = torch.ones(1, 3, 2**12, 2**11)  # 2^25 - 2^23 spikes: more than float32 counts
    x[0, 0, 0, 0] = 0
    assert count_one(nn.Conv2d(3, 1, 1, bias=False), x).sops == 3 * 2**23 - 1


def test_nothing_is_changed_and_nothing_stays():
    model = Small().train()
    model.second.eval()
    before = [m.training for m in model.modules()]
    x, state = torch.rand(2, 3, 6, 6), {k: v.clone() for k, v in model.state_dict().items()}
    plain = model(x)
    with OperationCounter(model):
        watched = model(x)
    assert torch.equal(plain, watched)
    profile_energy(model, x)
    with pytest.raises(RuntimeError):
        profile_energy(model, torch.rand(2, 7, 6, 6))  # wrong C, the convolution complains
    assert [m.training for m in model.modules()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    with torch.inference_mode():
        profile_energy(model, x)


def test_nothing_to_count_is_an_error():
    with pytest.raises(RuntimeError, match="no convolution, linear layer or matrix product of LIF has run"):
        profile_energy(spiking.LIF(), torch.rand(2, 2, 2))


def test_report_reads_well():
    text = str(profile_energy(Small(), torch.rand(1, 3, 6, 6)))
    for part in ("layer", "stem", "analog", "spikes", "total", "4.6 pJ a MAC", "0.9 pJ", "as an ANN", "nJ"):
        assert part in text
    assert len({len(line) for line in text.splitlines()[:8]}) == 1


def test_metrics_agree_with_the_report_and_add_up():
    model, x = Small().eval(), torch.randn(5, 3, 6, 6)
    whole = profile_energy(model, x)
    metrics = [SynapticOperations(), EnergyMetric(), EnergyMetric(ann=True)]
    with OperationCounter(model) as counter:
        for part in x.split(2):
            model(part)
            for metric in metrics:
                metric.update(counter)
            counter.reset()
    values = [metric.compute().item() for metric in metrics]
    assert values == pytest.approx([whole.sops, whole.energy_mj, whole.ann_energy_mj], rel=1e-6)

    other = SynapticOperations()  # what a second process would hold
    with OperationCounter(model) as counter:
        model(x)
    other.update(counter)
    metrics[0].sums = torch.stack([metrics[0].sums, other.sums]).sum(0)
    metrics[0]._computed = None
    assert metrics[0].compute().item() == pytest.approx(whole.sops, rel=1e-6)
    assert math.isnan(SynapticOperations()._mean(2).item())


class Knowing(nn.Module):
    """A part that counts for itself, as converted networks do; what is inside must not be counted again."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(4, 2)

    def forward(self, x):
        return self.inside(x)

    def count_operations(self, x):
        steps = torch.full((3,), float(len(x)), dtype=torch.float64)
        common = {"kind": "linear", "spikes_in": 0.0, "elements": 0.0, "ann_macs": 8.0 * len(x)}
        spiking = {**common, "spikes_in": 3.0 * len(x), "elements": 12.0 * len(x)}
        rows = [
            SimpleNamespace(
                name="a", spikes=True, sops=5 * steps, macs=0 * steps, dense_macs=24.0, **spiking
            ),
            SimpleNamespace(
                name="b", spikes=False, sops=0 * steps, macs=7 * steps, dense_macs=21.0, **common
            ),
        ]
        return SimpleNamespace(layers=rows)


def test_a_part_that_counts_for_itself_is_believed():
    x = torch.randn(2, 4)
    whole = profile_energy(Knowing(), x)
    assert [(r.name, r.input, r.sops, r.macs) for r in whole.rows] == [
        ("a", "spikes", 15.0, 0.0),
        ("b", "analog", 0.0, 21.0),
    ]
    assert whole.rows[0].firing_rate_in == 0.25
    assert whole.ann_macs == 16.0
    nested = profile_energy(nn.Sequential(Knowing(), nn.Linear(2, 3)), x)
    assert [r.name for r in nested.rows] == ["0.a", "0.b", "1"]
    assert nested.rows[2].macs == 6.0
