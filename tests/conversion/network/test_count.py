"""Operations of whole converted networks, against what hooks see and against brute force."""

import copy
import pickle

import pytest
import torch
from torch import nn

import spiking
from conversion import convert
from conversion.network import operation as energy
from conversion.network.site import sites
from spiking.measure.operations import sent_before
from tests.conversion.methods.test_any_backbone import ann, images

T = 4
CODES = {"ecmt": ("ecmt", {}), "dcgs": ("dcgs", {}), "rate": ("dcgs", {"code": "rate"})}


class Attention(nn.Module):
    """Two products of signals, as attention without a softmax has them."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(6, 18), nn.Linear(6, 3)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2)).chunk(3, dim=-1)
        return self.head(torch.einsum("bij,bjk->bik", q @ k.transpose(-2, -1), v).mean(1))


def attention(code):
    torch.manual_seed(0)
    x = torch.randn(8, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    method, settings = CODES[code]
    settings = {"include_head": True} if method == "ecmt" else settings
    return convert(Attention().eval(), method, T, x, progress=False, **settings), x[:2]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", ["vit", "resnet"])
@torch.no_grad()
def test_layers_receive_what_is_counted(name, code):
    method, settings = CODES[code]
    snn = convert(ann(name), method, T, images(), progress=False, **settings)
    x, seen, outputs = images(3, seed=1), {}, {}
    before = snn(x, steps=True)
    found = snn.count_operations(x)
    assert torch.equal(before, snn(x, steps=True)), "counting changes nothing"
    hooks = []
    for path, module in snn.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            hooks.append(module.register_forward_hook(lambda m, i, o, p=path: seen.update({p: i[0]})))
        elif path in sites(snn):
            hooks.append(module.register_forward_hook(lambda m, i, o, p=path: outputs.update({p: o})))
    snn(x)
    rows = {row.name: row for row in found.layers if row.kind != "matmul"}
    assert set(rows) == set(seen)
    for path, value in seen.items():
        row, module = rows[path], snn.get_submodule(path)
        if len(value) == len(x):  # a still image
            assert not row.spikes
            assert row.macs[0] == row.ann_macs
            assert row.macs[1:].sum() == row.sops.sum() == 0
            continue
        steps = value.unflatten(0, (T, -1))
        sent = torch.cat([steps[:1], steps.diff(dim=0)]) if code == "dcgs" else steps
        if isinstance(module, nn.Linear):
            sops, macs = energy.linear_operations(sent, module.out_features)
            dense = macs
        else:
            kept = {k: getattr(module, k) for k in ("stride", "padding", "dilation", "groups")}
            sops, macs = energy.conv_operations(sent, module.weight, **kept)
            places = module(value[: len(x)])[:, 0].numel()  # of one step; each has all taps, on padding too
            dense = torch.full_like(macs, float(places * module.weight.numel()))
        assert torch.equal(row.official[0], sops)
        assert torch.equal(row.official[1], macs)
        torch.testing.assert_close(row.sops, (sops * dense / macs) if row.spikes else torch.zeros(T).double())
        assert torch.equal(row.macs, torch.zeros(T) if row.spikes else dense)
        assert row.ann_macs == dense[0]
    assert torch.equal(found.updates, torch.full((T,), float(sum(o[0].numel() for o in outputs.values()))))


@pytest.mark.parametrize("code", CODES)
@torch.no_grad()
def test_products_receive_what_is_counted(code):
    snn, x = attention(code)
    found = snn.count_operations(x)
    caught = []
    for path in sites(snn):
        snn.get_submodule(path).register_forward_hook(lambda m, i, o: caught.append(o))
    snn(x)
    caught = [o for o in caught if o.dim() == 4]
    q, k, scores, v = caught[1:] if len(caught) == 5 else caught  # DCGS sends what the first layer gets, too
    rows = [row for row in found.layers if row.kind == "matmul"]
    for row, pair in zip(rows, ((q, k), (scores, v)), strict=True):
        sent = [torch.cat([o[:1], o.diff(dim=0)]) if code == "dcgs" else o for o in pair]
        known = [s.cumsum(0) if code == "ecmt" else sent_before(s) for s in sent]
        sops, macs = energy.product_operations(*sent, *known)
        assert row.spikes
        assert torch.equal(row.official[0], sops)
        assert torch.equal(row.official[1], macs)
        assert torch.equal(row.sops, energy.product_operations(*sent, *map(sent_before, sent))[0])
        assert row.ann_macs == 2 * 4 * 4 * 6


@pytest.mark.parametrize("method", ["qcfs", "ecmt", "dcgs"])
@torch.no_grad()
def test_a_step_costs_the_same_however_many_follow(method):
    snn = convert(ann("resnet"), method, 2 * T, images(), progress=False)
    whole = snn.count_operations(images(2, seed=1))
    snn.time_steps = T
    half = snn.count_operations(images(2, seed=1))
    for long, short in zip(whole.layers, half.layers, strict=True):
        assert torch.equal(long.sops[:T], short.sops)
        assert torch.equal(long.macs[:T], short.macs)
    assert torch.equal(whole.full_ratio[:T], half.full_ratio)


@torch.no_grad()
def test_parts_of_a_batch_add_up_and_the_profile_agrees():
    snn = convert(ann("vit"), "dcgs", T, images(), progress=False)
    x = images(3, seed=1)
    whole, parts = snn.count_operations(x), snn.count_operations(x[:1]) + snn.count_operations(x[1:])
    assert whole.samples == parts.samples == 3
    assert whole.sops == parts.sops
    torch.testing.assert_close(whole.full_ratio, parts.full_ratio)
    report = spiking.profile_energy(snn, x)
    assert report.sops == pytest.approx(whole.sops / 3)
    assert report.macs == pytest.approx(whole.macs / 3)
    assert report.ann_macs == pytest.approx(whole.ann_macs / 3)
    assert {row.kind for row in report.rows} == {"conv", "linear", "matmul"}


@torch.no_grad()
def test_copies_count_alike():
    snn, x = attention("ecmt")
    expected = snn.count_operations(x)
    for twin in (copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))):
        found = twin.count_operations(x)
        assert [row.name for row in found.layers] == [row.name for row in expected.layers]
        assert torch.equal(found.full_ratio, expected.full_ratio)
        assert torch.equal(found.official_ratio, expected.official_ratio)


@torch.no_grad()
def test_ratios_of_methods_whose_papers_count_nothing():
    found = convert(ann("resnet"), "qcfs", T, images(), progress=False).count_operations(images())
    assert found.official_ratio is None
    assert "full" in str(found)
    assert (found.full_ratio > 0).all()


@torch.no_grad()
def test_the_full_ratio_charges_exact_units_and_neurons():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = convert(model, "qcfs", T, x, progress=False).count_operations(x)
    spikes = sum(row.sops for row in found.layers)
    assert found.evaluations.sum() == 0, "the neurons stand for the only activation"
    assert found.ann_evaluations == 4 * 8
    assert torch.equal(found.updates, torch.full((T,), 4.0 * 8))
    spent = 0.9 * (spikes + 32) + 4.6 * torch.tensor([4.0 * 96, 0, 0, 0])
    torch.testing.assert_close(found.full_ratio, spent.cumsum(0) / (4.6 * (4 * (96 + 24) + 32)))


def small(*layers):
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


SOURCES = {
    "transposed": lambda: small(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1)),
    "transposed_in_groups": lambda: small(nn.ConvTranspose2d(8, 6, 3, groups=2, padding=1), nn.ReLU()),
    "padded": lambda: small(
        nn.Conv2d(8, 6, 5, padding=2, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1)
    ),
    "even": lambda: small(nn.Conv2d(8, 6, 4, padding="same"), nn.ReLU()),
}


@pytest.mark.parametrize("method", ["qcfs", "dcgs"])
@pytest.mark.parametrize("name", SOURCES)
@torch.no_grad()
def test_the_source_and_the_converted_network_have_the_same_macs(name, method):
    torch.manual_seed(0)
    source, x = SOURCES[name](), torch.randn(2, 3, 8, 8)
    direct = spiking.profile_energy(source, x)
    converted = spiking.profile_energy(convert(source, method, T, x, progress=False), x)
    assert converted.ann_macs == direct.macs
    assert [row.padding for row in converted.rows] == pytest.approx([row.padding for row in direct.rows])
    assert converted.uncounted["neuron updates"] > 0


class Fused(nn.Module):
    """Fused attention, and a linear layer that is a product with a parameter."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head = nn.Linear(6, 18), nn.Linear(6, 3)
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2).relu()).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((y @ self.weight).relu().mean(1))


@pytest.mark.parametrize("method", ["qcfs", "srp", "dcgs"])
@torch.no_grad()
def test_attention_and_products_with_parameters_are_counted(method):
    torch.manual_seed(0)
    x = torch.randn(4, 4, 2, 3)
    macs = 4 * 6 * 18 + 2 * 4 * 4 * 6 + 4 * 6 * 6 + 6 * 3
    source = Fused().eval()
    assert spiking.profile_energy(source, x).macs == macs
    report = spiking.profile_energy(convert(source, method, T, x, progress=False), x)
    assert report.ann_macs == macs
    assert any(
        "softmax" in n or "attention" in n for n in (*report.uncounted, *(r.name for r in report.rows))
    )
