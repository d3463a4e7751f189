"""Residual blocks against numbers of SpikingJelly's code.

The attention blocks of the same package are compared in ``test_attention_blocks.py``.
"""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
import torch

from tests.parity.goldens import over_cases
from zoo.layers.convolution import neuron_factory
from zoo.models.ms_resnet import NEURON_DEFAULTS as MS_NEURON
from zoo.models.ms_resnet import MSBlock
from zoo.models.sew_resnet import NEURON_DEFAULTS as SEW_NEURON
from zoo.models.sew_resnet import SEWBasicBlock, SEWBottleneck

pytestmark = pytest.mark.golden


def is_residual(g):
    return "neuron" in g.settings


def build(case, state):
    stride = case.settings.get("stride", 1)
    c_in = state["conv1.weight"].shape[1]
    last = max(key for key in state if re.fullmatch(r"conv\d\.weight", key))
    c_out = state[last].shape[0]
    if "connect" not in case.settings:
        return MSBlock(c_in, c_out, stride, neuron_factory("lif", membrane(case), MS_NEURON, 3))
    kind = SEWBottleneck if "conv3.weight" in state else SEWBasicBlock
    return kind(c_in, c_out, stride, neuron_factory("if", None, SEW_NEURON, 3), case.settings["connect"])


def membrane(case):
    """What the sidecar says of the neuron; its surrogate is twice as high as the authors', our default."""
    text = case.settings["neuron"]
    return {
        "tau": float(Fraction(re.search(r"tau=([\d./]+)", text)[1])),
        "v_threshold": float(re.search(r"threshold ([\d.]+)", text)[1]),
        "surrogate": {"name": "rect", "alpha": float(re.search(r"Rect\(alpha=([\d.]+)\)", text)[1])},
    }


@over_cases("y", "grad_output", "state.bn1.weight", "state.conv2.weight", where=is_residual)
def test_block(case):
    state = case.under("state.")
    block = build(case, state)
    missing, unexpected = block.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    block.eval()
    x = case["x"].requires_grad_()
    y = block(x)
    case.close("y", y, rtol=1e-5)
    (y * case["grad_output"]).sum().backward()
    summands = y[:, :, 0].numel()  # terms of one entry of a weight's gradient, and more than one of x's
    case.sum_close("grad_x", x.grad, summands)
    for key, parameter in block.named_parameters():
        if f"grad.{key}" in case:
            case.sum_close(f"grad.{key}", parameter.grad, summands)
    case.everything_was_compared()


# truth tables need no file


@pytest.mark.parametrize(
    ("connect", "table"), [("ADD", [0, 1, 1, 2]), ("AND", [0, 0, 0, 1]), ("IAND", [0, 1, 0, 0])]
)
@pytest.mark.parametrize("kind", [SEWBasicBlock, SEWBottleneck])
def test_truth_table(kind, connect, table):
    block = kind(4, 4, 1, neuron_factory("if", None, SEW_NEURON, 1), connect)
    a = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 4, 1, 1)
    s = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 1, 4, 1, 1)
    block.residual = lambda x: a
    assert block(s).flatten().tolist() == table
