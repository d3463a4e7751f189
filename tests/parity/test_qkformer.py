"""QKFormer against numbers of its authors' code: token attention, both patch embeddings, a whole model."""

import pytest
import torch
from torch import nn

import zoo
from tests.parity.goldens import from_repository, over_cases
from zoo.factory import load_weights
from zoo.layers.attention import SSA
from zoo.layers.convolution import neuron_factory
from zoo.layers.transformer import NEURON_DEFAULTS, as_conv_weight
from zoo.models import qkformer
from zoo.registry import get_entry

pytestmark = pytest.mark.golden

MAKE = neuron_factory("lif", None, NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


class AcrossBatch(nn.Module):
    """The neuron behind the last attention as the authors' code calls it: on ``[T * B, ...]``.

    Its membrane then goes from one image of the batch to the next. Ours runs over T, which is the
    same for a batch of one.
    """

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, x):
        return self.neuron(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def build(case, state):
    dim = case.settings.get("embed_dims")
    if "q_conv.weight" in state:
        return qkformer.QKAttention(case.settings["dim"], case.settings["heads"], MAKE, MAKE_ATTN)
    if "proj_conv.weight" in state:
        shares, pooling, tap = qkformer.STEMS["imagenet"]
        widths = [dim // share for share in shares]
        return qkformer.PatchEmbed(state["proj_conv.weight"].shape[1], widths, pooling, tap, MAKE, stem=True)
    c_in = state["proj3_conv.weight"].shape[1]
    return qkformer.PatchEmbed(c_in, (dim, dim), "10", -1, MAKE, first=3)


@over_cases("y", "grad_output", "state.*", where=from_repository("QKFormer"))
def test_case(case, tmp_path):
    state = case.under("state.")
    x = case["x"].double().requires_grad_()
    if "depth" in case.settings:
        model = load_whole(case, state, tmp_path)
        for block in model.modules():
            if isinstance(block, SSA):
                block.proj_lif = AcrossBatch(block.proj_lif)
        case.output_and_gradients(model, x, model(x))
    else:
        module = build(case, state).double().eval()
        missing, unexpected = module.load_state_dict(
            {k: as_conv_weight(k, v) for k, v in state.items()}, strict=False
        )
        assert not unexpected
        assert all(key.endswith("num_batches_tracked") for key in missing)
        stem = getattr(module, "stem", False)
        y = module(module.current(0, x) if stem else x)
        case.output_and_gradients(module, x, y)
        case.equal("y", y.float())  # spikes and their sums
    case.everything_was_compared()


def load_whole(case, state, tmp_path):
    """The authors' state dict from a file, through what loads checkpoints, strictly."""
    about = case.settings
    counters = {
        k.replace("running_mean", "num_batches_tracked"): torch.tensor(0)
        for k in state
        if k.endswith("running_mean")
    }
    torch.save({"model": {**state, **counters}}, tmp_path / "theirs.pth")
    blocks = {tuple(k.split(".")[:2]) for k in state if k.startswith("stage")}
    depths = [sum(stage == f"stage{i}" for stage, _ in blocks) for i in (1, 2, 3)]
    assert sum(depths) == about["depth"]
    model = zoo.create(
        "qkformer_10_384",
        dims=[about["embed_dims"] // share for share in (4, 2, 1)],
        depths=depths,
        num_heads=about["heads"],
        mlp_ratio=about["mlp_ratio"],
        time_steps=about["T"],
        in_chans=state["patch_embed1.proj_conv.weight"].shape[1],
        num_classes=len(state["head.weight"]),
    )
    load_weights(model, tmp_path / "theirs.pth", get_entry("qkformer_10_384"))
    return model.eval().double()
