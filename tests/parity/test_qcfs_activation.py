"""The QCFS activation against the authors' code, gradients included."""

import pytest
import torch

from spiking.qcfs import qcfs
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden
ORDERS = {"floor_first": "floor_then_clip", "clip_first": "clip_then_floor"}


@over_files("floor_then_clip.grad_x_*", "clip_then_floor.grad_x_*")
@pytest.mark.parametrize("order", ORDERS)
def test_values_and_gradients(golden, order):
    sidecar = golden.sidecar
    tolerance = {"rtol": 0, "atol": sidecar["tolerance"]}
    for case, (levels, theta) in enumerate(zip(sidecar["L"], sidecar["lambda"], strict=True)):
        x = golden[f"x_{case}"].requires_grad_()
        v_threshold = golden[f"lambda_{case}"].requires_grad_()
        assert v_threshold.item() == pytest.approx(theta)
        assert golden[f"levels_{case}"].item() == levels
        y = qcfs(x, v_threshold, levels, order)
        y.backward(golden[f"upstream_{case}"])
        torch.testing.assert_close(y.detach(), golden[f"y_{case}"], **tolerance)
        torch.testing.assert_close(x.grad, golden[f"{ORDERS[order]}.grad_x_{case}"], **tolerance)
        golden.sum_close(f"{ORDERS[order]}.grad_lambda_{case}", v_threshold.grad, x.numel())


@over_files("floor_then_clip.grad_x_*", "open_interval_clamp.grad_x_*")
def test_torchs_own_clamp_would_train_another_network(golden):
    """The authors' lines on torch 2.14, whose clamp passes nothing at its bounds: not what is published."""
    for case, levels in enumerate(golden.sidecar["L"]):
        x, theta = golden[f"x_{case}"], golden[f"lambda_{case}"]
        target, other = (golden[f"{n}.grad_x_{case}"] for n in ("floor_then_clip", "open_interval_clamp"))
        r = torch.floor(x * levels / theta + 0.5)
        on_a_bound = (r == 0) | (r == levels)
        assert on_a_bound.any()
        assert torch.equal(other, target.masked_fill(on_a_bound, 0))
        assert not torch.equal(other, target)
        key = f"grad_lambda_{case}"
        assert not torch.allclose(golden[f"open_interval_clamp.{key}"], golden[f"floor_then_clip.{key}"])
