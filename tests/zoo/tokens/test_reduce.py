"""Token reduction: what leaves, what stays, what it saves, and who refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import spiking
import zoo
from tests.threads import at_once
from zoo.tokens import gather, hooks, uncert
from zoo.tokens import reduce as token_reduction
from zoo.tokens.baselines import FeatureNorm, Random
from zoo.tokens.tome import bipartite_matching
from zoo.tokens.tp_spikformer import neighbourhood_distance, step_change

PLAIN = ("spikformer_nano", "sdt_nano")  # every block is token-wise
REDUCIBLE = (*PLAIN, "qkformer_nano", "metaspikformer_15m", "spikingresformer_nano")
SCORED = ("uncert", "firing_rate", "norm", "random")


def steps_of(model, x):
    with torch.no_grad():
        return model(x, steps=True)


def seen_by(model, paths):
    """Tokens that each module's convolutions see, by path, filled by the next forward pass."""
    counts = {}
    for path in paths:
        module = model.get_submodule(path)
        module.register_forward_hook(
            lambda m, args, out, path=path: counts.update({path: args[0].shape[-2] * args[0].shape[-1]})
        )
    return counts


# -- nothing leaves --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REDUCIBLE)
@pytest.mark.parametrize("operator", ["remove", "bypass", "merge"])
def test_keep_one_is_the_identity(name, operator, tiny, images):
    model = tiny(name).eval()
    method = "norm"
    if operator != "bypass" and name not in (*PLAIN, "qkformer_nano"):
        with pytest.raises(ValueError, match="needs the whole grid; use operator='bypass'"):
            zoo.reduce_tokens(model, method, keep=1.0, operator=operator)
        return
    reduced = zoo.reduce_tokens(model, method, keep=1.0, operator=operator)
    assert torch.equal(steps_of(reduced, images()), steps_of(model, images()))
    assert list(reduced.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("method", list(token_reduction.METHODS))
def test_scoring_changes_nothing(method, tiny, images):
    model = tiny("sdt_nano").eval()
    before = steps_of(model, images())
    scorer, made = token_reduction.METHODS[method](), []
    for block in model.token_blocks():
        point = hooks.Point(model, block)
        score = (lambda x, p: scorer.match(x, p, 40)) if method == "tome" else scorer
        model.get_submodule(block.path).register_forward_pre_hook(
            lambda m, args, p=point, score=score: made.append(score(args[0], p))
        )
    assert torch.equal(steps_of(model, images()), before)
    assert len(made) == 2


def test_the_source_stays_as_it_was(tiny, images):
    model = tiny("spikformer_nano").eval()
    before = steps_of(model, images())
    reduced = zoo.reduce_tokens(model, "norm", keep=0.5)
    assert not torch.equal(steps_of(reduced, images()), before)
    assert torch.equal(steps_of(model, images()), before)
    assert not hasattr(model, "token_reduction")
    reduced.load_state_dict(model.state_dict())  # the same parameters under the same names


# -- operators -------------------------------------------------------------------------------------


def test_remove_equals_gathering_by_hand(tiny, images):
    model = tiny("spikformer_nano").eval().double()
    x = images().double()
    reduced = zoo.reduce_tokens(model, "norm", keep=[1.0, 0.4], operator="remove")
    with torch.no_grad():
        y = model.block[0](model.patch_embed(model.encode(x)))
        H, W = y.shape[-2:]
        tokens = y.flatten(3)
        score = tokens.square().sum(2).sqrt().mean(0)
        count = -(-4 * H * W // 10)
        kept = torch.stack(
            [tokens[:, b, :, s.topk(count).indices.sort().values] for b, s in enumerate(score)], 1
        )
        want = model.forward_head(model.block[1](kept.unsqueeze(-1)))
    assert torch.equal(steps_of(reduced, x), want)


def test_bypassed_tokens_keep_value_and_place(tiny, images):
    model = zoo.reduce_tokens(tiny("spikformer_nano").eval(), "norm", keep=[1.0, 0.4], operator="bypass")
    with torch.no_grad():
        _, outputs = model.forward_intermediates(images())
    before, after = outputs[-2].flatten(3), outputs[-1].flatten(3)
    same = (before == after).all(dim=0).all(dim=1)  # [B, N]
    N = before.shape[-1]
    assert outputs[-1].shape == outputs[-2].shape
    assert ((~same).sum(dim=1) <= -(-4 * N // 10)).all()
    assert (~same).any()


def test_merging_keeps_the_sum():
    x = torch.randn(2, 3, 4, 2, 5, dtype=torch.float64)
    size = torch.randint(1, 4, (3, 10)).double()
    index = gather.best_tokens(torch.rand(3, 10), 4).sort(-1).values
    target = gather.nearest_kept(x, index)
    assert torch.equal(
        target.gather(1, index), torch.arange(4).expand(3, -1)
    )  # kept tokens stay with themselves
    merged, sizes = gather.merge_tokens(x, size, index, target)
    assert torch.equal(sizes.sum(1), size.sum(1))
    want = (x.flatten(3) * size.view(1, 3, 1, 10)).sum(-1)
    torch.testing.assert_close((merged.squeeze(-1) * sizes.view(1, 3, 1, 4)).sum(-1), want)


def test_merged_tokens_count_by_their_size(tiny, images):
    """A token that stands for two acts on the others like two equal tokens."""
    block = tiny("sdt_nano").eval().double().block[0]
    one = torch.randn(2, 1, 16, 3, 1, dtype=torch.float64) * 2
    two = torch.cat([one, one[..., :1, :]], dim=3)
    model = tiny("sdt_nano").eval().double()
    reduction = zoo.reduce_tokens(model, "tome", keep=0.9).token_reduction
    reduction.call.sizes[1] = torch.tensor([[2.0, 1.0, 1.0]], dtype=torch.float64)
    block.attn.token_sum.register_forward_pre_hook(lambda m, args: reduction._mix(0, m, args))
    with torch.no_grad():
        got = block(one)
        reduction.call.sizes[1] = None
        want = block(two)
    torch.testing.assert_close(got, want[..., :3, :])


@pytest.mark.parametrize("name", REDUCIBLE)
def test_left_out_tokens_do_no_work(name, tiny, images):
    model = tiny(name).eval()
    chosen = zoo.reduce_tokens(model, "norm", keep=0.3)
    points = [p.block for p in chosen.token_reduction.points]
    # layers that only see tokens which go through
    inside = [f"{b.path}.{b.inner[0]}" if b.inner else b.path for b in points]
    full, part = seen_by(model, inside), seen_by(chosen, inside)
    dense, sparse = spiking.profile_energy(model, images()), spiking.profile_energy(chosen, images())
    rows = {r.name: r for r in dense.rows}
    assert sparse.sops + sparse.macs < dense.sops + dense.macs
    for path, share in zip(inside, chosen.token_reduction.shares, strict=True):
        assert part[path] == gather.token_count(share, full[path])
    for row in sparse.rows:
        if any(row.name.startswith(f"{path}.") and "matmul" not in row.name for path in inside[-1:]):
            ratio = gather.token_count(0.3, full[inside[-1]]) / full[inside[-1]]
            assert row.dense_macs == pytest.approx(rows[row.name].dense_macs * ratio), row.name


def test_the_cost_of_scoring_is_counted(tiny, images):
    model = zoo.reduce_tokens(tiny("spikformer_nano").eval(), "uncert", keep=[1.0, 0.5], classes=3)
    rows = {r.name: r for r in spiking.profile_energy(model, images()).rows}
    row = rows["token_reduction.scorer.evidence"]
    T, N, C, K = 2, 64, 16, 3  # a map of 8 x 8, three of five classes
    assert row.dense_macs == T * N * C * K
    assert row.sops > 0


def test_rescaled_pooling_divides_by_all_tokens(tiny, images):
    model = tiny("spikformer_nano").eval().double()
    x = images().double()
    plain = zoo.reduce_tokens(model, "norm", keep=[1.0, 0.25])
    scaled = zoo.reduce_tokens(model, "norm", keep=[1.0, 0.25], rescale_pool=True)
    with torch.no_grad():
        torch.testing.assert_close(
            scaled.forward_features(x), plain.forward_features(x) / 4, rtol=1e-12, atol=1e-12
        )
    with pytest.raises(ValueError, match="rescale_pool is for operator 'remove'"):
        zoo.reduce_tokens(model, "norm", operator="bypass", rescale_pool=True)


def test_rescaled_attention_sums_as_if_all_were_there(tiny, images):
    model = tiny("spikformer_nano").eval()
    sums = {}
    for scale in (False, True):
        reduced = zoo.reduce_tokens(model, "norm", keep=[1.0, 0.25], rescale_attention=scale)
        reduced.block[1].attn.matmul1.register_forward_hook(
            lambda m, args, out, scale=scale: sums.update({scale: out})
        )
        steps_of(reduced, images())
    assert sums[False].any()
    torch.testing.assert_close(sums[True], 4 * sums[False])
    with pytest.raises(ValueError, match="no sum over tokens that could be rescaled"):
        zoo.reduce_tokens(tiny("spikingresformer_nano").eval(), "norm", rescale_attention=True)


@pytest.mark.parametrize("name", ["spikingresformer_nano", "metaspikformer_15m"])
def test_blocks_on_a_grid_leave_left_out_tokens_alone(name, tiny, images):
    """The grouped convolution sees zeros there; their own value goes on unchanged."""
    model = tiny(name).eval().double()
    reduced = zoo.reduce_tokens(model, "norm", keep=0.3)
    block = reduced.token_reduction.points[-1].block
    pairs = []
    reduced.get_submodule(block.path).register_forward_hook(lambda m, args, out: pairs.append((args[0], out)))
    steps_of(reduced, images(size=64 if name.startswith("meta") else 32).double())
    before, after = pairs[0]
    if name.startswith("meta"):  # attention is dense; only the feed-forward part leaves tokens out
        with torch.no_grad():
            before = before + reduced.get_submodule(block.path).attn(before)
    same = (before == after).all(dim=0).all(dim=1).flatten(1)
    N = same.shape[1]
    assert ((~same).sum(1) <= gather.token_count(0.3, N)).all()
    assert (~same).any()


# -- choice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m in token_reduction.METHODS if m != "tome"])
def test_the_choice_is_each_image_s_own(method, tiny, images):
    model = zoo.reduce_tokens(tiny("sdt_nano").eval().double(), method, keep=0.5)
    x = images(batch=3).double()
    first = steps_of(model, x)
    x[1:] = images(batch=2, seed=8).double()
    assert torch.equal(steps_of(model, x)[:, 0], first[:, 0])


@pytest.mark.parametrize("method", ["uncert", "firing_rate", "norm", "tome"])
def test_permuting_tokens_permutes_scores(method, tiny):
    """Blocks without convolution: the order of tokens does not matter, but that tome's halves alternate."""
    model = tiny("sdt_nano").eval().double()
    point = hooks.Point(model, model.token_blocks()[0])
    x = 2 * torch.randn(2, 2, 16, 8, 1, dtype=torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    if method == "tome":
        order = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])  # keeps the halves apart
        index, _ = token_reduction.METHODS[method]().match(x, point, 6)
        moved, _ = token_reduction.METHODS[method]().match(x[..., order, :], point, 6)
        assert torch.equal(order[moved].sort(-1).values, index)
        return
    scorer = token_reduction.METHODS[method]()
    torch.testing.assert_close(scorer(x[..., order, :], point), scorer(x, point)[:, order])
    reduced = zoo.reduce_tokens(model, method, keep=0.5)
    with torch.no_grad():
        a, b = (reduced.forward_head(reduced.block(y)) for y in (x, x[..., order, :]))
    torch.testing.assert_close(a, b)


def test_ties_go_to_the_first():
    scores = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0]])
    assert gather.best_tokens(scores, 3).tolist() == [[1, 3, 0]]


