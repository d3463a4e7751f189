"""Whole blocks of ECMT and DCGS, in two forms: as the authors run them, and between represented values."""

import re
from functools import partial

import pytest
import torch
from oracles.compensation import compensate, compensate_product
from oracles.slots import graded, graded_matmul
from torch.nn import functional as F

from conversion import thresholds
from conversion.network import operation as energy
from spiking.functional import codes, multi_threshold
from spiking.levels import Levels
from spiking.measure.operations import sent_before
from spiking.reference import multi_threshold as multi_threshold_reference
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden

PLACES = ("attn.qkv", "q", "k", "softmax", "v", "attn.proj", "mlp.fc1", "mlp.fc2")
ECMT = dict(
    zip(PLACES, ("x_in", "q_out", "k_out", "attn_out", "v_out", "x_out", "x1_in", "x2_in"), strict=True)
)
DCGS = {"q": "attn.at1", "k": "attn.at1#2", "softmax": "attn.at2", "v": "attn.at2#2"}


class Block:
    """A block of a vision transformer over ``[..., B, N, C]``, with what happens to signals left open."""

    def __init__(self, data):
        self.weights, self.heads = data.under("weights."), data.sidecar["num_heads"]
        self.eps = data.sidecar["layernorm_eps"]

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name):
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return lambda x: F.layer_norm(x, x.shape[-1:], weight, bias, self.eps)

    def __call__(self, x, place, unit=lambda f, x: f(x), product=torch.matmul):
        """``place(name, x)`` is a neuron, ``unit(f, x)`` a function, ``product(a, b)`` a product."""
        qkv = self.linear("attn.qkv", place("attn.qkv", unit(self.norm("norm1"), x)))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)
        scores = product(place("q", q), place("k", k.transpose(-2, -1))) * q.shape[-1] ** -0.5
        attention = place("softmax", unit(lambda z: z.softmax(-1), scores))
        out = product(attention, place("v", v)).transpose(-3, -2).flatten(-2)
        x = x + self.linear("attn.proj", place("attn.proj", out))
        hidden = self.linear("mlp.fc1", place("mlp.fc1", unit(self.norm("norm2"), x)))
        return x + self.linear("mlp.fc2", place("mlp.fc2", unit(F.gelu, hidden)))

    def operations(self, sent, known):
        """Counts in the sidecars' order; ``sent`` by place, ``known(sent)`` the other factor of products."""
        linear = {
            name: energy.linear_operations(sent[name], len(self.weights[f"{name}.weight"]))
            for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        }
        products = [
            energy.product_operations(sent[a], sent[b], known(sent[a]), known(sent[b]))
            for a, b in (("q", "k"), ("softmax", "v"))
        ]
        return [linear["attn.qkv"], linear["attn.proj"], *products, linear["mlp.fc1"], linear["mlp.fc2"]]


def ann(block, data):
    data.close("ann_output", block(data["input"], lambda name, x: x))


def compare_operations(data, prefix, counts, expected):
    for i, what in enumerate(("sop", "mac")):
        want = data[f"{prefix}{what}"].double()
        torch.testing.assert_close(torch.stack([c[i] for c in counts]), want, rtol=1e-3, atol=0.5)
    rate = energy.mean_rate(counts)
    for got, key in ((rate, "mean_rate_up_to_t"), (energy.energy_ratio(rate), "energy_ratio_up_to_t")):
        want = torch.tensor(expected[key], dtype=torch.float64)
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


@over_files("weights.attn.qkv.weight", "input", "*.output", "!scale.*")
@torch.no_grad()
def test_ecmt_vit(golden):
    data = golden
    block, T = Block(data), data.sidecar["T"]
    ann(block, data)
    seen = {name: [] for name in PLACES}
    for images in data["calibration"]:
        block(images, lambda name, x: seen[name].append(x) or x)
    image = data["input"].expand(T, *data["input"].shape)
    for variant, expected in data.sidecar["variants"].items():
        levels = {}
        for key, used in expected["thresholds_used"].items():
            name = next(n for n, place in ECMT.items() if key.split(".")[1] == f"{place}_test")
            average = thresholds.Average()
            for x in seen[name]:
                average.add(thresholds.base_quantiles(x, expected["percent"]))
            measured = expected["thresholds_measured"][key]
            want = torch.tensor([measured["scale_p"], measured["scale_n"]])
            torch.testing.assert_close(average.value, want, rtol=1e-5, atol=1e-6)
            base = used["base_positive"], used["base_negative"]
            levels[name] = Levels.smallest(*base, used["num_thresholds"])
        for form in (multi_threshold_reference, multi_threshold):
            sent = {}

            def neuron(name, x, form=form, sent=sent, levels=levels):
                sent[name] = form.rate_coded(x, levels[name])[0]
                return sent[name]

            y = block(
                image, neuron, lambda f, x: compensate(f, x)[0], lambda a, b: compensate_product(a, b)[0]
            )
            data.close(f"{variant}.output", y)
        counts = block.operations(sent, lambda s: s.cumsum(0))
        compare_operations(data, f"{variant}.", counts, expected)
        means = block(image, lambda name, x, v=levels: multi_threshold.track(x, v[name], code="rate")[0])
        torch.testing.assert_close(means, codes.running_mean(y)[0], rtol=1e-4, atol=1e-4)
        data.close(f"{variant}.output", codes.increments(means)[0], atol=1e-3)
    long = data["input"].expand(512, *data["input"].shape)
    means = block(long, lambda name, x: multi_threshold.track(x, levels[name], code="rate")[0])
    error = (means - data["ann_output"]).abs().mean((1, 2, 3))
    assert 16 < error[7] / error[511] < 256, "the error falls as 1 / T: to a 64th"
    data.everything_was_compared()


