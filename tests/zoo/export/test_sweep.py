"""Small members of families in ONNX, one step of every family, and what ONNX has not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from tests.zoo.export.lively import liven
from zoo.export.plan import plan_of
from zoo.export.request import Request
from zoo.rebuild import runs_over_time

pytestmark = [pytest.mark.export, pytest.mark.slow]
SIDE = 32
# T with which members of a family went through onnxruntime; the others take minutes each, and wait for that
SEEN = {"delay_snn": 2, "ge2mst": 2, "jelly": 4, "metaspikformer": 4, "ms_resnet": 2, "qcfs": 2}


def small(model):
    """For images as small as those of the tests; the entry's may be ImageNet's."""
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (model.in_chans, SIDE, SIDE)}
    return model.eval()


def test_families_in_onnx(case, tiny, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    steps = next((steps for family, steps in SEEN.items() if case.startswith(family)), None)
    if steps is None:
        pytest.skip(f"{case} was not run through onnxruntime yet")
    spiking = runs_over_time(tiny(case))
    model = small(tiny(case, time_steps=steps) if spiking else tiny(case))
    if steps == 4:
        images = torch.randn(8, model.in_chans, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
        model = liven(model, images)
    done = zoo.export(model, tmp_path / "net.onnx")
    assert done.outputs == {"logits": f"[{steps}, batch, 5]" if spiking else "[batch, 5]"}
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
