"""Attention blocks against numbers of SpikingJelly's code: spike-driven, and masks over channels."""

import pytest
import torch

from tests.parity.goldens import over_cases
from zoo.layers.convolution import neuron_factory
from zoo.layers.transformer import NEURON_DEFAULTS
from zoo.models import qkformer, sdt

pytestmark = pytest.mark.golden

MAKE = neuron_factory("lif", None, NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


def attends(g):
    return "package" in g.sidecar["source"] and "heads" in g.settings


def spike_driven(case):
    state = case.under("state.")
    dim = len(state["proj_bn.weight"])
    module = sdt.SDSA(dim, case.settings["heads"], MAKE, MAKE_ATTN)
    return module, state, {key: key for key in state}


def channel_masks(case):
    """SpikingJelly joins the layers of q and k, and leaves the bias of the last one out."""
    theirs = case.under("state.")
    dim = len(theirs["proj_conv_bn.1.weight"])
    module = qkformer.QKAttention(dim, case.settings["heads"], MAKE, MAKE_ATTN, mask="channel")
    state, places = {"proj_conv.bias": torch.zeros(dim)}, {}
    for key, value in theirs.items():
        part, place, leaf = key.split(".")
        layer = "conv" if place == "0" else "bn"
        value = value.unsqueeze(-1) if value.dim() == 3 else value
        names = ("q", "k") if part == "qk_conv_bn" else ("proj",)
        for name, piece in zip(names, value.chunk(len(names)), strict=True):
            state[f"{name}_{layer}.{leaf}"] = piece
        places[key] = [f"{name}_{layer}.{leaf}" for name in names]
    return module, state, places


@over_cases("y", "grad_output", "state.*", where=attends)
def test_case(case):
    build = channel_masks if case.holds("state.qk_conv_bn.*") else spike_driven
    module, state, places = build(case)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    module.eval().double()
    x = case["x"].double().requires_grad_()
    as_map = x if x.dim() == 5 else x.unsqueeze(-1)
    y = module(as_map)
    if build is spike_driven:
        y = y + as_map  # their block holds the shortcut
    y = y.reshape(x.shape)
    case.close("y", y.float(), rtol=0, atol=1e-5)
    (y * case["grad_output"]).sum().backward()
    case.close("grad_x", x.grad.float())
    ours = {k: p.grad for k, p in module.named_parameters()}
    for key in [k for k in case.keys if k.startswith("grad.")]:
        names = places[key.removeprefix("grad.")]
        got = torch.cat([ours[n] for n in ([names] if isinstance(names, str) else names)])
        # the file holds float32 sums whose terms are as large as the largest entries
        case.close(key, got.float(), atol=2e-5 * float(case[key].abs().max()))
    case.everything_was_compared()
