"""A small member of every family, and every conversion method, through onnxruntime; all of them fire."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import zoo
from conversion import convert, list_methods
from tests.zoo.export.lively import liven
from zoo.export.plan import plan_of
from zoo.export.request import Request
from zoo.rebuild import runs_over_time

pytestmark = [pytest.mark.export, pytest.mark.slow]
SIDE = 32
TRANSFORMERS = ("dcgs", "ecmt")  # methods that take more than ReLU


def small(model):
    """For images as small as those of the tests, the entry's may be ImageNet's; and it fires."""
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (model.in_chans, SIDE, SIDE)}
    return liven(
        model, torch.randn(8, model.in_chans, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    )


def needs_onnx():
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")


def told(done):
    """What a comparison says, of a network that fires."""
    assert "silent" not in done.checked
    assert done.gap < 0.5, done.checked
    return done.outputs["logits"]


@pytest.mark.parametrize("steps", [1, 4])
def test_every_family_in_onnx(case, steps, tiny, tmp_path):
    needs_onnx()
    spiking = runs_over_time(tiny(case))
    if not spiking and steps > 1:
        pytest.skip("an ANN has no time steps")
    model = small(tiny(case, time_steps=steps) if spiking else tiny(case))
    assert told(zoo.export(model, tmp_path / "net.onnx")) == (
        f"[{steps}, batch, 5]" if spiking else "[batch, 5]"
    )


def test_one_step_of_every_family_in_onnx(spiking_case, tiny, tmp_path):
    """Over four steps and more, each with another image, against the network that streams."""
    needs_onnx()
    model = small(tiny(spiking_case, time_steps=4))
    if spiking_case.startswith("lmht"):
        with pytest.raises(zoo.ExportError, match="not causal"):
            zoo.export(model, tmp_path / "net.onnx", step=True)
        return
    assert told(zoo.export(model, tmp_path / "net.onnx", step=True)) == "[batch, 5]"


def test_steps_of_every_family_are_one_pass(spiking_case, tiny):
    """The function that becomes the graph of one step, T times on an image, against one pass over T steps."""
    model = small(tiny(spiking_case, time_steps=4))
    if spiking_case.startswith("lmht"):
        pytest.skip("not causal")
    plan = plan_of(model, Request(step=True))
    image = torch.randn(3, model.in_chans, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (found,) = plan.whole(plan.traced)((image.expand(4, *image.shape),))
        wanted = model(image, steps=True)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(wanted[-1].unique(dim=0)) == 3


def source(kind):
    torch.manual_seed(0)
    if kind == "transformer":
        return timm.create_model(
            "vit_tiny_patch16_224", img_size=SIDE, patch_size=16, depth=1, num_classes=5
        ).eval()
    return zoo.create("qcfs_resnet20", layers=(1, 1), planes=(8, 16), activation="relu", num_classes=5).eval()


METHODS = [(method, "cnn") for method in list_methods()] + [
    (method, "transformer") for method in TRANSFORMERS
]


@pytest.mark.parametrize(("method", "kind"), METHODS, ids="-".join)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("form", ["all steps", "one step"])
def test_every_conversion_in_onnx(method, kind, steps, form, tmp_path):
    needs_onnx()
    images = torch.randn(16, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    snn = convert(source(kind), method=method, time_steps=steps, calibration=images, progress=False)
    if form == "one step" and not snn.method.causal:
        with pytest.raises(zoo.ExportError, match="not causal"):
            zoo.export(snn, tmp_path / "net.onnx", step=True)
        return
    done = zoo.export(snn, tmp_path / "net.onnx", step=form == "one step")
    assert told(done) == ("[batch, 5]" if form == "one step" else f"[{steps}, batch, 5]")


class Bessel(nn.Module):
    """Uses an operator that ONNX has not."""

    pretrained_cfg = {"input_size": (1, 4, 4)}  # noqa: RUF012

    def forward(self, x):
        return torch.special.bessel_j0(x.flatten(1))


def test_an_operator_that_onnx_has_not_is_named(tmp_path):
    needs_onnx()
    with pytest.raises(zoo.ExportError, match=r"has no form in ONNX: the operator \S*bessel_j0"):
        zoo.export(Bessel(), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
