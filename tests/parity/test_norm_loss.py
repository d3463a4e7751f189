"""Norms over time in training and evaluation, and the losses over time."""

import pytest
import torch

from lightning_modules import mean_logit_loss, tet_loss
from spiking.layers import BNTT, TDBN, TEBN
from tests.parity.goldens import over_cases

pytestmark = pytest.mark.golden


def build(case):
    settings, channels = case.settings, case["x"].shape[2]
    if "v_th" in settings:
        return TDBN(channels, settings["alpha"], settings["v_th"])
    return (TEBN if "scale" in case else BNTT)(channels, settings["T"])


def own(key):
    """Name in our modules: tdBN and TEBN keep their batch norm under ``bn``."""
    return key if key.startswith(("scale", "bn_list")) else f"bn.{key}"


@over_cases("y_train", "y_eval")
def test_norms(case):
    norm = build(case)
    stored = {k for k in case.keys if not k.startswith(("grad", "y_"))}
    parameters = {own(k) for k in stored if "running" not in k}
    assert parameters == {k for k, _ in norm.named_parameters()}
    with torch.no_grad():
        for key, parameter in norm.named_parameters():
            plain = key.removeprefix("bn.") if key.startswith("bn.") else key
            parameter.copy_(case[plain].reshape(parameter.shape))
    x = case["x"].clone().requires_grad_()
    y = norm.train()(x)
    case.close("y_train", y)
    (y * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad)
    for key, gradient in case.under("grad.").items():
        parameter = norm.get_parameter(own(key))
        torch.testing.assert_close(parameter.grad.reshape(gradient.shape), gradient, rtol=1e-4, atol=1e-5)
    state = norm.state_dict()
    for key in stored:
        if "running" in key:
            case.close(key, state[own(key)])
    case.close("y_eval", norm.eval()(case["x"]))
    case.everything_was_compared()


@over_cases("logits", "target", "tet_full")
def test_losses(case):
    settings = next(c for c in case.sidecar["cases"].values() if "lambda_" in c)
    for key, loss in (
        ("tet_ce", lambda z: tet_loss(z, case["target"], tet_lambda=0.0)),
        ("mean_logit_ce", lambda z: mean_logit_loss(z, case["target"])),
        ("tet_full", lambda z: tet_loss(z, case["target"], settings["lambda_"], settings["constant"])),
    ):
        z = case["logits"].clone().requires_grad_()
        value = loss(z)
        value.backward()
        case.close(key, value)
        case.close(f"{key}_grad", z.grad)
    case.everything_was_compared()
