"""Spikformer against numbers of its authors' code: attention, a block of the CIFAR model, a whole model."""

import pytest
import torch

import zoo
from tests.parity.goldens import from_repository, over_cases
from zoo.factory import load_weights
from zoo.layers import attention, transformer
from zoo.layers.convolution import neuron_factory
from zoo.models import spikformer
from zoo.registry import get_entry

pytestmark = pytest.mark.golden

MAKE = neuron_factory("lif", None, transformer.NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**transformer.NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


def mapped(state, prefix):
    """Keys of a block of the authors' model, brought to ours by what loads their checkpoints."""
    whole = spikformer.checkpoint_filter_fn({prefix + k: v for k, v in state.items()}, None)
    return {k.removeprefix(prefix): v for k, v in whole.items()}


def fill(module, state):
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return module.eval().double()


def build(case):
    """The module of a case, and how its layout becomes ours and back."""
    about = case.settings
    if "embed_dims" in case.settings:
        state = case.under("state.")
        depth = {k.split(".")[1] for k in state if k.startswith("block.")}
        assert len(depth) == about["depth"]
        arguments = {
            "dim": about["embed_dims"],
            "num_heads": about["heads"],
            "depth": about["depth"],
            "mlp_ratio": about["mlp_ratio"],
            "time_steps": about["T"],
            "num_classes": len(state["head.weight"]),
            "in_chans": state["patch_embed.proj_conv.weight"].shape[1],
        }
        return arguments, state
    dim, heads = about["dim"], about["heads"]
    state = mapped(case.under("state."), "block.0." if "mlp_ratio" in about else "block.0.attn.")
    bias = "q_conv.bias" in state or "attn.q_conv.bias" in state
    module = attention.SSA(dim, heads, MAKE, MAKE_ATTN, qkv_bias=bias)
    if "mlp_ratio" in about:
        module = transformer.Block(module, transformer.MLP(dim, dim * about["mlp_ratio"], MAKE))
    return module, state


@over_cases("y", "grad_output", "state.*", where=from_repository("ZK-Zhou/spikformer"))
def test_case(case, tmp_path):
    built, state = build(case)
    x = case["x"].double().requires_grad_()
    if "embed_dims" in case.settings:
        path = tmp_path / "theirs.pth"
        counters = {
            k.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
            for k in state
            if k.endswith("running_mean")
        }
        torch.save({"state_dict": {**state, **counters}}, path)
        model = zoo.create("spikformer_8_512", **built).eval()
        load_weights(model, path, get_entry("spikformer_8_512"))
        model.double()
        case.output_and_gradients(model, x, model(x))
    elif case.settings["layout"] == "[T,B,N,C]":
        module = fill(built, state)
        y = module(x.transpose(2, 3).unsqueeze(-1)).squeeze(-1).transpose(2, 3)
        case.output_and_gradients(module, x, y)
        case.equal("y", y.float())  # spikes and their sums
    else:
        module = fill(built, state)
        y = module(x)
        case.output_and_gradients(module, x, y)
        case.equal("y", y.float())  # spikes and their sums
    case.everything_was_compared()
