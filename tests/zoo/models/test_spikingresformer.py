"""Properties of SpikingResformer that hold whatever the weights are."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spiking
import zoo
from zoo.layers.convolution import neuron_factory
from zoo.layers.dual_spike_attention import DSSA
from zoo.models.spikingresformer import NEURON_DEFAULTS

# parameters, those of norm gains and shifts, entries of the state dict; measured on the authors' models
COUNTS = {
    "spikingresformer_ti": (11_180_992, 11_141_312, 211),
    "spikingresformer_s": (17_813_824, 17_761_472, 211),
    "spikingresformer_m": (35_601_472, 35_523_776, 211),
    "spikingresformer_l": (60_375_680, 60_270_976, 211),
    "spikingresformer_cifar": (10_793_152, 10_753_472, 211),
    "spikingresformer_dvsg": (2_709_830, 2_689_990, 249),
}


@pytest.mark.parametrize("name", COUNTS)
def test_sizes(name):
    with torch.device("meta"):
        model = zoo.create(name)
    total = sum(p.numel() for p in model.parameters())
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert (total, total - norms, len(model.state_dict())) == COUNTS[name]
    assert sum(isinstance(m, spiking.Neuron) for m in model.modules()) == 38
    assert zoo.describe(name).parameters == total


def test_nano_fits_the_wheel():
    with torch.device("meta"):
        model = zoo.create("spikingresformer_nano")
    assert sum(v.numel() * v.element_size() for v in model.state_dict().values()) < 1_000_000


def attention(dim=8, heads=2, patch=2, lenth=4, **kwargs):
    torch.manual_seed(0)
    make = neuron_factory("lif", None, NEURON_DEFAULTS, 2)
    block = DSSA(dim, heads, lenth, patch, make, **kwargs).double()
    with torch.no_grad():
        block.W.weight.mul_(4)
        block.norm.bn.bias.uniform_(0.0, 1.0)
        for buffer in (block.firing_rate_x, block.firing_rate_attn):
            buffer.uniform_(0.02, 0.08)  # low rates, large scales: all three neurons fire
    return block.eval()


def currents(dim=8, size=4, steps=3, batch=2):
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.randn(steps, batch, dim, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("patch", [1, 2])
def test_attention_equals_a_loop_over_heads_and_tokens(patch):
    block = attention(patch=patch)
    x = currents()
    T, B, C, H, W = x.shape
    h, d = block.num_heads, block.head_dim
    with torch.no_grad():
        spikes = block.activation_in(x)
        y = block.norm.bn(block.W(spikes.flatten(0, 1))).unflatten(0, (T, B))
        M, N = y.shape[-1] * y.shape[-2], H * W
        tokens, values = spikes.reshape(T, B, C, N), y.reshape(T, B, 2 * C, M)
        scores = torch.zeros(T, B, h, M, N, dtype=x.dtype)
        for i in range(h):
            y1 = values[:, :, 2 * d * i : 2 * d * i + d]
            scale = 1 / (block.firing_rate_x[0, 0, i, 0, 0] * d).sqrt()
            for m in range(M):
                for n in range(N):
                    k = tokens[:, :, d * i : d * i + d, n]
                    scores[:, :, i, m, n] = (y1[..., m] * k).sum(-1) * scale
        attended = block.activation_attn(scores)
        mixed = torch.zeros(T, B, C, N, dtype=x.dtype)
        for i in range(h):
            y2 = values[:, :, 2 * d * i + d : 2 * d * (i + 1)]
            scale = 1 / (block.firing_rate_attn[0, 0, i, 0, 0] * M).sqrt()
            for n in range(N):
                weighted = sum(y2[..., m] * attended[:, :, i, m, n, None] for m in range(M))
                mixed[:, :, d * i : d * i + d, n] = weighted * scale
        out = block.activation_out(mixed.reshape(T, B, C, H, W))
        expected = block.norm_proj.bn(block.Wproj(out.flatten(0, 1))).unflatten(0, (T, B)) + x
        assert attended.any()
        assert not attended.all()
        torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


def test_neurons_hand_on_spikes_only():
    block, seen = attention(), []
    for neuron in (block.activation_in, block.activation_attn, block.activation_out):
        neuron.register_forward_hook(lambda m, a, out: seen.append(set(out.unique().tolist())))
    with torch.no_grad():
        block(currents())
    assert seen == [{0.0, 1.0}] * 3


def test_heads_are_independent():
    block = attention()
    other = copy.deepcopy(block)
    with torch.no_grad():
        other.W.weight[: 2 * block.head_dim] *= -1.7  # everything that head 0 makes of its input
    seen = {}
    for name, module in (("one", block), ("two", other)):
        module.activation_out.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
        with torch.no_grad():
            module(currents())
    d = block.head_dim
    assert torch.equal(seen["one"][:, :, d:], seen["two"][:, :, d:])
    assert not torch.equal(seen["one"][:, :, :d], seen["two"][:, :, :d])


def test_permuting_heads_permutes_channels():
    block = attention()
    turned = copy.deepcopy(block)
    d = block.head_dim
    swap = torch.cat([torch.arange(d, 2 * d), torch.arange(d)])  # two heads of d channels
    wide = torch.cat([torch.arange(2 * d, 4 * d), torch.arange(2 * d)])
    with torch.no_grad():
        turned.W.weight.copy_(block.W.weight[wide][:, swap])
        for own, theirs in zip(
            turned.norm.bn.state_dict().values(), block.norm.bn.state_dict().values(), strict=True
        ):
            if own.dim():
                own.copy_(theirs[wide])
        turned.Wproj.weight.copy_(block.Wproj.weight[swap][:, swap])
        for rate in ("firing_rate_x", "firing_rate_attn"):
            getattr(turned, rate).copy_(getattr(block, rate).flip(2))
        x = currents()
        torch.testing.assert_close(turned(x[:, :, swap]), block(x)[:, :, swap], rtol=1e-9, atol=1e-9)


def test_scaled_products_have_unit_variance():
    generator = torch.Generator().manual_seed(0)
    rate, d, M, N = 0.2, 64, 400, 300
    k = (torch.rand(d, N, generator=generator) < rate).double()
    y = torch.randn(d, M, generator=generator, dtype=torch.float64)
    block = attention()
    block.firing_rate_x.fill_(rate)
    block.rates_known = True
    scale = block._factor(block.firing_rate_x, k, d)[0, 0, 0, 0, 0]
    assert (scale * y.T @ k).var().item() == pytest.approx(1.0, rel=0.05)


# -- firing rates ----------------------------------------------------------------------------------


def test_rates_move_in_training_only():
    block = attention()
    before = block.firing_rate_x.clone()
    with torch.no_grad():
        block(currents())
    assert torch.equal(block.firing_rate_x, before)

    block.train()
    block.firing_rate_x.zero_()
    block.firing_rate_attn.zero_()
    x = currents()
    rate = head_rates(block, x)
    block(x)
    torch.testing.assert_close(block.firing_rate_x, rate, rtol=1e-12, atol=0)
    second = head_rates(block, -x)
    block(-x)
    torch.testing.assert_close(block.firing_rate_x, 0.999 * rate + 0.001 * second, rtol=1e-12, atol=0)


def head_rates(block, x):
    spikes = block.activation_in(x).detach()
    T, B, _, H, W = spikes.shape
    return spikes.reshape(T, B, block.num_heads, -1, H * W).mean((0, 1, 3, 4), keepdim=True)


def test_rates_stay_in_float32():
    model = zoo.create("spikingresformer_nano", in_chans=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(2, 1, 28, 28))
    for half in (model, copy.deepcopy(model).bfloat16(), copy.deepcopy(model).half()):
        for block in half.attentions().values():
            assert block.firing_rate_x.dtype == block.firing_rate_attn.dtype == torch.float32
            assert block.firing_rate_x.any()


def test_unset_rates_warn_once_and_stay_finite():
    model = zoo.create("spikingresformer_nano").eval()
    with torch.no_grad():
        with pytest.warns(UserWarning, match=r"firing rates of layers\.0\.0.*were never set"):
            first = model(torch.randn(2, 1, 28, 28))
        assert first.isfinite().all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(torch.randn(2, 1, 28, 28))
        assert all(not b.firing_rate_x.any() for b in model.attentions().values())


def test_silent_heads_stay_finite():
    block = attention()
    block.firing_rate_x.zero_()
    block.firing_rate_attn.zero_()
    with torch.no_grad():
        out = block(torch.full((2, 1, 8, 4, 4), -1.0, dtype=torch.float64))
    assert out.isfinite().all()


# -- scale of the attention ------------------------------------------------------------------------


def test_scale_follows_the_map_or_the_constant(tiny, images):
    model = tiny("spikingresformer_nano").eval()
    model.set_lenth_from("img_size")
    assert model.model_args["lenth_from"] == "img_size"
    with pytest.warns(UserWarning, match="rows but its scale was trained for"):
        model(images(size=48))
    model.set_lenth_from("map")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        model(images(size=48))


def test_foreign_weights_keep_the_authors_constant(tiny, tmp_path):
    state = tiny("spikingresformer_nano").state_dict()
    torch.save({"model": state, "max_acc1": 1.0}, tmp_path / "c.pth")
    arguments = {
        "planes": (8, 16, 16),
        "num_heads": (1, 2, 2),
        "group_size": 8,
        "num_classes": 5,
        "in_chans": 3,
    }
    theirs = zoo.load("spikingresformer_nano", weights=tmp_path / "c.pth", **arguments)
    assert {b.lenth_from for b in theirs.attentions().values()} == {"img_size"}
    asked = zoo.load("spikingresformer_nano", weights=tmp_path / "c.pth", lenth_from="map", **arguments)
    assert {b.lenth_from for b in asked.attentions().values()} == {"map"}
    ours = zoo.load(f"local-dir:{zoo.save(tiny('spikingresformer_nano'), tmp_path / 'out')}")
    assert {b.lenth_from for b in ours.attentions().values()} == {"map"}


def test_maps_smaller_than_the_patch(tiny, images):
    with pytest.raises(ValueError, match="smaller than the attention patch"):
        tiny("spikingresformer_nano", patch_sizes=(4, 2, 1))(images(size=5))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"planes": (8, 16)}, "one number a stage"),
        ({"stem": "5x5"}, "stem must be one of"),
        ({"lenth_from": "moon"}, "lenth_from must be"),
        ({"num_heads": (1, 3, 4)}, "do not divide into 3 heads"),
        ({"group_size": 7}, "do not divide into groups"),
    ],
)
def test_impossible_sizes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        zoo.create("spikingresformer_nano", **kwargs)


# -- whole model -----------------------------------------------------------------------------------


def test_norms_fold_into_convolutions(tiny, images):
    model = tiny("spikingresformer_nano").double().eval()
    folded = copy.deepcopy(model)
    convs = [m for m in folded.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    by_width = pair_norms(folded)
    assert len(by_width) == len(convs) == len(norms)
    with torch.no_grad():
        for conv, norm in by_width:
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            conv.weight.mul_(gain.view(-1, 1, 1, 1))
            shift = norm.bias - norm.running_mean * gain
            norm.weight.fill_(1.0)
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0 - norm.eps)
            norm.bias.copy_(shift)
        x = images().double()
        torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


def pair_norms(model):
    """Convolutions with the norm that follows them, in the order of execution."""
    order = []
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    handles = [m.register_forward_hook(lambda m, a, out: order.append(m)) for m in layers]
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    for handle in handles:
        handle.remove()
    return list(zip(order[::2], order[1::2], strict=True))


def test_logits_of_the_first_step_do_not_depend_on_the_number_of_steps(tiny, images):
    model = tiny("spikingresformer_nano").eval()
    seen = []
    with torch.no_grad():
        for steps in (1, 2, 5):
            model.time_steps = steps
            seen.append(model(images(), steps=True)[0])
    torch.testing.assert_close(seen[1], seen[0])
    torch.testing.assert_close(seen[2], seen[0])


def test_learns_a_few_images_by_heart():
    torch.manual_seed(0)
    model = zoo.create(
        "spikingresformer_nano",
        planes=(8, 16, 32),
        group_size=8,
        patch_sizes=(1, 1, 1),
        num_classes=4,
        time_steps=2,
    )
    x, y = torch.randn(16, 1, 16, 16), torch.arange(16) % 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    for _ in range(60):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