@over_files("weights.attn.qkv.weight", "diff.output", "scale.*")
@torch.no_grad()
def test_dcgs_vit(golden):
    data = golden
    block, T = Block(data), data.sidecar["T"]
    ann(block, data)
    levels = dcgs_levels(block, data)
    slots = data["diff.encoded_input"]
    image = data["input"].expand(T, *data["input"].shape)
    assert torch.equal(slots, torch.cat([0 * image[:1], image[:1], 0 * image[1:]]))

    y = block(
        slots,
        lambda name, x: multi_threshold_reference.differential(x, levels[name]),
        graded,
        graded_matmul,
    )
    data.close("diff.output", y)
    data.close("diff.decoded", codes.decode(y[1:], y[0]))
    represented = codes.represented(y[1:], y[0])[0]
    for code in multi_threshold.CODES:
        sent, prefix = {}, {"differential": "diff", "rate": "rate"}[code]

        def neuron(name, x, code=code, sent=sent):
            mo, sent[name], _ = multi_threshold.track(x, levels[name], code=code, with_spikes=True)
            return mo

        means = block(image, neuron)
        if code == "rate":
            data.close("rate.output", codes.increments(means)[0], atol=2e-3)
        else:
            torch.testing.assert_close(means, represented, rtol=1e-4, atol=1e-4)
        counts = block.operations(sent, sent_before)
        compare_operations(data, f"{prefix}.", counts, data.sidecar["variants"][prefix])
    y = block(
        image,
        lambda name, x: multi_threshold.rate_coded(x, levels[name])[0],
        lambda f, x: compensate(f, x)[0],
        lambda a, b: compensate_product(a, b)[0],
    )
    data.close("rate.output", y)
    data.everything_was_compared()


def dcgs_levels(block, data):
    """Thresholds from the calibration batches: of inputs of layers and products, of outputs of functions."""
    averages = {}
    share = float(re.search(r"([\d.]+)%", data.sidecar["official_object"])[1]) / 100

    def watch(name, x):
        averages.setdefault(name, thresholds.Average()).add(thresholds.quantile(x, share, "channel"), len(x))
        return x

    names = iter(("norm1", "attn.softmax", "norm2", "mlp.act") * len(data["calibration"]))
    for images in data["calibration"]:
        block(images, lambda name, x: watch(DCGS.get(name, name), x), lambda f, x: watch(next(names), f(x)))
    wanted = data.under("scale.")
    assert set(averages) == set(wanted)
    for name, scale in wanted.items():
        torch.testing.assert_close(averages[name].value, scale, rtol=1e-5, atol=1e-5)
    times, n = data.sidecar["threshold_multiplier"], data.sidecar["num_thresholds"]
    return {p: Levels.largest(wanted[DCGS.get(p, p)].clamp_min(0) * times, n) for p in PLACES}


def over(function, x):
    """A function of ``[B, C, H, W]`` on ``[..., B, C, H, W]``."""
    return function(x.flatten(0, -4)).unflatten(0, x.shape[:-3])


def stated(word, text):
    """The number behind a word of the sidecar."""
    return int(re.search(rf"{word} (\d+)", text)[1])


