"""Tiny residual networks of LMHT_SNN: outputs, gradients, and their single-threshold form."""

from collections import Counter

import pytest
import torch

import spiking
import zoo
from conversion import lmht
from tests.parity.goldens import over_cases
from zoo.models.spiking_resnet import lmht_filter_fn

pytestmark = pytest.mark.golden
NETWORKS = over_cases("logits", "logits_single", "single_state.*")


def build(case):
    settings, state = case.settings, case.under("state.")
    blocks = {tuple(k.removeprefix("layer").split(".")[:2]) for k in state if k.startswith("layer")}
    depth = Counter(stage for stage, _ in blocks)
    model = zoo.create(
        "lmht_resnet18",
        layers=[depth[s] for s in sorted(depth)],
        planes=[len(state[f"layer{s}.0.conv1.0.weight"]) for s in sorted(depth)],
        preactivation=settings["ms_block"],
        time_steps=settings["T"],
        neuron_args={"levels": settings["L"]},
        num_classes=len(state["fc.0.weight"]),
        in_chans=state["conv1.weight"].shape[1],
    ).eval()
    state = lmht_filter_fn(state, model)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    assert all(float(n.v_threshold) == settings["threshold"] for _, n in neurons(model))
    return model


def neurons(model):
    return [(name, m) for name, m in model.named_modules() if isinstance(m, spiking.LMHT)]


@NETWORKS
def test_outputs_and_gradients(case):
    model, x = build(case), case["x"].clone().requires_grad_()
    out = {}
    for name, neuron in neurons(model):
        neuron.register_forward_hook(lambda m, a, y, name=name: out.update({name: y.detach()}))
    logits = model(x, steps=True)
    case.close("logits", logits, rtol=0, atol=1e-4)
    for name, y in out.items():
        case.close(f"out.{name}", y, rtol=0, atol=1e-4)
    (logits * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad, rtol=1e-3, atol=1e-4)
    for name, parameter in model.named_parameters():
        case.close(f"grad.{name}", parameter.grad, rtol=1e-3, atol=1e-4)
    left = case.keys - case.seen
    assert all(key.startswith(("single_state.", "logits_single")) for key in left), "compared below"


@NETWORKS
def test_single_threshold_form(case):
    """The authors divide by L behind the stem's norm, we before it; and our last layer takes L back."""
    model, x, L = build(case), case["x"], case.settings["L"]
    single = lmht.reparameterise(model, x)
    with torch.no_grad():
        steps = single(x, steps=True)
        case.close("logits_single", steps / L, rtol=0, atol=1e-4)
        for key, value in case.under("single_state.").items():
            factor = 1 / L if key.startswith("bn1.") else L if key.startswith("fc.") else 1.0
            torch.testing.assert_close(single.state_dict()[key], value * factor, msg=key)
        scale = max(1.0, float(model(x).abs().max()))  # the last bits of float32 grow with the logits
        assert (single(x) - model(x)).abs().max() <= (1e-5 * scale) + case.settings["mean_logit_gap"] * L
        assert torch.equal(single(x).argmax(1), model(x).argmax(1)) == case.settings["argmax_equal"]
