"""Converted networks under threads and copies: chunks, clocks, overridden neurons."""

import copy
import pickle
import random

import pytest
import torch

import spiking
from conversion import bypassed, convert
from tests.threads import at_once

STEPS = 5


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture(params=["qcfs", "dcgs"])
def snn(request, made, relu_net, images):
    """A conversion is made once; each test has a copy of its own."""
    if request.param not in made:
        made[request.param] = convert(relu_net, request.param, STEPS, images(6), progress=False)
    return copy.deepcopy(made[request.param])


@torch.no_grad()
@pytest.mark.parametrize("chunk", [None, 2])
def test_threads_give_what_one_gives(snn, images, chunk):
    """Plain calls, chunks, streams and bypassed networks at once, in an order drawn from a seed."""
    inputs = [images(1, seed=i) for i in range(8)]
    plain = [snn(x, steps=True) for x in inputs]
    with bypassed(snn):
        exact = [snn(x) for x in inputs]
    twice = []
    for x in inputs:
        with spiking.streaming(snn):
            twice.append(torch.cat([snn(x, steps=True) for _ in range(2)]))
    counted = [snn.count_operations(x).sops for x in inputs]
    snn.chunk = chunk

    @torch.no_grad()
    def work(i):
        plan = random.Random(i)
        for _ in range(4):
            kind = plan.choice(["plain", "stream", "bypass", "count"])
            if kind == "plain":
                torch.testing.assert_close(snn(inputs[i], steps=True), plain[i], rtol=0, atol=1e-5)
            elif kind == "stream":
                with spiking.streaming(snn):
                    got = torch.cat([snn(inputs[i], steps=True) for _ in range(2)])
                torch.testing.assert_close(got, twice[i], rtol=0, atol=1e-5)
            elif kind == "bypass" and chunk is None:
                with bypassed(snn):
                    torch.testing.assert_close(snn(inputs[i]), exact[i], rtol=0, atol=1e-5)
            else:
                assert snn.count_operations(inputs[i]).sops == counted[i]

    at_once(work)
    assert snn.time_steps == snn.clock.window == STEPS


@torch.no_grad()
def test_copies_take_no_part(snn, images):
    x = images(2)
    want = snn(x, steps=True)
    with bypassed(snn), snn.clock.running(2):
        twins = [copy.deepcopy(snn), pickle.loads(pickle.dumps(snn))]
        assert snn(x, steps=True).shape[0] == 2
    for twin in twins:
        assert torch.equal(twin(x, steps=True), want)


@torch.no_grad()
def test_blocks_nest(snn, images):
    x = images(2)
    want = snn(x)
    with bypassed(snn):
        outer = snn(x)
        with snn.clock.running(3), bypassed(snn), snn.clock.running(2):
            assert snn(x, steps=True).shape[0] == 2
        assert torch.equal(snn(x), outer)
    assert torch.equal(snn(x), want)
    assert not torch.equal(outer, want)


@torch.no_grad()
def test_an_error_between_chunks_leaves_the_stream_as_it_was(snn, images):
    x = images(2)
    with spiking.streaming(snn):
        want = torch.cat([snn(x, steps=True) for _ in range(2)])
    snn.chunk, calls = 2, []

    def third(*_):
        calls.append(1)
        if len(calls) == 6:  # three chunks a call, so in the last chunk of the second
            raise RuntimeError("stumbled")

    handle = snn.register_forward_hook(third)
    with spiking.streaming(snn):
        parts = [snn(x, steps=True)]
        with pytest.raises(RuntimeError, match="stumbled"):
            snn(x, steps=True)
        parts.append(snn(x, steps=True))
    handle.remove()
    torch.testing.assert_close(torch.cat(parts), want, rtol=0, atol=1e-5)
