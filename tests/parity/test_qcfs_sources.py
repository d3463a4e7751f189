"""The source networks against the authors' four codes: their checkpoints load, their logits come out."""

import math
import re

import pytest
import torch

import zoo
from conversion.qcfs import QCFS
from zoo import qcfs_resnet, qcfs_vgg

pytestmark = pytest.mark.golden
# Claimed as GOLDEN_FILES by the modules of the four conversions, which compare what the networks become.
VGG = ("qcfs_net_vgg", "srp_net_vgg", "cos_net_vgg", "parallel_net_vgg_lossless")
RESNET = ("qcfs_net_resnet", "srp_net_resnet", "cos_net_resnet", "parallel_net_resnet_calibrated")


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def described(sidecar, state, image):
    """Arguments of the network that the sidecar describes in words."""
    text = sidecar["architecture"]
    kwargs = {"levels": sidecar["L"], "in_chans": image.shape[-3]}
    if "VGG" in text:
        plan = re.search(r"channel plan \[(\[.*?\])\] ", text)[1]
        kwargs["plan"] = [numbers(stage) for stage in plan.split("]")[:-1]]
        linear = [numbers(pair) for pair in re.findall(r"Linear\((.*?)\)", text)]
        kwargs |= {"hidden": linear[0][1], "num_classes": linear[-1][1]}
        kwargs["pool_size"] = math.isqrt(linear[0][0] // kwargs["plan"][-1][-1])
        return "qcfs_vgg16", kwargs
    kwargs["planes"] = numbers(re.search(r"widths ([\d,]+)", text)[1])
    kwargs["layers"] = numbers(re.search(r"per stage \[(.*?)\]", text)[1])
    return "qcfs_resnet20", {**kwargs, "num_classes": len(state["fc.bias"])}


@pytest.mark.parametrize("file", [*VGG, *RESNET])
def test_logits(conversion_cnn, file):
    sidecar, golden = conversion_cnn(file)
    state = {k.removeprefix("params."): v for k, v in golden.items() if k.startswith("params.")}
    name, kwargs = described(sidecar, state, golden["input"])
    model = zoo.create(name, **kwargs).eval()
    module = qcfs_vgg if "vgg" in name else qcfs_resnet
    zoo._checkpoint.load_strict(model, module.checkpoint_filter_fn(state, model), source=file)
    found = [m.v_threshold.item() for m in model.modules() if isinstance(m, QCFS)]
    assert found == pytest.approx(list(sidecar["thresholds"].values()), abs=1e-6)
    with torch.no_grad():
        logits = model(golden["input"])
    torch.testing.assert_close(logits, golden["ann_logits"], rtol=0, atol=sidecar["tolerance"])