@given(st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_a_share_gives_back_its_count(count, tokens):
    count = min(count, tokens)
    assert gather.token_count(count / tokens, tokens) == count


def test_default_schedule():
    assert token_reduction.spread(1.0, 5) == (1.0,) * 5
    for depth in range(1, 12):
        shares = token_reduction.spread(0.3, depth)
        assert shares[-1] == pytest.approx(0.3)
        assert sorted(shares, reverse=True) == list(shares)
    assert token_reduction.spread(0.512, 8) == pytest.approx((1, 1, 0.8, 0.8, 0.64, 0.64, 0.512, 0.512))


def test_steps_may_choose_anew_only_in_place(tiny, images):
    model = tiny("sdt_nano").eval()
    tp = zoo.reduce_tokens(model, "tp", keep=0.5)
    assert tp.token_reduction.operator == "bypass"
    assert steps_of(tp, images()).shape == (2, 2, 5)
    for method in ("tp", "tp_code"):
        with pytest.raises(ValueError, match="tokens must keep their places; use operator='bypass'"):
            zoo.reduce_tokens(model, method, operator="remove")


def test_paper_scores_of_tp():
    x = torch.zeros(2, 1, 2, 3, 3)
    x[:, :, 0] = 1.0
    x[:, :, :, 1, 1] = torch.tensor([0.0, 1.0])  # the middle points elsewhere
    distance = neighbourhood_distance(x, 3)
    assert distance.argmax(-1).tolist() == [[4], [4]]
    assert (distance[..., [0, 2, 6, 8]] < distance[..., [4]]).all()
    change = step_change(x)
    assert torch.equal(change[0], x[0].abs().mean(1).flatten(1))
    assert not change[1].any()


def test_bipartite_matching_by_hand():
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.1], [0.5, 0.5], [1.0, 1.0]]])
    index, target = bipartite_matching(keys, 4)  # odd places 1 and 5 match 2 and 4 exactly
    assert index.tolist() == [[0, 2, 3, 4]]
    assert target.tolist() == [[0, 1, 1, 2, 3, 3]]
    with pytest.raises(ValueError, match="6 tokens cannot become 2 in one block; keep at least 3"):
        bipartite_matching(keys, 2)


