"""Expectation compensation, and graded units in differential code: functions act on represented values."""

from functools import partial

import pytest
import torch
from oracles.compensation import compensate, compensate_product
from oracles.slots import graded, graded_matmul, graded_mul
from torch.nn import functional as F

from spiking.functional import codes

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def sequence(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def means(x):
    return torch.stack([x[:t].mean(0) for t in range(1, len(x) + 1)])


FUNCTIONS = {
    "softmax": partial(torch.softmax, dim=-1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-6),
    "group norm": lambda x: F.group_norm(x, 2),
    "gelu": F.gelu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "square": torch.square,
    "max pooling": partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
    "masked softmax": lambda x: (x + torch.tensor([0.0, -torch.inf, 0, 0, 0, 0, 0])).softmax(-1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_mean_of_the_output_is_the_function_of_the_mean(name):
    x, function = sequence(7, 3, 4, 6, 7), FUNCTIONS[name]
    y, _ = compensate(function, x)
    expected = torch.stack([function(m) for m in means(x)])
    torch.testing.assert_close(means(y), expected, **CLOSE)
    still, _ = compensate(function, x[:1].expand(5, 3, 4, 6, 7))
    torch.testing.assert_close(still, function(x[0]).expand(5, *expected.shape[1:]), **CLOSE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_differential_units_represent_the_function_of_what_is_represented(name):
    function, slots = FUNCTIONS[name], sequence(8, 3, 4, 6, 7)
    for x in (slots, torch.cat([torch.zeros_like(slots[:1]), slots[1:]])):
        y = graded(function, x)
        assert not y[0].any()
        m, _ = codes.represented(x[1:], x[0])
        expected = torch.stack([function(each) for each in m])
        torch.testing.assert_close(codes.represented(y[1:], y[0])[0], expected, **CLOSE)


PRODUCTS = {
    "scores": (torch.matmul, (3, 2, 5, 4), (3, 2, 4, 6)),
    "element-wise": (torch.mul, (3, 5, 4), (3, 5, 4)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_mean_of_a_product_is_the_product_of_the_means(name):
    operation, left, right = PRODUCTS[name]
    a, b = sequence(7, *left), sequence(7, *right, seed=1).relu()
    kept = a.clone(), b.clone()
    y, _ = compensate_product(a, b, operation)
    torch.testing.assert_close(means(y), operation(means(a), means(b)), **CLOSE)
    torch.testing.assert_close(y, compensate(operation, a, b)[0], **CLOSE)
    assert torch.equal(a, kept[0]), "the operands belong to the caller"
    assert torch.equal(b, kept[1])
    form = graded_matmul if operation is torch.matmul else graded_mul
    empty_a, empty_b = torch.zeros_like(a[:1]), torch.zeros_like(b[:1])
    slots = form(torch.cat([empty_a, a]), torch.cat([empty_b, b]))
    expected = operation(codes.represented(a)[0], codes.represented(b)[0])
    torch.testing.assert_close(codes.represented(slots[1:])[0], expected, **CLOSE)


def test_element_wise_products_of_signals_with_biases():
    a, b = sequence(7, 3, 5), sequence(7, 3, 5, seed=1)
    y = graded_mul(a, b)
    assert not y[0].any()
    expected = codes.represented(a[1:], a[0])[0] * codes.represented(b[1:], b[0])[0]
    torch.testing.assert_close(codes.represented(y[1:], y[0])[0], expected, **CLOSE)


@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4], [1] * 7])
def test_chunk_by_chunk_equals_the_whole(sizes):
    a, b = sequence(7, 3, 2, 5, 4), sequence(7, 3, 2, 4, 6, seed=1)
    units = {
        "one": (lambda x, y, state: compensate(F.gelu, x, state=state)),
        "two": (lambda x, y, state: compensate(torch.matmul, x, y, state=state)),
        "product": (lambda x, y, state: compensate_product(x, y, state=state)),
    }
    for name, unit in units.items():
        whole, _ = unit(a, b, None)
        state, parts = None, []
        for x, y in zip(a.split(sizes), b.split(sizes), strict=True):
            part, state = unit(x, y, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts), whole, **CLOSE, msg=lambda m, name=name: f"{name}: {m}")


def test_half_precision_does_not_cancel():
    """t F(m_t) - (t - 1) F(m_(t-1)) of half floats would be off by t units in the last place."""
    x = sequence(64, 8, 16, dtype=torch.bfloat16)
    exact, _ = compensate(F.gelu, x.double())
    got, _ = compensate(F.gelu, x)
    assert got.dtype is torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-7, atol=1e-3)
    a, b = sequence(32, 2, 3, 4), sequence(32, 2, 4, 5, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = compensate_product(a, b)
        z, _ = compensate(torch.matmul, a, b)
    torch.testing.assert_close(y, compensate_product(a.double(), b.double())[0].float(), **CLOSE)
    torch.testing.assert_close(z, y, **CLOSE)


def test_samples_do_not_mix():
    a, b = sequence(5, 4, 3, 6), sequence(5, 4, 6, 2, seed=1)
    order = [2, 0, 3, 1]
    for unit in (
        lambda x, y: compensate(FUNCTIONS["softmax"], x)[0],
        lambda x, y: compensate_product(x, y)[0],
    ):
        torch.testing.assert_close(unit(a[:, order], b[:, order]), unit(a, b)[:, order], rtol=0, atol=1e-6)
