"""Spikes are kept as bits, gradients stay the same to the bit."""

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

import spiking
import zoo
from spiking import compression, kernels
from spiking.kernels import bits
from spiking.kernels.bit_code import MULTIPLE
from zoo.registry import get_entry

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
needs_llvm = pytest.mark.skipif(not kernels.HAS_LLVM, reason="llvmlite is not installed")


@pytest.fixture(params=[pytest.param(True, marks=needs_llvm), False], ids=["kernels", "torch"])
def engine(request, monkeypatch):
    monkeypatch.setattr(bits, "HAS_LLVM", request.param)
    return request.param


def spikes(*shape, seed=0, rate=0.3):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_come_back(dtype, engine):
    x = spikes(5 * MULTIPLE).to(dtype)
    data, width = bits.pack(x)
    assert width == 1
    assert data.nbytes * 8 == x.numel()
    out = torch.full_like(x, float("nan"))
    bits.unpack(data, width, out)
    assert torch.equal(out, x)


def test_bit_order_is_that_of_the_numbers(engine):
    """Both engines write the same bytes: number i is bit i % 8 of byte i // 8."""
    x = torch.zeros(MULTIPLE)
    x[[0, 9, 31, 1023]] = 1.0
    data, _ = bits.pack(x)
    assert {i: v for i, v in enumerate(data.tolist()) if v} == {0: 1, 1: 2, 3: 128, 127: 128}


@needs_llvm
@pytest.mark.parametrize("place", [5, (1 << 21) + 7, (1 << 22) - 3])
def test_threads_do_not_forget_what_one_of_them_found(place):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for seed in range(5):
            x = spikes(1 << 22, seed=seed)
            assert bits.pack(x)[1] == 1
            x[place] = 0.3
            assert bits.pack(x) is None
    finally:
        torch.set_num_threads(before)


def test_quarters_come_back(engine):
    x = torch.arange(256).repeat(16) / 4
    data, width = bits.pack(x)
    assert width == 8
    out = torch.empty_like(x)
    bits.unpack(data, width, out)
    assert torch.equal(out, x)


@pytest.mark.parametrize("place", [0, 700, 5000, 8191])
@pytest.mark.parametrize(
    "value",
    [-0.0, -1.0, 64.0, 256.0, 0.1, 1.0000001, 1e-45, 1e30, -1e30, 2.0**31, float("inf"), float("nan")],
)
def test_what_is_no_spike_is_left_alone(value, place, engine):
    x = spikes(8 * MULTIPLE)
    x[place] = value
    assert bits.pack(x) is None


def step(net, x, compressed):
    """Gradients of a training step, and of the input."""
    net.zero_grad()
    leaf = x.clone().requires_grad_()
    if compressed:
        with spiking.compress_spikes():
            loss = net(leaf).square().sum()
    else:
        loss = net(leaf).square().sum()
    loss.backward()
    return [leaf.grad, *(p.grad.clone() for p in net.parameters())]


@pytest.mark.parametrize("name", ["sew_resnet18", "spikingresformer_nano"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_plain_training(name, checkpointing, monkeypatch):
    monkeypatch.setattr(compression, "SMALLEST", 512)
    torch.manual_seed(0)
    net = zoo.create(name, num_classes=5, time_steps=3, in_chans=3, **(get_entry(name).small or {}))
    net.set_grad_checkpointing(checkpointing)
    x = torch.rand(4, 3, 28, 28)
    want = step(net, x, False)
    packed = []
    monkeypatch.setattr(compression, "pack", lambda x: packed.append(bits.pack(x)) or packed[-1])
    got = step(net, x, True)
    if not checkpointing:  # which keeps its own rules inside
        assert {found[1] for found in packed if found} == ({1, 8} if name == "sew_resnet18" else {1})
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_spikes_are_given_up_once_they_are_packed():
    conv, freed = nn.Conv2d(8, 8, 3), []
    x = spikes(16, 8, 20, 20)
    with spiking.compress_spikes():
        for each in (lambda x: F.relu(conv(x)), conv):
            copy = x.clone()
            loss = each(copy).sum()
            freed.append(StorageWeakRef(copy.untyped_storage()))
            del copy
            assert freed[-1].expired()
            loss.backward()


@pytest.mark.parametrize("function", [torch.exp, torch.sigmoid, torch.relu, lambda x: torch.softmax(x, -1)])
def test_a_pass_without_a_way_back_keeps_nothing(function):
    """These keep their own results, which hold the graph that keeps them."""
    x = torch.randn(256, 128, requires_grad=True)
    with spiking.compress_spikes():
        y = function(x)
    kept = StorageWeakRef(y.untyped_storage())
    del y
    assert kept.expired()


def test_layers_that_keep_one_tensor_share_what_is_packed(monkeypatch):
    packed = []
    monkeypatch.setattr(compression, "pack", lambda x: packed.append(1) or bits.pack(x))
    a, b = nn.Conv2d(8, 4, 3), nn.Conv2d(8, 4, 1)
    x = spikes(4, 16, 8, 12, 12)
    with spiking.compress_spikes():
        loss = a(x.flatten(0, 1)).sum() + b(x.flatten(0, 1)).sum() + F.avg_pool2d(x.flatten(0, 1), 2).sum()
    assert len(packed) == 1
    loss.backward()
    x.mul_(0.5)  # another tensor in the same place
    with spiking.compress_spikes():
        a(x.flatten(0, 1))
    assert len(packed) == 2


def test_tensors_that_follow_each_other_in_one_place_are_told_apart():
    layer = nn.Linear(128, 16, bias=False)
    want = torch.zeros_like(layer.weight)
    total = torch.zeros(())
    with spiking.compress_spikes():
        for seed in range(20):
            x, g = spikes(256, 128, seed=seed), torch.randint(-3, 4, (256, 16)).float()  # sums are exact
            total = total + (layer(x) * g).sum()
            want += g.T @ x
            del x
    total.backward()
    assert torch.equal(layer.weight.grad, want)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.transpose(0, 1),
        lambda x: x[:, :100],
        lambda x: x[3:],
        lambda x: x[:1].expand(200, -1),
    ],
)
def test_views_come_back_as_they_were(view):
    base = spikes(200, 150)
    x = view(base)
    weight = torch.randn(x.shape[1], 7, requires_grad=True)
    with spiking.compress_spikes():
        out = x @ weight
    (got,) = torch.autograd.grad(out.sum(), weight)
    (want,) = torch.autograd.grad((x @ weight).sum(), weight)
    assert torch.equal(got, want)


def test_changes_in_place_are_refused_or_harmless():
    weight = torch.randn(128, 7, requires_grad=True)
    for x, refused in ((torch.randn(256, 128), True), (spikes(256, 128), False)):
        want = x.sum(0).unsqueeze(1).expand(-1, 7).clone()
        with spiking.compress_spikes():
            out = x @ weight
        x.add_(1.0)
        if refused:
            with pytest.raises(RuntimeError, match="was changed in place"):
                out.sum().backward()
        else:
            (grad,) = torch.autograd.grad(out.sum(), weight)
            torch.testing.assert_close(grad, want)