class ResNet:
    """Stem, one block, head; pooling in front of the stem's activation."""

    def __init__(self, data):
        self.weights = data.under("weights.")
        stride = stated("stride", data.sidecar["official_object"])
        self.settings = {
            "conv1": {"padding": 1},
            "block.conv1": {"stride": stride, "padding": 1},
            "block.conv2": {"padding": 1},
            "block.downsample.0": {"stride": stride},
        }

    def conv_norm(self, conv, norm, x):
        self.inputs[conv] = x
        w = self.weights
        x = over(lambda z: F.conv2d(z, w[f"{conv}.weight"], **self.settings[conv]), x)
        own = [w[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        return over(lambda z: F.batch_norm(z, *own, eps=1e-5), x)

    def __call__(self, x, relu, pool):
        """``relu(name, x)`` stands for the neuron, ``pool(x)`` for the pooling of the stem."""
        self.inputs = {}
        x = relu("maxpool.1", pool(self.conv_norm("conv1", "bn1", x)))
        y = relu("block.relu1", self.conv_norm("block.conv1", "block.bn1", x))
        y = self.conv_norm("block.conv2", "block.bn2", y)
        y = relu("block.relu2", y + self.conv_norm("block.downsample.0", "block.downsample.1", x))
        self.inputs["fc"] = y = y.mean((-2, -1))
        return F.linear(y, self.weights["fc.weight"], self.weights["fc.bias"])

    def operations(self, layers):
        """Counts, slot 0 left out."""
        found = []
        for name in layers:
            x, weight = self.inputs[name][1:], self.weights[f"{name}.weight"]
            settings = self.settings.get(name)
            found.append(
                energy.linear_operations(x, len(weight))
                if settings is None
                else energy.conv_operations(x, weight, **settings)
            )
        return found


@over_files("weights.block.conv1.weight", "relu.*.theta", "represented")
@torch.no_grad()
def test_dcgs_resnet(golden):
    data = golden
    network, sidecar, T = ResNet(data), data.sidecar, data.sidecar["T"]
    window = [stated(word, sidecar["stem_maxpool"]) for word in ("kernel", "stride", "padding")]

    def pool(x):
        return F.max_pool2d(x, *window)

    pooled = partial(over, pool)
    ann = network(data["input"], lambda name, x: x.relu(), pooled)
    data.close("ann_output", ann)
    before = network(
        data["input"], lambda name, x: over(pool, x.relu()) if name == "maxpool.1" else x.relu(), lambda x: x
    )
    torch.testing.assert_close(before, ann, rtol=0, atol=0)  # pooling behind the activation is the same

    moments = {}
    for images in data["calibration"]:
        network(images, lambda n, x: moments.setdefault(n, thresholds.Moments()).add(x) or x.relu(), pooled)
    levels = {}
    assert sidecar["iteration_levels_n"] == thresholds.quantisation_levels(T, sidecar["num_thresholds"])
    for name, found in moments.items():
        theta = thresholds.iterated_threshold(found.mean, found.var, sidecar["iteration_levels_n"])
        for key, got in (("mean", found.mean), ("var", found.var)):
            data.close(f"relu.{name}.{key}", got, atol=1e-4)
        near = (theta / data[f"relu.{name}.theta"] - 1).abs() < 0.01
        assert near.float().mean() > 0.8  # float32 moves the thresholds of channels that hardly fire
        levels[name] = Levels.largest(data[f"relu.{name}.theta"].clamp_min(0), sidecar["num_thresholds"])

    slots = torch.zeros(T + 1, *data["input"].shape)
    slots[1] = data["input"]
    sent = {}

    def neuron(name, x):
        sent[name] = multi_threshold_reference.differential(x, levels[name], kind="relu")
        return sent[name]

    for pooling in (
        pooled,
        lambda x: graded(pool, x),
    ):  # plain at each slot, as in the code; or in general
        y = network(slots, neuron, pooling)
        data.close("output", y)
        data.close("decoded", codes.decode(y[1:], y[0]))
        data.close("represented", codes.represented(y[1:], y[0])[0])
    compare_operations(data, "", network.operations(sidecar["layers"]), sidecar)

    image = data["input"].expand(T, *data["input"].shape)
    means = network(image, lambda n, x: multi_threshold.track(x, levels[n], kind="relu")[0], pooled)
    if not any(has_ties(s, levels[name]) for name, s in sent.items()):
        data.close("represented", means)
    error = (means - ann).abs().mean((1, 2))
    assert error[-1] < error[0] / 4
    data.everything_was_compared()


def has_ties(spikes, levels):
    """Whether a neuron had once sent exactly a level, which rounding lets a ReLU take back or not.

    Up to the third step all sums are exact: only thirds round.
    """
    t = torch.arange(1, len(spikes), dtype=torch.float64).view(-1, *(1,) * (spikes.dim() - 1))
    c = t[3:] * (spikes[1:].double() / t).cumsum(0)[2:-1]
    units = levels.unit.double()
    return any(bool(((c - units * 2**k).abs() < 1e-5 * units * 2**k).any()) for k in range(levels.n))
