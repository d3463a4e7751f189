"""The QCFS activation against the authors' code, gradients included."""

import pytest
import torch

from spiking.qcfs import qcfs

FILE = "qcfs_activation"
GOLDEN_FILES = {f"conversion_cnn/{FILE}"}
pytestmark = pytest.mark.golden
ORDERS = {"floor_first": "floor_then_clip", "clip_first": "clip_then_floor"}


@pytest.mark.parametrize("order", ORDERS)
def test_values_and_gradients(conversion_cnn, order):
    sidecar, golden = conversion_cnn(FILE)
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
        expected = golden[f"{ORDERS[order]}.grad_lambda_{case}"]
        torch.testing.assert_close(v_threshold.grad, expected, rtol=1e-5, atol=sidecar["tolerance"])


def test_torchs_own_clamp_would_train_another_network(conversion_cnn):
    """The authors' lines on torch 2.14, whose clamp passes nothing at its bounds: not what is published."""
    sidecar, golden = conversion_cnn(FILE)
    for case, levels in enumerate(sidecar["L"]):
        x, theta = golden[f"x_{case}"], golden[f"lambda_{case}"]
        target, other = (golden[f"{n}.grad_x_{case}"] for n in ("floor_then_clip", "open_interval_clamp"))
        r = torch.floor(x * levels / theta + 0.5)
        on_a_bound = (r == 0) | (r == levels)
        assert on_a_bound.any()
        assert torch.equal(other, target.masked_fill(on_a_bound, 0))
        assert not torch.equal(other, target)
        key = f"grad_lambda_{case}"
        assert not torch.allclose(golden[f"open_interval_clamp.{key}"], golden[f"floor_then_clip.{key}"])
