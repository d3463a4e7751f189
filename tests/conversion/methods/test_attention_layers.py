"""torch's own attention and transformer layers, in every way that they can be called."""

import pytest
import torch
from torch import nn

import spiking
from conversion import convert

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2))


class Attending(nn.Module):
    """Attention of 16 patches of a dozen features."""

    def __init__(self, first=False, cross=False, weights=False, mask=None, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)
        sizes = {"kdim": 6, "vdim": 9} if cross == "sizes" else {}
        self.attention = nn.MultiheadAttention(12, 2, batch_first=first, **sizes, **settings)
        self.first, self.cross, self.weights, self.mask = first, cross, weights, mask

    def forward(self, x):
        x = self.stem(x).flatten(2).permute((0, 2, 1) if self.first else (2, 0, 1))
        key = value = x
        if self.cross:
            key, value = x[..., :6], x[..., 3:]
        if self.cross is True:
            key, value = (y[:, ::2] if self.first else y[::2] for y in (x, x.flip(-1)))
        masks = {}
        if self.mask == "float":
            masks["attn_mask"] = torch.full((16, 16), -1e9).triu(1)
        elif self.mask == "bool":
            masks["attn_mask"] = torch.ones(16, 16, dtype=torch.bool).triu(1)
        y = self.attention(x, key, value, need_weights=self.weights, **masks)
        y = y[0] * (1 + y[1].amax()) if self.weights == "used" else y[0]
        return self.head((x + y).mean(1 if self.first else 0))


class Encoding(nn.Module):
    def __init__(self, first=True, norm_first=False, activation="relu"):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(
            12, 2, 24, batch_first=first, norm_first=norm_first, activation=activation
        )
        self.stem, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)
        self.encoder, self.first = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), first

    def forward(self, x):
        x = self.stem(x).flatten(2).permute((0, 2, 1) if self.first else (2, 0, 1))
        return self.head(self.encoder(x).mean(1 if self.first else 0))


def error(ann, method, steps, **settings):
    ann = ann.eval()
    with torch.no_grad():
        expected = ann(IMAGES)
        snn = convert(ann, method, steps, IMAGES, progress=False, **settings)
        got = snn(IMAGES)
    return float((got - expected).norm() / (expected - expected.mean()).norm()), snn


FAST = {
    "tokens first": Attending(),
    "batch first, weights": Attending(first=True, weights=True),
    "mask": Attending(mask="bool"),
    "encoder": Encoding(),
}
SLOW = {
    "batch first": Attending(first=True),
    "weights": Attending(weights=True),
    "mask of numbers": Attending(mask="float", weights=True),
    "mask, batch first": Attending(first=True, mask="bool", weights=True),
    "other tokens": Attending(cross=True),
    "other tokens, batch first, weights": Attending(first=True, cross=True, weights=True),
    "other sizes": Attending(cross="sizes"),
    "other sizes, weights": Attending(cross="sizes", weights=True),
    "no bias": Attending(bias=False),
    "bias of keys": Attending(add_bias_kv=True),
    "zero attention": Attending(add_zero_attn=True, weights=True),
    "encoder, tokens first": Encoding(first=False),
    "encoder, norm first": Encoding(norm_first=True, activation="gelu"),
}


@pytest.mark.parametrize("name", FAST)
def test_attention_converts(name):
    distance, snn = error(FAST[name], "dcgs", 32)
    assert distance < 0.01
    products = [r for r in spiking.profile_energy(snn, IMAGES).rows if "mm" in r.name or "matmul" in r.name]
    assert len(products) == (4 if name == "encoder" else 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_attention_converts_in_every_form(name):
    assert error(SLOW[name], "dcgs", 64)[0] < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("net", [FAST["tokens first"], SLOW["encoder, tokens first"]])
def test_ecmt_takes_attention_too(net):
    assert error(net, "ecmt", 64)[0] < 0.2


@pytest.mark.parametrize("first", [False, True])
def test_operations_of_a_layer_are_those_of_its_source(first):
    ann = Attending(first=first).eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        expected = spiking.profile_energy(ann, IMAGES).macs
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    snn = convert(ann, "dcgs", 4, IMAGES, progress=False)
    assert spiking.profile_energy(snn, IMAGES).ann_macs == expected
