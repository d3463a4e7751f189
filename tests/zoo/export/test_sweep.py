"""A small member of every family, and every conversion method, in every form that holds it."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import zoo
from conversion import convert, list_methods
from zoo.export.plan import plan_of
from zoo.export.request import Request

pytestmark = [pytest.mark.export, pytest.mark.slow]
SIDE = 32


def small(model):
    """For images as small as those of the tests; the entry's may be ImageNet's."""
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (model.in_chans, SIDE, SIDE)}
    return model.eval()


def test_every_family_in_onnx(case, tiny, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = zoo.export(small(tiny(case)), tmp_path / "net.onnx")
    over_time = "[batch, 5]" if isinstance(tiny(case), zoo.AnalogModel) else "[2, batch, 5]"
    assert done.outputs == {"logits": over_time}
    assert "silent" not in done.checked


class Bessel(nn.Module):
    """Uses an operator that ONNX has not."""

    pretrained_cfg = {"input_size": (1, 4, 4)}  # noqa: RUF012

    def forward(self, x):
        return torch.special.bessel_j0(x.flatten(1))


def test_an_operator_that_onnx_has_not_is_named(tmp_path):
    with pytest.raises(zoo.ExportError, match=r"has no form in ONNX: the operator \S*bessel_j0"):
        zoo.export(Bessel(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_every_family_step_by_step(spiking_case, tiny):
    """The function that becomes the graph of one step, against the network over several steps."""
    model = small(tiny(spiking_case))
    if spiking_case.startswith("lmht"):
        with pytest.raises(zoo.ExportError, match="not causal"):
            plan_of(model, Request(step=True))
        return
    plan = plan_of(model, Request(step=True))
    drawn = plan.compared.draw(3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        (wanted,), (found,) = plan.compared(drawn), plan.whole(plan.traced)(drawn)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(wanted[-1].unique(dim=0)) == 3


@pytest.mark.parametrize("method", list_methods())
@pytest.mark.parametrize("form", ["all steps", "one step"])
def test_every_conversion_of_a_transformer_or_cnn(method, form, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    if method in ("dcgs", "ecmt"):
        source = timm.create_model(
            "vit_tiny_patch16_224", img_size=SIDE, patch_size=16, depth=1, num_classes=5
        )
    else:
        source = zoo.create("qcfs_resnet20", layers=(1, 1), planes=(8, 16), activation="relu", num_classes=5)
    images = torch.randn(16, 3, SIDE, SIDE)
    snn = convert(source.eval(), method=method, time_steps=2, calibration=images, progress=False)
    if form == "all steps":
        done = zoo.export(snn, tmp_path / "net.onnx")
    elif snn.method.causal:
        done = zoo.export(snn, tmp_path / "net.pt2", step=True)
    else:
        with pytest.raises(zoo.ExportError, match="not causal"):
            zoo.export(snn, tmp_path / "net.pt2", step=True)
        return
    assert "silent" not in done.checked
