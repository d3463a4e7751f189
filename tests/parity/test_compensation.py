"""Units of ECMT, step by step, and graded units of DCGS, slot by slot and between represented values."""

import re
from functools import partial

import pytest
import torch
from oracles.compensation import compensate, compensate_product
from oracles.slots import graded, graded_matmul, graded_mul
from torch.nn import functional as F

from spiking.functional import codes
from tests.parity.goldens import over_files

pytestmark = pytest.mark.golden


def functions(data):
    norm = data["layernorm.weight"], data["layernorm.bias"]
    return {
        "softmax": partial(torch.softmax, dim=-1),
        "layernorm": lambda x: F.layer_norm(x, x.shape[-1:], *norm, eps=1e-6),
        "gelu": F.gelu,
        "silu": F.silu,
        "groupnorm": lambda x: F.group_norm(x, data.sidecar["groupnorm_groups"]),
    }


@over_files("input", "*.ann_of_mean")
def test_ecmt_units(golden):
    data = golden
    for name, function in functions(data).items():
        if f"{name}.output" not in data:
            continue
        y, _ = compensate(function, data["input"])
        data.close(f"{name}.output", y)
        data.close(f"{name}.ann_of_mean", codes.running_mean(y)[0])
    data.everything_was_compared()


@over_files("a", "b", "product_of_means")
def test_ecmt_product(golden):
    data = golden
    for y, _ in (compensate_product(data["a"], data["b"]), compensate(torch.matmul, data["a"], data["b"])):
        data.close("output", y)
        data.close("product_of_means", codes.running_mean(y)[0])
    data.everything_was_compared()


def represented(slots):
    return codes.represented(slots[1:], slots[0])[0]


@over_files("diff_input", "rate_input", "*.diff_output", "*.rate_output")
def test_dcgs_units(golden):
    data = golden
    slots, steps = data["diff_input"], data["rate_input"]
    for name, function in functions(data).items():
        if f"{name}.diff_output" not in data:
            continue
        data.close(f"{name}.diff_output", graded(function, slots))
        value = function(represented(slots).flatten(0, 1)).view(steps.shape)
        torch.testing.assert_close(value, represented(data[f"{name}.diff_output"]), rtol=1e-4, atol=1e-5)
        data.close(f"{name}.rate_output", compensate(function, steps)[0])
    a, b = data["matmul.a"], data["matmul.b"]
    data.close("matmul.diff_output", graded_matmul(a, b))
    product = represented(a) @ represented(b)
    torch.testing.assert_close(product, represented(data["matmul.diff_output"]), rtol=1e-4, atol=1e-5)
    data.close("matmul.rate_output", compensate_product(a[1:], b[1:])[0])
    a, b = data["mul.a"], data["mul.b"]
    data.close("mul.diff_output", graded_mul(a, b))
    product = represented(a) * represented(b)
    torch.testing.assert_close(product, represented(data["mul.diff_output"]), rtol=1e-4, atol=1e-5)
    x, about = data["maxpool.input"], data.sidecar["tensors"]["maxpool.diff_output"]["description"]
    kernel, stride = (int(re.search(rf"{word} (\d+)", about)[1]) for word in ("kernel", "stride"))
    pool = partial(F.max_pool2d, kernel_size=kernel, stride=stride)
    data.close("maxpool.diff_output", graded(pool, x))
    data.close("maxpool.rate_output", compensate(pool, x[1:])[0])
    data.everything_was_compared()
