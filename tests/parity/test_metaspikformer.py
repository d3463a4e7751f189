"""Blocks of Meta-SpikeFormer against numbers of its authors' code."""

import pytest
import torch

from tests.parity.goldens import from_repository, over_cases
from zoo.layers import reparameterised
from zoo.layers.convolution import neuron_factory
from zoo.layers.transformer import NEURON_DEFAULTS, Block, MembraneMLP, as_conv_weight
from zoo.models import metaspikformer

pytestmark = pytest.mark.golden

MAKE = neuron_factory("lif", None, NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


def build(case, state):
    about = case.settings
    dim = about.get("dim")
    if "pwconv1.weight" in state:
        return metaspikformer.SepConv(dim, MAKE)
    if "Conv.pwconv1.weight" in state:
        return metaspikformer.ConvBlock(dim, len(state["conv1.weight"]) / dim, MAKE)
    if "body.0.weight" in state:
        return reparameterised.RepConv(dim)
    if "attn.q_conv.0.body.0.weight" in state:
        attn = metaspikformer.RepAttention(dim, about["heads"], MAKE, MAKE_ATTN)
        return Block(attn, MembraneMLP(dim, dim * about["mlp_ratio"], MAKE))
    c_out, c_in, kernel, _ = state["encode_conv.weight"].shape
    make = None if kernel == 7 else MAKE  # the first of them, whose input is no spike yet
    stride = round(case["x"].shape[-1] / case["y"].shape[-1])
    return metaspikformer.Downsample(c_in, c_out, kernel, stride, make)


@over_cases("y", "grad_output", "state.*", where=from_repository("Spike-Driven-Transformer-V2"))
def test_case(case):
    state = {k: as_conv_weight(k, v) for k, v in case.under("state.").items()}
    module = build(case, state)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    # float32 as in the file: behind a silent attention the norms have no variance, and three of them in a
    # row enlarge the last bit of their inputs by a factor of 1e7
    module.eval()
    x = case["x"].clone().requires_grad_()
    case.output_and_gradients(module, x, module(x), noise=5e-5)
    case.everything_was_compared()


@over_cases("y", "state.body.0.weight", where=from_repository("Spike-Driven-Transformer-V2"))
def test_folded_projection(case):
    """The 3x3 convolution that a trained block becomes gives the authors' outputs, too."""
    module = reparameterised.RepConv(case.settings["dim"])
    module.load_state_dict(case.under("state."), strict=False)
    outer = torch.nn.BatchNorm2d(case.settings["dim"])
    kernel, bias = module.double().eval().kernel_and_bias(outer.double().eval())
    y = torch.nn.functional.conv2d(case["x"].double(), kernel, bias, padding=1)
    case.close("y", y.float() * (1 + outer.eps) ** 0.5, rtol=0, atol=1e-4)
