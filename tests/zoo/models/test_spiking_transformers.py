"""Spikformer, Spike-driven Transformer, QKFormer, Meta-SpikeFormer: sizes, equations, authors' files."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
import torch
from torch import nn

import spiking
import zoo
from zoo.factory import load_weights
from zoo.layers import attention, reparameterised, transformer
from zoo.layers.convolution import neuron_factory
from zoo.models import metaspikformer, qkformer, sdt
from zoo.registry import get_entry

# parameters at the entry's own number of classes; entries of the state dict, hash of their names and shapes
SIZES = {
    "metaspikformer_15m": (15_112_208, 825, "bdc9e7e251af"),
    "metaspikformer_8_384": (31_333_864, 825, "5af6f7293f28"),
    "metaspikformer_8_512": (55_350_248, 825, "9239e1b194a9"),
    "metaspikformer_8_768": (123_741_160, 825, "4536f226c4d7"),
    "qkformer_10_384": (16_473_688, 434, "6cf91b46a907"),
    "qkformer_10_512": (29_079_336, 434, "e03b42341746"),
    "qkformer_10_768": (64_962_760, 434, "ba9683c37921"),
    "qkformer_cifar": (6_706_234, 200, "8429a4a378b9"),
    "qkformer_cifar10dvs": (1_504_138, 122, "7bfce2d56420"),
    "qkformer_dvsg": (1_999_371, 122, "0383e4f3e2e0"),
    "qkformer_nano": (117_986, 161, "12ea6e7bee41"),
    "sdt_10_512": (36_005_416, 422, "793ffbd5f577"),
    "sdt_2_256_cifar10dvs": (2_566_666, 110, "1a4fedbd804c"),
    "sdt_2_256_dvsg": (2_566_923, 110, "4a9cd0a78cb9"),
    "sdt_2_512_cifar": (10_233_418, 110, "69c6268a943f"),
    "sdt_6_512": (23_373_352, 266, "c1112b5ac6ea"),
    "sdt_8_384": (16_816_024, 344, "2d1ae8692ea8"),
    "sdt_8_512": (29_689_384, 344, "8350c1684125"),
    "sdt_8_768": (66_338_632, 344, "a4cc2644076e"),
    "sdt_nano": (129_986, 110, "2407a5a3ee97"),
    "spikformer_10_512": (36_005_416, 422, "793ffbd5f577"),
    "spikformer_2_256_cifar10dvs": (2_566_666, 110, "1a4fedbd804c"),
    "spikformer_2_256_dvsg": (2_566_923, 110, "4a9cd0a78cb9"),
    "spikformer_2_384_cifar": (5_765_050, 116, "877c284bb8a3"),
    "spikformer_4_256_cifar": (4_155_178, 200, "ac931f622909"),
    "spikformer_4_384_cifar": (9_324_730, 200, "38a9e149bee9"),
    "spikformer_6_512": (23_373_352, 266, "c1112b5ac6ea"),
    "spikformer_8_384": (16_816_024, 344, "2d1ae8692ea8"),
    "spikformer_8_512": (29_689_384, 344, "8350c1684125"),
    "spikformer_8_768": (66_338_632, 344, "a4cc2644076e"),
    "spikformer_nano": (129_986, 110, "2407a5a3ee97"),
}
FAMILIES = ("spikformer", "sdt", "qkformer", "metaspikformer")
MAKE = neuron_factory("lif", None, transformer.NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**transformer.NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


def on_meta(name, **kwargs):
    with torch.device("meta"):
        return zoo.create(name, **kwargs)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    model = on_meta(name)
    rows = [[k, list(v.shape), str(v.dtype)] for k, v in model.state_dict().items()]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]
    assert (parameters(model), len(rows), digest) == SIZES[name]


def test_every_entry_has_a_size():
    assert set(SIZES) == {n for n in zoo.list_models() if n.startswith(FAMILIES)}


def test_published_counts_with_what_is_never_called():
    """Two norms a block; on events a position embedding for 64 tokens and a last norm as well."""
    norms = 4 * 256 * 2
    assert parameters(on_meta("spikformer_2_256_cifar10dvs")) + norms + 64 * 256 + 2 * 256 == 2_585_610
    assert parameters(on_meta("spikformer_8_512")) + 4 * 512 * 8 == 29_705_768
    assert parameters(on_meta("spikformer_8_384")) + 4 * 384 * 8 == 16_828_312
    assert parameters(on_meta("qkformer_cifar", num_classes=100)) == 6_740_884
    assert parameters(on_meta("metaspikformer_8_512", distilled=True)) == 55_991_248


# -- equations -------------------------------------------------------------------------------------


def lively(module, seed=0):
    """Norms that let many neurons fire."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 1.0, 2.0)
            nn.init.uniform_(part.bias, 0.5, 2.0)
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return module.double().eval()


