"""Maps of what token scorers think of an image."""

import pytest
import torch

import zoo
from zoo.tokens import gather


@pytest.mark.parametrize("name", ["spikformer_nano", "sdt_nano", "qkformer_nano", "spikingresformer_nano"])
@pytest.mark.parametrize("method", ["uncert", "firing_rate", "norm", "random", "tp", "tp_code"])
@pytest.mark.filterwarnings("ignore:.*no trained firing rates")
def test_shapes(name, method, tiny, images):
    model = tiny(name).eval()
    x = images()
    found = zoo.token_importance(model, x, method, keep=0.3)
    T, (H, W) = model.time_steps, found.kept.shape[1:]
    assert found.scores.shape == (T, len(x), H, W)
    assert found.kept.flatten(1).sum(1).tolist() == [gather.token_count(0.3, H * W)] * len(x)
    assert found.block == model.token_blocks()[-1].path


def test_the_last_map_is_what_the_reduction_sees(tiny, images):
    model = tiny("spikformer_nano").eval()
    x = images()
    block = model.token_blocks()[-1].path
    fast = zoo.reduce_tokens(model, "uncert", keep=0.5, blocks=[block], operator="bypass")
    seen = {}

    class Spy(zoo.Scorer):
        def forward(self, features, point):
            seen["scores"] = fast.token_reduction.scorer(features, point)
            return seen["scores"]

    zoo.reduce_tokens(model, Spy(), keep=0.5, blocks=[block], operator="bypass")(x)
    for source in (model, fast):  # the reduced model is scored in front of its first reduction
        found = zoo.token_importance(source, x, **({} if source is fast else {"method": "uncert"}))
        torch.testing.assert_close(found.scores[-1].flatten(1), seen["scores"])
        assert found.keep == 0.5
        kept = gather.best_tokens(seen["scores"], int(found.kept[0].sum()))
        assert torch.equal(found.kept.flatten(1).nonzero()[:, 1].view(len(x), -1), kept.sort(1).values)


def test_a_step_does_not_see_the_later_ones(tiny, images):
    model = tiny("spikformer_nano").eval()
    frames = torch.stack([images(), images() * 0.5, images() * 2])
    whole = zoo.token_importance(model, frames).scores
    part = zoo.token_importance(model, frames[:2]).scores
    torch.testing.assert_close(whole[:2], part)


def test_refusals(tiny, images):
    with pytest.raises(ValueError, match="pairs tokens and has no scores"):
        zoo.token_importance(tiny("spikformer_nano").eval(), images(), "tome")
    with pytest.raises(ValueError, match="no token block 'nothing'"):
        zoo.token_importance(tiny("spikformer_nano").eval(), images(), block="nothing")
    with pytest.raises(ValueError, match="has no blocks that could run on part of their tokens"):
        zoo.token_importance(zoo.create("spiking_cnn_nano").eval(), torch.rand(1, 1, 28, 28))