# -- uncertainty -----------------------------------------------------------------------------------

logits_of = st.lists(st.floats(-20, 20), min_size=2, max_size=6)


@given(logits_of, st.sampled_from(["softplus", "relu", "exp"]), st.sampled_from(["vacuity", "entropy"]))
@settings(max_examples=200, deadline=None)
def test_uncertainty_lies_above_0_and_up_to_1(z, evidence, kind):
    z = torch.tensor(z, dtype=torch.float64)
    u = uncert.uncertainty(z, evidence, kind)
    assert 0 < u <= 1 + 1e-12
    assert uncert.uncertainty(z.flip(0), evidence, kind) == pytest.approx(u.item())


@given(logits_of, st.integers(0, 5), st.floats(0.1, 5))
@settings(max_examples=100, deadline=None)
def test_evidence_lowers_uncertainty(z, place, more):
    z = torch.tensor(z, dtype=torch.float64)
    richer = z.clone()
    richer[place % len(z)] += more
    assert uncert.uncertainty(richer) < uncert.uncertainty(z)
    assert uncert.uncertainty(torch.zeros(4), "relu") == 1


def test_worked_example():
    """Four tokens, three classes, three steps, as in the specification."""
    z = torch.zeros(3, 1, 4, 3)
    z[:, 0, 1, 0] = torch.tensor([0.0, 2.0, 6.0])
    z[:, 0, 2, 0] = 6.0
    for t in range(3):
        z[t, 0, 3, t] = 4.0
    u = uncert.uncertainty(z, "relu")
    torch.testing.assert_close(u[:, 0, 1], torch.tensor([1.0, 0.6, 1 / 3]))
    torch.testing.assert_close(u.mean(0)[0], torch.tensor([1.0, 0.6444, 0.3333, 0.4286]), rtol=0, atol=1e-4)
    assert u.std(0, unbiased=False)[0, 1] == pytest.approx(0.2740, abs=1e-4)
    got = uncert.importance(u)[0]
    torch.testing.assert_close(got, torch.tensor([0.0, 1.5333, 1.0, 0.8571]), rtol=0, atol=1e-4)
    soft = uncert.uncertainty(z)
    torch.testing.assert_close(soft[:, 0, 1], torch.tensor([0.5906, 0.4606, 0.2888]), rtol=0, atol=1e-4)
    assert soft.std(0, unbiased=False)[0, 1] == pytest.approx(0.1236, abs=1e-4)
    want = torch.tensor([0.0, 1.4769, 1.0, 0.7741])
    torch.testing.assert_close(uncert.importance(soft)[0], want, rtol=0, atol=1e-4)
    # evidence that moves between classes is no less for vacuity, but for entropy of the steps' mean it is
    moving = uncert.uncertainty(z[:, :, 3].mean(0), "relu", "entropy")
    assert moving > uncert.uncertainty(z[:1, :, 3].mean(0), "relu", "entropy")


