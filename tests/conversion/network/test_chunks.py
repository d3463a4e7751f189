"""The steps of a converted network may run a few at a time: less memory, the same outputs."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import spiking
from conversion import convert

STEPS = 7


@pytest.fixture(scope="module")
def made():
    return {}


@pytest.fixture(params=["qcfs", "ecmt", "dcgs"])
def snn(request, made, relu_net, images):
    """A conversion is made once; each test has a copy of its own."""
    if request.param not in made:
        made[request.param] = convert(relu_net, request.param, STEPS, images(6), progress=False)
    return copy.deepcopy(made[request.param])


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return result


@torch.no_grad()
def test_outputs_stay(snn, images):
    x = images(2, seed=4)
    whole, mean = snn(x, steps=True), snn(x)
    for chunk in (1, 3, STEPS, 20):  # also where the last chunk is shorter
        snn.chunk = chunk
        torch.testing.assert_close(snn(x, steps=True), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(snn(x), mean, rtol=0, atol=1e-5)
        assert snn.time_steps == snn.clock.window == STEPS
    twin = copy.deepcopy(snn)
    assert twin.chunk == 20
    snn.chunk = None
    assert torch.equal(snn(x, steps=True), whole), "nothing is left behind"


@torch.no_grad()
def test_memory_follows_the_chunk(snn, images):
    x, seen = images(1), {}
    for chunk in (None, 2):
        snn.chunk = chunk
        for time_steps in (8, 32):
            snn.time_steps = time_steps
            with Largest() as largest:
                snn(x)
            seen[chunk, time_steps] = largest.elements
    assert seen[None, 32] > 3.5 * seen[None, 8]  # a unit may hold one step more
    assert seen[2, 32] == seen[2, 8] < seen[None, 8]


@torch.no_grad()
def test_a_stream_keeps_single_steps(snn, images):
    with spiking.streaming(snn):
        snn(images(2))
        for module in snn.modules():
            state = getattr(getattr(module, "stream", None), "state", None)
            for part in state if isinstance(state, tuple) else ():
                if isinstance(part, torch.Tensor):
                    assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


@torch.no_grad()
def test_a_stream_goes_on(snn, images):
    x = images(2)
    with spiking.streaming(snn):
        expected = torch.cat([snn(x, steps=True), snn(x, steps=True)])
    snn.chunk = 2
    with spiking.streaming(snn):
        parts = torch.cat([snn(x, steps=True), snn(x, steps=True)])
    torch.testing.assert_close(parts, expected, rtol=0, atol=1e-5)


def test_training_takes_all_steps_at_once(relu_net, images):
    snn = convert(relu_net, "qcfs", 4, images(6), progress=False).train()
    expected = snn(images(2), steps=True)
    snn.chunk = 1
    assert snn(images(2), steps=True).shape == expected.shape


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "4"])
def test_a_wrong_chunk_is_refused(snn, wrong):
    with pytest.raises(ValueError, match="chunk must be an integer of at least 1"):
        snn.chunk = wrong
    assert snn.chunk is None


@pytest.mark.parametrize("method", ["srp", "cos", "parallel"])
def test_methods_that_look_ahead_refuse(method, qcfs_net, images):
    snn = convert(qcfs_net, method, 4, images(6), progress=False)
    with pytest.raises(ValueError, match=f"{method} looks at later steps"):
        snn.chunk = 2
