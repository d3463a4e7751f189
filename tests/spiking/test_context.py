"""The state of a call lies on no module: threads, tasks and copies do not see each other's blocks.

Schedules are drawn from a seed; what each must give is what the same calls give alone.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import random

import pytest
import torch
from torch import nn

import spiking
from spiking.context import SharedSwitch
from spiking.layers import FoldTime
from spiking.streaming import as_one
from tests.threads import at_once

T = 6


class Stumbles(nn.Module):
    """Raises an error when told to, behind neurons that have run already."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.min() < -900:
            raise RuntimeError("stumbled")
        return x


class Passes(nn.Module):
    """A layer that lets a marker through all neurons, so that the last layer can stumble over it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x < -900, x, self.layer(x))


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    linear = [nn.Linear(5, 5) for _ in range(2)]
    for layer in linear:
        layer.weight.data.mul_(8).round_().div_(8).abs_()  # eighths, so that sums are exact in any order
        layer.bias.data.fill_(0.25)
    parts: list[nn.Module] = [
        Passes(FoldTime(linear[0])),
        Passes(spiking.LIF(v_threshold=0.5)),
        Passes(FoldTime(linear[1])),
    ]
    return nn.Sequential(
        *parts, Passes(spiking.CLIF(v_threshold=0.5)), Passes(spiking.PLIF(v_threshold=0.25)), Stumbles()
    ).eval()


def frames(seed: int, steps: int = T) -> torch.Tensor:
    return torch.randint(0, 16, (steps, 2, 5), generator=torch.Generator().manual_seed(seed)) / 8.0


def broken(steps: int = 2) -> torch.Tensor:
    x = frames(99, steps)
    x[-1, -1, -1] = -1000.0
    return x


def cuts(random_: random.Random) -> list[int]:
    left, parts = T, []
    while left:
        parts.append(random_.randint(1, left))
        left -= parts[-1]
    return parts


@torch.no_grad()
def alone(model: nn.Module, seed: int) -> torch.Tensor:
    whole = model(frames(seed))
    assert whole.any()
    return whole


@pytest.mark.parametrize("seed", range(3))
def test_threads_stream_and_call_side_by_side(model, seed):
    want = [alone(model, i) for i in range(8)]

    @torch.no_grad()
    def work(i):
        plan = random.Random(1000 * seed + i)
        for _ in range(8):
            kind = plan.choice(["plain", "stream", "bad", "copy"])
            if kind == "plain":
                assert torch.equal(model(frames(i)), want[i])
                continue
            mine = copy.deepcopy(model) if kind == "copy" else model
            with spiking.streaming(mine):
                parts = []
                for part in frames(i).split(cuts(plan)):
                    if kind == "bad" and plan.random() < 0.5:
                        with pytest.raises(RuntimeError, match="stumbled"):
                            mine(broken())
                    parts.append(mine(part))
            assert torch.equal(torch.cat(parts), want[i]), kind

    at_once(work)


def once_right_once_wrong(model: nn.Module, x: torch.Tensor) -> None:
    with as_one(model):
        model(x)
        model(broken())


@torch.no_grad()
def test_a_call_that_raises_has_not_happened(model):
    want = alone(model, 1)
    first, rest = frames(1).split([2, T - 2])
    with spiking.streaming(model):
        parts = [model(first)]
        for error in ("stumbled", "stumbled"):
            with pytest.raises(RuntimeError, match=error):
                model(broken())
        with pytest.raises(ValueError, match="received steps"):
            model(rest[:, :1])
        with pytest.raises(RuntimeError, match="stumbled"):
            once_right_once_wrong(model, rest[:1])
        with as_one(model):
            parts += [model(part) for part in rest.split(1)]
    assert torch.equal(torch.cat(parts), want)
    with spiking.streaming(model):  # also as the first call
        with pytest.raises(RuntimeError, match="stumbled"):
            model(broken())
        assert torch.equal(model(frames(1)), want)


@torch.no_grad()
@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_copies_take_no_part(model, twin):
    want = alone(model, 2)
    with spiking.streaming(model), spiking.FiringRateMonitor(model) as monitor, spiking.check_finite(model):
        model(frames(2)[:3])
        seen = monitor.counts().clone()
        other = twin(model)
        for batch in (frames(2), frames(2), frames(2)[:, :1]):
            assert torch.equal(other(batch), want[:, : batch.shape[1]])
        other(torch.full((1, 1, 5), float("nan")))  # nothing watches the copy
        assert torch.equal(monitor.counts(), seen)
        assert torch.equal(model(frames(2)[3:]), want[3:])
    assert torch.equal(other(frames(2)), want)
    with spiking.streaming(other):
        assert torch.equal(torch.cat([other(part) for part in frames(2).split(2)]), want)


@torch.no_grad()
def test_tasks_stream_side_by_side_and_nothing_outlives_the_block(model):
    want = [alone(model, i) for i in range(4)]
    late = []

    async def stream(i):
        with spiking.streaming(model):
            parts = []
            for part in frames(i).split(1):
                parts.append(model(part))
                await asyncio.sleep(0)
            late.append(asyncio.ensure_future(after(i)))  # has the context of the block
        return torch.cat(parts)

    async def after(i):
        await asyncio.sleep(0.01)
        return model(frames(i))

    async def all_of_them():
        streamed = await asyncio.gather(*(stream(i) for i in range(4)))
        return streamed, [await task for task in list(late)]

    streamed, _ = asyncio.run(all_of_them())
    for i in range(4):
        assert torch.equal(streamed[i], want[i])
    assert all(any(torch.equal(task.result(), w) for w in want) for task in late)


@torch.no_grad()
def test_generators_may_end_in_any_order(model):
    second = copy.deepcopy(model)

    def streams(which, seed):
        with spiking.streaming(which):
            for part in frames(seed).split(1):
                yield which(part)

    one, two = streams(model, 1), streams(second, 2)
    a, b = [next(one)], [next(two)]
    a += list(one)  # ends before the block that was entered later
    b += list(two)
    assert torch.equal(torch.cat(a), alone(model, 1))
    assert torch.equal(torch.cat(b), alone(model, 2))
    unfinished = streams(model, 1)
    next(unfinished)
    del unfinished
    gc.collect()
    assert torch.equal(model(frames(1)), alone(second, 1))


@torch.no_grad()
def test_monitors_count_their_own_thread(model):
    def work(i):
        with spiking.FiringRateMonitor(model) as monitor:
            for _ in range(3):
                spikes = model(frames(i))
        name = monitor.names[-1]
        assert monitor.rates()[name] == pytest.approx(float(spikes.detach().mean()))
        with spiking.OperationCounter(model, time_axis=0) as counter:
            model(frames(i))
        return counter.report().sops, counter.samples

    assert at_once(work, 3) == [work(i) for i in range(3)]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_the_whole_process_shares_is_put_back_by_the_last_one():
    before = torch.backends.mha.get_fastpath_enabled()
    model = nn.Sequential(nn.Linear(3, 3), spiking.LIF(v_threshold=0.5)).eval()
    first, second = (spiking.OperationCounter(model, time_axis=0) for _ in range(2))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.mha.get_fastpath_enabled()
    second.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled() is before
    made = []

    class Fails:
        def __enter__(self):
            made.append(self)
            raise KeyError("no such setting")

        def __exit__(self, *_):
            raise AssertionError("was never entered")

    switch = SharedSwitch(Fails)
    for _ in range(2):
        with pytest.raises(KeyError), switch.held():
            pass
    assert len(made) == 2


def test_replicas_are_refused_where_they_would_be_missed(model):
    spread = nn.DataParallel(model).eval()
    spread.device_ids = [0, 1]
    with (
        pytest.raises(RuntimeError, match=r"stream the model inside it, model\.module"),
        spiking.streaming(spread),
    ):
        pass
    with pytest.raises(ValueError, match=r"watch the model inside it, model\.module"):
        spiking.FiringRateMonitor(spread)


@torch.no_grad()
def test_replicas_start_from_rest(model):
    want = alone(model, 3)
    with spiking.streaming(model):
        model(frames(3)[:1])
        replica = model[1].layer._replicate_for_data_parallel()
        assert torch.equal(replica(frames(3)), copy.deepcopy(model[1].layer)(frames(3)))
    assert torch.equal(model(frames(3)), want)


@pytest.mark.compile
@torch.no_grad()
def test_compiled_models_stream_in_one_graph():
    model = nn.Sequential(nn.Linear(4, 4), spiking.LIF(), spiking.PLIF()).eval()
    model[0].weight.data.mul_(4)
    x = torch.rand(T, 2, 4, generator=torch.Generator().manual_seed(1)) * 3
    want = model(x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), want)
    for _ in range(2):
        with spiking.streaming(model):
            assert torch.equal(torch.cat([compiled(part) for part in x.split(2)]), want)
        assert torch.equal(compiled(x), want)


@pytest.mark.export
@torch.no_grad()
def test_export_sees_no_context():
    model = nn.Sequential(nn.Linear(4, 4), spiking.LIF(v_threshold=0.5)).eval()
    x = torch.rand(T, 2, 4) * 3
    for strict in (False, True):
        program = torch.export.export(model, (x,), strict=strict)
        assert torch.equal(program.module()(x), model(x))