@pytest.mark.parametrize("fluctuation", ["deviation", "change"])
def test_steady_uncertainty_ranks_by_its_mean(fluctuation):
    for u in (torch.rand(1, 2, 7), torch.rand(1, 2, 7).expand(4, -1, -1)):
        score = uncert.importance(u, 3.0, fluctuation)
        assert score.isfinite().all()
        assert torch.equal(score.argsort(-1), (-u[0]).argsort(-1))
    flat = uncert.importance(torch.full((3, 1, 5), 0.5), 1.0, fluctuation)
    assert torch.equal(flat, torch.ones(1, 5))


def test_classes_of_the_pooled_logits(tiny, images):
    model = tiny("spikformer_nano", num_classes=20).eval().double()
    point = hooks.Point(model, model.token_blocks()[1])
    with torch.no_grad():
        x = model.block[0](model.patch_embed(model.encode(images().double())))
        every = uncert.Uncert(classes=0).token_uncertainty(x, point)
        assert torch.equal(every, uncert.Uncert(classes=50).token_uncertainty(x, point))
        some = uncert.Uncert(classes=4).token_uncertainty(x, point)
        best = model.head(x.mean((0, 3, 4))).topk(4).indices
        z = model.head(x.flatten(3).transpose(2, 3))
        places = best.view(1, 2, 1, 4).expand(*z.shape[:3], 4)
        want = uncert.uncertainty((z - z.mean(-1, keepdim=True)).gather(3, places))
        torch.testing.assert_close(some, want)
        plain = uncert.Uncert(classes=4, centre=False).token_uncertainty(x, point)
    torch.testing.assert_close(plain, uncert.uncertainty(z.gather(3, places)))


