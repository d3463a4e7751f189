"""Residual blocks against numbers of SpikingJelly's code, driven by the file's sidecar.

The attention blocks of the same file are compared in ``test_attention_blocks.py``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from zoo.layers.convolution import neuron_factory
from zoo.models.ms_resnet import NEURON_DEFAULTS as MS_NEURON
from zoo.models.ms_resnet import MSBlock
from zoo.models.sew_resnet import NEURON_DEFAULTS as SEW_NEURON
from zoo.models.sew_resnet import SEWBasicBlock, SEWBottleneck

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("GOLDENS_DIR", ROOT / ".." / "shared" / "goldens")) / "direct_training"
FILE = FOLDER / "zoo_residual_blocks.json"
SIDECAR = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {"cases": {}, "tensors": {}}
GOLDEN_FILES = {"direct_training/zoo_residual_blocks"}
OTHER_FAMILIES = ("sdsa_", "qk_")
CASES = [name for name in SIDECAR["cases"] if not name.startswith(OTHER_FAMILIES)]

pytestmark = [pytest.mark.golden, pytest.mark.skipif(not FILE.is_file(), reason=f"no {FILE}")]


def build(name, state):
    about = SIDECAR["cases"][name]
    stride = about.get("stride", 1)
    c_in = state["conv1.weight"].shape[1]
    last = max(key for key in state if re.fullmatch(r"conv\d\.weight", key))
    c_out = state[last].shape[0]
    if name.startswith("ms_"):
        # the file's surrogate is twice as high as the authors', which is the default here
        surrogate = {"name": "rect", "alpha": float(re.search(r"Rect\(alpha=(\d+)\)", neuron_text(name))[1])}
        return MSBlock(c_in, c_out, stride, neuron_factory("lif", {"surrogate": surrogate}, MS_NEURON, 3))
    kind = SEWBottleneck if "conv3.weight" in state else SEWBasicBlock
    return kind(c_in, c_out, stride, neuron_factory("if", None, SEW_NEURON, 3), about["connect"])


def neuron_text(name):
    text = SIDECAR["cases"][name]["neuron"]
    if "Rect" in text:
        assert "tau=4/3" in text
        assert "threshold 0.5" in text
    return text


@pytest.mark.parametrize("name", CASES)
def test_block(name):
    with safe_open(FILE.with_suffix(".safetensors"), framework="pt") as file:
        own = [key for key in file.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        tensors = {key.removeprefix(f"{name}/"): file.get_tensor(key) for key in own}
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    block = build(name, state)
    missing, unexpected = block.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    block.eval()
    x = tensors["x"].requires_grad_()
    y = block(x)
    torch.testing.assert_close(y, tensors["y"], rtol=1e-5, atol=1e-5)
    (y * tensors["grad_output"]).sum().backward()
    torch.testing.assert_close(x.grad, tensors["grad_x"], rtol=1e-4, atol=1e-5)
    compared = {"x", "y", "grad_output", "grad_x", *(f"state.{key}" for key in state)}
    for key, parameter in block.named_parameters():
        if f"grad.{key}" in tensors:
            torch.testing.assert_close(parameter.grad, tensors[f"grad.{key}"], rtol=1e-4, atol=1e-5, msg=key)
            compared.add(f"grad.{key}")
    assert compared == set(tensors)


def test_every_case_is_known():
    assert set(SIDECAR["cases"]) - set(CASES) == {
        name for name in SIDECAR["cases"] if name.startswith(OTHER_FAMILIES)
    }
    assert len(CASES) >= 2


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