def spikes(*shape, rate=0.5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator, dtype=torch.float64) < rate).double()


def test_attention_equals_three_loops():
    block = lively(attention.SSA(8, 2, MAKE, MAKE_ATTN, scale=0.25))
    x = spikes(2, 2, 8, 2, 3)
    seen = []
    block.attn_lif.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        block(x)
        q, k, v = (block.project(name, x) for name in "qkv")
    T, B, h, d, N = q.shape
    want = torch.zeros(T, B, h, d, N, dtype=x.dtype)
    for i in range(N):  # the token that asks
        for j in range(N):  # the token that answers
            match = (q[..., i] * k[..., j]).sum(-1, keepdim=True)
            want[..., i] += 0.25 * match * v[..., j]
    assert want.any()
    assert torch.equal(seen[0], want.reshape(x.shape))


def test_spike_driven_attention_is_a_mask():
    block = lively(sdt.SDSA(8, 2, MAKE, MAKE_ATTN))
    x = 2 * torch.randn(3, 2, 8, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []
    block.proj_conv.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        block(x)
        fired = block.shortcut_lif(x)
        q, k, v = (block.project(name, fired).flatten(2, 3) for name in "qkv")
        coincidences = torch.zeros(3, 2, 8, 1, dtype=x.dtype)
        for n in range(6):
            coincidences[..., 0] += k[..., n] * v[..., n]
        mask = block.talking_heads_lif(coincidences)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(seen[0].reshape(3, 2, 8, 6), q * mask)


@pytest.mark.parametrize("mask", ["token", "channel"])
def test_query_key_attention_is_a_mask(mask):
    block = lively(qkformer.QKAttention(8, 2, MAKE, MAKE_ATTN, mask), seed=3)
    x = spikes(3, 2, 8, 2, 3, rate=0.2)
    seen = []
    block.proj_conv.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        block(x)
        q, k = block.project("q", x), block.project("k", x)
        counts = q.sum(3, keepdim=True) if mask == "token" else q.sum(4, keepdim=True)
        bits = block.attn_lif(counts)
    assert torch.equal(seen[0].reshape(k.shape), bits * k)
    with pytest.raises(ValueError, match="mask must be 'token' or 'channel'"):
        qkformer.QKAttention(8, 2, MAKE, MAKE_ATTN, "head")


def test_eroded_attention_sees_neighbours():
    plain, eroded = (lively(sdt.SDSA(8, 2, MAKE, MAKE_ATTN, erode=e)) for e in (False, True))
    eroded.load_state_dict(plain.state_dict())
    x = 2 * torch.randn(2, 1, 8, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        fired = plain.shortcut_lif(x)
        assert torch.equal(plain.project("q", fired), eroded.project("q", fired))
        k, wide = plain.project("k", fired), eroded.project("k", fired)
        assert (wide >= k).all()
        assert wide.sum() > k.sum()
        assert eroded(x).shape == x.shape


def test_padding_is_what_the_norm_makes_of_zero():
    layer = lively(reparameterised.PaddedNorm(4))
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    y = layer(x)
    zero = layer.bn(torch.zeros(1, 4, 1, 1, dtype=torch.float64))
    assert y.shape == (2, 4, 5, 7)
    assert torch.equal(y[..., 1:-1, 1:-1], layer.bn(x))
    for edge in (y[..., 0, :], y[..., -1, :], y[..., 0], y[..., -1]):
        torch.testing.assert_close(edge, zero.reshape(1, 4, 1).expand_as(edge), rtol=1e-12, atol=1e-12)


def test_folded_network_is_the_same_and_multiplies_less(tiny, images):
    model = tiny("metaspikformer_15m").eval().double()
    folded = model.fold()
    x = images().double()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(m, reparameterised.RepConv) for m in folded.modules())
    analog = {r.name for r in spiking.profile_energy(folded, x).rows if r.input == "analog"}
    # the depthwise convolution and the pointwise one behind it have no neuron between them
    assert {n for n in analog if "pwconv2" not in n} == {"stem.encode_conv"}
    assert parameters(folded) != parameters(model)
    with pytest.raises(ValueError, match="folded already"):
        folded.fold()


def test_folded_network_can_be_saved(tiny, images, tmp_path):
    folded = tiny("metaspikformer_15m").eval().fold()
    again = zoo.load(f"local-dir:{zoo.save(folded, tmp_path / 'out')}")
    with torch.no_grad():
        assert torch.equal(again(images()), folded(images()))


def test_second_classifier_is_averaged(tiny, images):
    model = tiny("metaspikformer_15m", distilled=True).eval()
    with torch.no_grad():
        features = model.forward_features(images())
        fired = model.head_lif(features.mean((-1, -2)))
        assert torch.equal(model.forward_head(features), (model.head(fired) + model.head_kd(fired)) / 2)
    model.reset_classifier(9)
    assert model.head_kd.weight.shape == (9, 64)
    assert model(images()).shape == (2, 9)


# -- energy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spikformer_nano", "sdt_nano", "qkformer_nano"])
def test_only_the_image_is_multiplied(name, tiny, images):
    model = tiny(name).eval()
    report = spiking.profile_energy(model, images())
    first = model.default_cfg["first_conv"]
    analog = [row.name for row in report.rows if row.input == "analog"]
    # a mean of many spikes may be no small multiple of one spike; a neuron before the head makes spikes
    assert set(analog) - (set() if name == "sdt_nano" else {"head"}) == {first}
    products = [row for row in report.rows if row.kind == "matmul"]
    assert products
    assert all(row.input == "spikes" for row in products)
    assert sum(row.sops for row in products) > 0


def test_mask_sums_count_one_addition_a_spike(tiny, images):
    model = tiny("qkformer_nano").eval()
    block = model.levels[0][1].attn
    counted = []
    block.q_lif.register_forward_hook(lambda m, args, out: counted.append(out.sum().item()))
    report = spiking.profile_energy(model, images())
    row = next(r for r in report.rows if r.name == "levels.0.1.attn.sum")
    assert row.sops == counted[0] / 2


# -- images of a batch do not meet ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["spikformer_nano", "sdt_nano", "qkformer_nano", "metaspikformer_15m"])
def test_images_are_alone(name, tiny, images):
    model = tiny(name).eval().double()
    x = images(batch=3).double()
    with torch.no_grad():
        whole = model(x, steps=True)
        x[1:] = images(batch=2, seed=9).double()
        assert torch.equal(model(x, steps=True)[:, 0], whole[:, 0])


# -- the authors' files ----------------------------------------------------------------------------


def written(path, state):
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    return path


def loads(name, theirs, tiny, tmp_path, **kwargs):
    """The authors' file fills our network strictly, with the values that it was made of."""
    source = tiny(name, **kwargs).state_dict()
    model = tiny(name, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_weights(model, written(tmp_path / "theirs.pth", theirs(source)), get_entry(name))
    for key, value in model.state_dict().items():
        assert torch.equal(value, source[key]), key
    return model


def spikformer_on_cifar(state):
    theirs = {}
    for key, value in state.items():
        if re.search(r"(q|k|v|proj|fc\d)_conv\.weight$", key) and "block" in key:
            value = value.flatten(1)
        theirs[key.replace("_conv.", "_linear.") if key.startswith("block") else key] = value
    for block in {k.split(".")[1] for k in state if k.startswith("block.")}:
        theirs |= {f"block.{block}.norm{i}.weight": torch.ones(16) for i in (1, 2)}
    return theirs


def spikformer_on_events(state):
    theirs = {k: v.squeeze(-1) if re.search(r"^block.*_conv\.weight$", k) else v for k, v in state.items()}
    return {**theirs, "pos_embed": torch.zeros(1, 64, 16), "norm.weight": torch.ones(16)}


def sdt_file(state):
    return {**state, "block.0.attn.talking_heads.weight": torch.ones(2, 2, 1)}


def qkformer_on(tail, mlp, proj):
    def theirs(state):
        renamed = {}
        for key, value in state.items():
            found = re.match(r"levels\.(\d)\.(\d+)\.(.*)", key)
            new = key
            if found:
                level, place, rest = int(found[1]) + 1, int(found[2]), found[3]
                last = level == 3
                rest = rest.replace("attn.", f"{tail}." if last else "tssa.")
                new = f"stage{level}.{place - 1}.{rest}" if place else f"patch_embed{level}.{rest}"
                if level > 1 and proj:
                    new = new.replace("proj3_", "proj_")
            if re.search(r"attn\..*_conv\.weight$", key):
                value = value.squeeze(-1)  # one-dimensional convolutions
            renamed[re.sub(r"mlp\.fc(\d)", rf"mlp.{mlp}\1", new)] = value
        return renamed

    return theirs


def metaspikformer_file(state):
    theirs = {}
    places = {ours: name for name, ours in metaspikformer.PLACES.items()}
    for key, value in state.items():
        new = re.sub(r"^levels\.([34])\.([1-9]\d*)\.", lambda m: f"block{m[1]}.{int(m[2]) - 1}.", key)
        for ours, name in places.items():
            if new.startswith(f"{ours}."):
                new = name + new.removeprefix(ours)
        theirs[new] = value.squeeze(-1) if ".mlp.fc" in key and key.endswith("conv.weight") else value
    return theirs


@pytest.mark.parametrize(
    ("name", "theirs", "example"),
    [
        ("spikformer_4_256_cifar", spikformer_on_cifar, "block.0.attn.q_linear.bias"),
        ("spikformer_2_256_dvsg", spikformer_on_events, "pos_embed"),
        ("sdt_8_384", sdt_file, "block.0.attn.talking_heads.weight"),
        ("qkformer_10_384", qkformer_on("attn", "fc", False), "stage3.0.attn.v_conv.weight"),
        ("qkformer_cifar", qkformer_on("ssa", "mlp", False), "stage1.0.tssa.q_conv.weight"),
        ("qkformer_cifar10dvs", qkformer_on("ssa", "mlp", True), "patch_embed2.proj_conv.weight"),
        ("metaspikformer_8_384", metaspikformer_file, "block3.0.attn.q_conv.0.body.2.1.weight"),
    ],
)
def test_files_of_the_authors(name, theirs, example, tiny, tmp_path):
    small = {
        "spikformer": {"dim": 16, "num_heads": 2, "depth": 2},
        "sdt": {"dim": 16, "num_heads": 2, "depth": 1},
        "qkformer": {"dims": (8, 8, 16), "depths": (1, 1, 1), "num_heads": 2},
        "metaspikformer": {"dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1, 1), "num_heads": 2},
    }[name.split("_")[0]]
    if name.endswith("dvs"):
        small = {"dims": (8, 16), "depths": (1, 1), "num_heads": 2}
    examples = theirs(tiny(name, **small).state_dict())
    assert example in examples
    model = loads(name, theirs, tiny, tmp_path, **small)
    filtered = get_entry(name).checkpoint_filter_fn(model.state_dict(), model)
    assert list(filtered) == list(model.state_dict())  # our own files pass unchanged


def test_foreign_weights_have_a_classifier_without_neuron(tiny, images, tmp_path):
    small = {"dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1, 1), "num_heads": 2}
    path = written(
        tmp_path / "c.pth", metaspikformer_file(tiny("metaspikformer_8_384", **small).state_dict())
    )
    arguments = {**small, "num_classes": 5, "time_steps": 2, "in_chans": 3}
    imported = zoo.load("metaspikformer_8_384", weights=path, **arguments)
    assert imported.model_args["head_neuron"] is False
    with torch.no_grad():
        features = imported.forward_features(images())
        assert torch.equal(imported.forward_head(features), imported.head(features.mean((-1, -2))))
    chosen = zoo.load("metaspikformer_8_384", weights=path, head_neuron=True, **arguments)
    assert chosen.head_neuron
    again = zoo.load(f"local-dir:{zoo.save(imported, tmp_path / 'out')}")
    assert not again.head_neuron


# -- bad arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("spikformer_8_512", {"num_heads": 7}, "512 channels do not divide into 7 heads"),
        ("spikformer_8_512", {"pooling": "11"}, "four digits 0 or 1"),
        ("sdt_8_512", {"num_heads": 7}, "512 channels do not divide into 7 heads"),
        ("sdt_8_512", {"pooling": "0121"}, "four digits 0 or 1"),
        ("qkformer_10_384", {"dims": (96, 192)}, "one number a stage each"),
        ("qkformer_10_384", {"stem": "7x7"}, "stem must be one of imagenet, cifar, events, half"),
        ("qkformer_10_384", {"num_heads": 5}, "96 channels do not divide into 5 heads"),
        ("metaspikformer_15m", {"dims": (64, 128, 256)}, "dims needs four numbers and depths five"),
    ],
)
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        on_meta(name, **kwargs)


def test_event_entries_take_frames(tiny):
    for name in ("spikformer_2_256_dvsg", "sdt_2_256_cifar10dvs", "qkformer_dvsg"):
        model = on_meta(name)
        assert model.time_steps == 16
        assert model.in_chans == 2
        assert len(model.default_cfg["mean"]) == 2
        frames = torch.zeros(5, 2, 2, 32, 32, device="meta")
        assert model(frames, steps=True).shape == (5, 2, model.num_classes)