def test_a_common_shift_of_the_logits_changes_no_score(tiny, images):
    model = tiny("spikformer_nano", num_classes=10).eval().double()
    point = hooks.Point(model, model.token_blocks()[1])
    shift = torch.randn(
        model.head.in_features, dtype=torch.float64
    )  # the softmax, and so training, ignores it
    with torch.no_grad():
        x = model.block[0](model.patch_embed(model.encode(images().double())))
        before, literal = uncert.Uncert()(x, point), uncert.Uncert(centre=False)(x, point)
        logits = model(images().double()).softmax(1)
        model.head.weight += shift
        torch.testing.assert_close(model(images().double()).softmax(1), logits)
        torch.testing.assert_close(uncert.Uncert()(x, point), before)
        assert not torch.allclose(uncert.Uncert(centre=False)(x, point), literal)


def test_scores_are_float32_under_autocast(tiny, images):
    seen = []

    class Spy(FeatureNorm):
        def forward(self, x, point):
            assert not torch.is_autocast_enabled("cpu")
            seen.append(x.dtype)
            return super().forward(x, point)

    model = zoo.reduce_tokens(tiny("sdt_nano").eval(), Spy(), keep=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        steps_of(model, images())
    half = zoo.reduce_tokens(tiny("sdt_nano").eval().bfloat16(), "uncert", keep=0.5)
    assert steps_of(half, images().bfloat16()).dtype == torch.bfloat16
    assert set(seen) == {torch.float32}


def test_choosing_the_fluctuation_weight(tiny, images):
    model = tiny("spikformer_nano").eval()
    x = images(batch=4, size=16)  # 4 x 4 tokens
    choice = zoo.choose_fluctuation_weight(model, x, torch.tensor([0, 1, 2, 3]), weights=(-1.0, 0.0, 1.0))
    assert set(choice.correlations) == {-1.0, 0.0, 1.0}
    assert choice.correlations[choice.weight] == max(choice.correlations.values())
    assert all(-1 <= c <= 1 for c in choice.correlations.values())
    assert (choice.block, choice.images) == ("block.1", 4)
    with pytest.raises(ValueError, match=r"no token block 'block\.7'; there are block\.0, block\.1"):
        zoo.choose_fluctuation_weight(model, x, torch.zeros(4, dtype=torch.long), block="block.7")


def test_rank_correlation():
    a = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 3.0]])
    b = torch.tensor(
        [[10.0, 20.0, 25.0, 90.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]]
    )
    got = uncert.rank_correlation(a, b)
    torch.testing.assert_close(got[:3], torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))
    assert got[3] == pytest.approx(0.9486832980505138)  # scipy.stats.spearmanr


