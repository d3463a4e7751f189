"""One network of each kind in ONNX, one step of every family, and what ONNX has not.

`benchmarks/export.py` takes all families and all methods of conversion through onnxruntime, in every form.
"""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import zoo
from conversion import convert
from tests.zoo.export.lively import liven
from zoo.export.plan import plan_of
from zoo.export.request import Request
from zoo.rebuild import runs_over_time

pytestmark = [pytest.mark.export, pytest.mark.slow]
SIDE = 32
KINDS = {  # entry and T: delays, attention, residuals, a quantised activation of an ANN
    "delay_snn_nano": 2,
    "spikingresformer_nano": 1,
    "ms_resnet18": 2,
    "qcfs_resnet18": 1,
}


def small(model):
    """For images as small as those of the tests; the entry's may be ImageNet's."""
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (model.in_chans, SIDE, SIDE)}
    return model.eval()


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_networks_in_onnx(name, tiny, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    steps = KINDS[name]
    spiking = runs_over_time(tiny(name))
    model = small(tiny(name, time_steps=steps) if spiking else tiny(name))
    images = torch.randn(8, model.in_chans, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    done = zoo.export(liven(model, images), tmp_path / "net.onnx")
    assert done.outputs == {"logits": f"[{steps}, batch, 5]" if spiking else "[batch, 5]"}
    assert "silent" not in done.checked
    assert done.gap < 0.5, done.checked


def converted(method):
    """Of a small source, convolutions unless it is to be a transformer."""
    torch.manual_seed(0)
    kind, _, method = method.rpartition(" ")
    if kind:
        small = {"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 48, "num_classes": 3}
        source = timm.create_model("vit_tiny_patch16_224", **small)
    else:
        convolutions = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
        source = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 3))
    images = torch.randn(8, 3, 8, 8)
    return convert(source.eval(), method=method, time_steps=2, calibration=images, progress=False)


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("srp", False),
        ("cos", False),
        ("parallel", False),
        ("qcfs", True),
        ("ecmt", True),
        ("dcgs", True),
        ("transformer dcgs", True),
    ],
)
def test_converted_networks_in_onnx(method, step, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = zoo.export(converted(method), tmp_path / "net.onnx", step=step)
    assert done.outputs["logits"] == ("[batch, 3]" if step else "[2, batch, 3]")
    assert "silent" not in done.checked
    assert done.gap < 0.5, done.checked


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
