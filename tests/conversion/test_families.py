"""The engine on thirty families of timm, at random weights.

With its neurons bypassed a converted network is its source: with steps that are alike at every step, and with
steps as uneven as spikes over all of them. Values are exchanged as running means (DCGS) where attention was
fused, and as steps (ECMT) where it was not; both end in one canonical graph.
"""

import pytest
import timm
import torch
from timm.layers import set_fused_attn

from conversion import prepare, self_test

CLASSES = 10
WAYS = {True: "fused", False: "plain"}
SMALL = {"img_size": 64}
# arguments and image size; families that fix the size of the image have their own
FAST = {
    "convnext_atto": ({}, 64),
    "deit3_small_patch16_224": (SMALL, 64),
    "efficientnet_b0": ({}, 64),
    "mixer_s32_224": (SMALL, 64),
    "regnety_002": ({}, 64),
    "resnet18": ({}, 64),
    "vgg11_bn": ({}, 64),
    "vit_tiny_patch16_224": (SMALL, 64),
}
SLOW = {
    "beit_base_patch16_224": ({**SMALL, "depth": 3}, 64),
    "cait_xxs24_224": (SMALL, 64),
    "coat_lite_tiny": ({}, 224),
    "crossvit_tiny_240": ({}, 240),
    "davit_tiny": ({}, 64),
    "efficientformer_l1": ({}, 224),
    "eva02_tiny_patch14_224": ({"img_size": 56}, 56),
    "fastvit_t8": ({}, 64),
    "ghostnet_100": ({}, 64),
    "levit_128s": (SMALL, 64),
    "maxvit_nano_rw_256": (SMALL, 64),
    "mobilenetv3_large_100": ({}, 64),
    "mobilevit_xxs": ({}, 64),
    "nest_tiny": (SMALL, 64),
    "poolformer_s12": ({}, 64),
    "pvt_v2_b0": ({}, 64),
    "repvit_m1": ({}, 64),
    "resnetv2_50": ({}, 64),
    "swin_tiny_patch4_window7_224": ({"img_size": 56}, 56),
    "twins_pcpvt_small": ({}, 64),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56}, 56),
    "xcit_nano_12_p16_224": ({}, 64),
}
# without attention nothing differs but how values are exchanged, which resnet18 shows in both ways
ONE_WAY = {
    "convnext_atto", "efficientnet_b0", "ghostnet_100", "mixer_s32_224", "mobilenetv3_large_100",
    "poolformer_s12", "regnety_002", "repvit_m1", "resnetv2_50", "vgg11_bn",
}  # fmt: skip
CASES = [
    pytest.param(name, fused, marks=() if name in FAST else pytest.mark.slow)
    for name in (*FAST, *SLOW)
    for fused in ((True,) if name in ONE_WAY else (True, False))
]


@pytest.fixture
def fused(request):
    set_fused_attn(request.param)  # of modules that are built afterwards
    yield request.param
    set_fused_attn(True)


@pytest.mark.parametrize(
    ("name", "fused"), CASES, indirect=["fused"], ids=lambda v: v if isinstance(v, str) else WAYS[v]
)
def test_bypassed_network_is_the_source(name, fused):
    arguments, pixels = {**FAST, **SLOW}[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **arguments).eval()
    snn = prepare(model, "dcgs" if fused else "ecmt", 4, input_size=(3, pixels, pixels))
    images = torch.randn(3, 3, pixels, pixels)  # another batch than the exported one
    assert self_test(snn, model, images) < 1e-4
    added = {k for k in snn.state_dict().keys() - model.state_dict().keys() if "threshold" not in k}
    assert not added, "constants of the graph are no weights"
    assert snn.report.layers >= 10