# -- living with it --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REDUCIBLE)
def test_training_goes_on(name, tiny, images):
    model = zoo.reduce_tokens(tiny(name), "norm", keep=0.6)
    assert model.training
    F.cross_entropy(model(images()), torch.tensor([0, 3])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_checkpointing_repeats_the_choice(tiny, images):
    plain, saving = (zoo.reduce_tokens(tiny("sdt_nano"), "tome", keep=0.6) for _ in range(2))
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        F.cross_entropy(model(images()), torch.tensor([0, 3])).backward()
    for key, parameter in plain.named_parameters():
        assert torch.equal(parameter.grad, saving.get_parameter(key).grad), key


def test_copies(tiny, images):
    model = zoo.reduce_tokens(tiny("qkformer_nano").eval(), "uncert", keep=0.4)
    expected = steps_of(model, images())
    twin = copy.deepcopy(model)
    assert torch.equal(steps_of(twin, images()), expected)
    assert torch.equal(steps_of(pickle.loads(pickle.dumps(model)), images()), expected)
    assert twin.token_reduction.points[0].model is twin
    with torch.no_grad():
        twin.head.weight.neg_()  # evidence comes from the copy's own classifier
    assert torch.equal(steps_of(model, images()), expected)


@pytest.mark.compile
def test_compiles_without_a_break(tiny, images):
    torch.compiler.reset()
    model = zoo.reduce_tokens(tiny("sdt_nano").eval(), "uncert", keep=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(steps_of(compiled, images()), steps_of(model, images()), rtol=1e-4, atol=1e-5)


def test_refuses_to_stream(tiny, images):
    model = zoo.reduce_tokens(tiny("sdt_nano").eval(), "norm", keep=0.5)
    with spiking.streaming(model), pytest.raises(RuntimeError, match="takes all steps at once"):
        model(images())
    assert steps_of(model, images()).shape == (2, 2, 5)


def test_is_not_saved_silently(tiny, tmp_path):
    model = zoo.reduce_tokens(tiny("sdt_nano").eval(), "norm", keep=0.5)
    with pytest.raises(zoo.NotRebuildableError):
        zoo.save(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("spiking_cnn_nano", {}, ValueError, "has no blocks that could run on part of their tokens"),
        ("sdt_nano", {"method": "magic"}, ValueError, "unknown token reduction 'magic'; known: uncert, tp"),
        ("sdt_nano", {"method": "norm", "classes": 3}, TypeError, "norm has no setting 'classes'"),
        ("sdt_nano", {"class": 3}, TypeError, "uncert has no setting 'class'; did you mean 'classes'"),
        ("sdt_nano", {"keep": 0.0}, ValueError, "keep is a share of the tokens, above 0 and up to 1"),
        (
            "sdt_nano",
            {"keep": [0.5]},
            ValueError,
            r"one share a block, got 1 for 2 blocks: block\.0, block\.1",
        ),
        ("sdt_nano", {"keep": [0.5, 0.7]}, ValueError, "tokens cannot come back, but keep rises"),
        ("sdt_nano", {"operator": "drop"}, ValueError, "operator must be one of remove, bypass, merge"),
        ("sdt_nano", {"blocks": "block.9"}, ValueError, r"no token block 'block\.9'; it has block\.0"),
        ("sdt_nano", {"method": "tome", "operator": "remove"}, ValueError, "merges pairs"),
        ("sdt_nano", {"kind": "doubt"}, ValueError, "kind must be 'vacuity' or 'entropy'"),
        ("sdt_nano", {"evidence": "tanh"}, ValueError, "evidence must be 'softplus', 'relu' or 'exp'"),
        ("sdt_nano", {"fluctuation": "range"}, ValueError, "fluctuation must be 'deviation' or 'change'"),
        ("sdt_nano", {"classes": 1}, ValueError, "classes must be 0 for all or at least 2"),
        ("sdt_nano", {"method": "tp", "kernel": 4}, ValueError, "kernel must be an odd number"),
        (
            "qkformer_nano",
            {"blocks": "all", "operator": "remove"},
            ValueError,
            r"levels\.0\.1 or what follows",
        ),
        ("spikingresformer_nano", {"method": "tome"}, ValueError, "use operator='bypass', or blocks"),
    ],
)
def test_refusals(name, arguments, error, message, tiny):
    with pytest.raises(error, match=message):
        zoo.reduce_tokens(tiny(name), **arguments)


def test_more_refusals(tiny, images):
    with pytest.raises(ValueError, match="reduced already"):
        zoo.reduce_tokens(zoo.reduce_tokens(tiny("sdt_nano"), keep=0.5), keep=0.5)
    with pytest.raises(ValueError, match="needs a linear classifier of at least 2 classes"):
        zoo.reduce_tokens(tiny("sdt_nano", num_classes=0), "uncert")
    with pytest.raises(TypeError, match="brings its own settings"):
        zoo.reduce_tokens(tiny("sdt_nano"), Random(), seed=2)
    early = zoo.reduce_tokens(tiny("qkformer_nano").eval(), "uncert", keep=0.5, blocks="all")
    with pytest.raises(ValueError, match=r"tokens of levels\.0\.1 .* choose blocks of the last stage"):
        early(images())
    eroded = tiny("sdt_2_256_cifar10dvs", dim=16, num_heads=2)
    with pytest.raises(ValueError, match="no blocks that could run"):
        zoo.reduce_tokens(eroded, "norm")


@torch.no_grad()
def test_threads_do_not_mix_their_tokens(tiny, images):
    """Hooks hand tokens to each other; those of one call must not reach another."""
    for operator in ("bypass", "merge"):
        model = zoo.reduce_tokens(tiny("sdt_nano").eval(), "norm", keep=0.5, operator=operator)
        inputs = [images(batch=1 + i % 2, seed=i) for i in range(4)]
        want = [model(x) for x in inputs]

        def work(i, model=model, inputs=inputs):
            with torch.no_grad():
                return [model(inputs[i]) for _ in range(5)]

        for one, got in zip(want, at_once(work, 4), strict=True):
            assert all(torch.equal(one, y) for y in got)
