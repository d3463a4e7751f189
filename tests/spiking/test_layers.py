"""Folding without copies, norms over time against their definitions, clear errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spiking.layers import BNTT, TDBN, TEBN, FoldTime, SpikeMatmul, TimeBatchNorm2d, fold_time, norm_repeated


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


# -- folding ---------------------------------------------------------------------------------------


def test_folding_runs_the_layer_on_all_steps():
    x, conv = maps(4, 2, 3, 6, 6), nn.Conv2d(3, 5, 3, stride=2)
    expected = torch.stack([conv(step) for step in x])
    torch.testing.assert_close(fold_time(conv, x), expected)
    torch.testing.assert_close(FoldTime(conv)(x), expected)
    assert list(FoldTime(conv).state_dict()) == ["module.weight", "module.bias"]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_folding_copies_nothing_and_keeps_the_memory_format(channels_last: bool, batch: int):
    folded = maps(4 * batch, 3, 6, 6)
    if channels_last:
        folded = folded.to(memory_format=torch.channels_last)
    x = folded.unflatten(0, (4, batch))
    seen = []
    y = fold_time(lambda z: (seen.append(z), z)[1], x)
    assert seen[0].data_ptr() == x.data_ptr() == y.data_ptr()
    assert y.stride() == x.stride()
    if channels_last:
        assert seen[0].is_contiguous(memory_format=torch.channels_last)
        conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        out = fold_time(conv, x)
        assert out.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
        assert out.flatten(0, 1).data_ptr() == out.data_ptr()


def test_folding_errors_name_axes():
    with pytest.raises(ValueError, match=r"expected \[T, B, ...\]"):
        fold_time(nn.Linear(3, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"Flatten turned the folded axis T \* B = 2 \* 3"):
        fold_time(nn.Flatten(0), torch.zeros(2, 3, 4))


# -- batch norm over time --------------------------------------------------------------------------


def test_time_batch_norm_is_batch_norm_of_all_steps():
    x = maps(4, 2, 3, 5, 5)
    ours, plain = TimeBatchNorm2d(3), nn.BatchNorm2d(3)
    torch.testing.assert_close(ours(x).flatten(0, 1), plain(x.flatten(0, 1)))
    torch.testing.assert_close(ours.bn.running_var, plain.running_var)
    assert list(ours.state_dict()) == [f"bn.{k}" for k in plain.state_dict()]
    torch.testing.assert_close(ours.eval()(x).flatten(0, 1), plain.eval()(x.flatten(0, 1)))


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("repeats", [1, 2, 6])
def test_one_step_with_repeats_leaves_the_statistics_of_all_steps(momentum: float | None, repeats: int):
    once, each = TimeBatchNorm2d(3, momentum=momentum), TimeBatchNorm2d(3, momentum=momentum)
    for seed in range(3):
        x = (maps(1, 2, 3, 2, 2) * (seed + 1)).requires_grad_()
        wide = x.detach().expand(repeats, -1, -1, -1, -1).clone().requires_grad_()
        y, z = once(x, repeats=repeats), each(wide)
        torch.testing.assert_close(y.expand_as(z), z)
        (y**3).sum().mul(repeats).backward()  # the backward pass must survive the correction
        (z**3).sum().backward()
        torch.testing.assert_close(x.grad, wide.grad.sum(0, keepdim=True), atol=1e-5, rtol=1e-4)
    for key, value in each.state_dict().items():
        torch.testing.assert_close(once.state_dict()[key], value, msg=key)
    if repeats > 1:
        plain = TimeBatchNorm2d(3, momentum=momentum)
        for seed in range(3):
            plain(maps(1, 2, 3, 2, 2) * (seed + 1))
        assert not torch.allclose(plain.bn.running_var, each.bn.running_var)


def test_repeats_change_nothing_in_evaluation_or_without_statistics():
    x = maps(1, 2, 3, 4, 4)
    norm = TimeBatchNorm2d(3).eval()
    before = {k: v.clone() for k, v in norm.state_dict().items()}
    assert torch.equal(norm(x, repeats=4), norm(x))
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    loose = TimeBatchNorm2d(3, track_running_stats=False)
    assert torch.equal(loose(x, repeats=4), loose(x))
    assert norm_repeated(nn.Identity(), x, 4) is x


def test_hooks_on_the_inner_norm_run_once():
    norm, calls = TimeBatchNorm2d(3), []
    norm.bn.register_forward_hook(lambda *_: calls.append(1))
    norm(maps(1, 2, 3, 4, 4), repeats=4)
    assert len(calls) == 1


def test_sync_batch_norm_takes_the_place_of_the_child():
    norm = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(TimeBatchNorm2d(3)))[0]
    assert isinstance(norm, TimeBatchNorm2d)
    assert isinstance(norm.bn, nn.SyncBatchNorm)
    x, plain = maps(1, 2, 3, 4, 4), TimeBatchNorm2d(3)
    assert torch.equal(norm.eval()(x, repeats=4), plain.eval()(x))
    assert list(norm.state_dict()) == list(plain.state_dict())


@pytest.mark.compile
def test_repeats_compile_without_a_graph_break():
    x, eager, fast = maps(1, 2, 3, 4, 4), TimeBatchNorm2d(3), TimeBatchNorm2d(3)
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        y = x.clone().requires_grad_()
        z = x.clone().requires_grad_()
        eager(y, repeats=4).pow(3).sum().backward()
        compiled(z, repeats=4).pow(3).sum().backward()
        torch.testing.assert_close(y.grad, z.grad)
    for key, value in eager.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[key], value, msg=key)


@pytest.mark.export
@pytest.mark.parametrize("training", [True, False])
def test_repeats_export(training: bool):
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = TimeBatchNorm2d(3)

        def forward(self, x):
            return self.norm(x, repeats=4)

    model, x = Stem().train(training), maps(1, 2, 3, 4, 4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
    for key, value in model.state_dict().items():
        torch.testing.assert_close(exported.state_dict()[key], value, msg=key)


def test_tdbn_differs_from_batch_norm_in_its_initial_gain_only():
    x = maps(4, 2, 3, 5, 5)
    plain, ours = TimeBatchNorm2d(3), TDBN(3, alpha=0.5, v_threshold=0.8)
    assert torch.equal(ours.bn.weight, torch.full((3,), 0.4))
    torch.testing.assert_close(ours(x), plain(x) * 0.4)
    assert torch.equal(TDBN(3)(x), plain(x))
    plain.load_state_dict(ours.state_dict())


def test_tebn_scales_each_step():
    x = maps(4, 2, 3, 5, 5)
    ours, plain = TEBN(3, 4), TimeBatchNorm2d(3)
    torch.testing.assert_close(ours(x), plain(x))
    with torch.no_grad():
        ours.scale.copy_(torch.tensor([1.0, 2.0, -1.0, 0.0]))
    torch.testing.assert_close(ours(x), plain(x) * ours.scale.view(4, 1, 1, 1, 1))
    once = TEBN(3, 4)
    once.load_state_dict(ours.state_dict())
    still = x[:1]
    torch.testing.assert_close(once(still, repeats=4), ours(still.expand(4, -1, -1, -1, -1)))


def test_bntt_norms_each_step_by_itself_and_has_no_shift():
    x = maps(3, 2, 4, 5, 5) * torch.tensor([1.0, 5.0, 0.2]).view(3, 1, 1, 1, 1)
    ours = BNTT(4, 3)
    assert not [k for k, _ in ours.named_parameters() if "bias" in k]
    y = ours(x)
    for t in range(3):
        torch.testing.assert_close(y[t], nn.BatchNorm2d(4)(x[t]))
        torch.testing.assert_close(ours.bn_list[t].running_mean, 0.1 * x[t].mean((0, 2, 3)))
    single = BNTT(4, 1)
    torch.testing.assert_close(single(x[:1]), TimeBatchNorm2d(4)(x[:1]))


@pytest.mark.parametrize(
    "norm", [TimeBatchNorm2d(3), TDBN(3), TEBN(3, 4), BNTT(3, 4)], ids=lambda n: type(n).__name__
)
def test_norm_errors_name_axes(norm: nn.Module):
    kind = type(norm).__name__
    with pytest.raises(ValueError, match=rf"{kind} expected \[T, B, C, H, W\], got 4 axes.*unsqueeze\(0\)"):
        norm(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=f"{kind} was built for C = 3, got C = 5"):
        norm(torch.zeros(4, 2, 5, 4, 4))
    if isinstance(norm, (TEBN, BNTT)):
        with pytest.raises(ValueError, match=f"{kind} was built for T = 4 steps, got T = 2"):
            norm(torch.zeros(2, 2, 3, 4, 4))
    else:
        with pytest.raises(ValueError, match="repeats must be at least 1"):
            norm(torch.zeros(1, 2, 3, 4, 4), repeats=0)


def test_time_steps_must_be_a_count():
    for build in (TEBN, BNTT):
        with pytest.raises(ValueError, match="time_steps must be an integer of at least 1"):
            build(3, 0)


# -- products --------------------------------------------------------------------------------------


def test_spike_matmul_is_a_product():
    a, b = maps(2, 3, 4, 5), maps(2, 3, 5, 6)
    assert torch.equal(SpikeMatmul()(a, b), a @ b)
    assert SpikeMatmul("a").spike_operand == "a"
    with pytest.raises(ValueError, match="spike_operand must be 'a' or 'b'"):
        SpikeMatmul("c")
