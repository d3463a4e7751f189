"""Rate code and differential code represent the same values."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiking.functional import codes

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def sequence(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 20), seed=st.integers(0, 1000))
def test_there_and_back(steps, seed):
    r = sequence(steps, 3, 4, seed=seed)
    x = codes.encode(r)
    torch.testing.assert_close(codes.decode(x), r, **CLOSE)
    torch.testing.assert_close(codes.represented(x)[0], codes.running_mean(r)[0], **CLOSE)
    mean = torch.stack([codes.decode(x)[:t].mean(0) for t in range(1, steps + 1)])
    torch.testing.assert_close(codes.represented(x)[0], mean, **CLOSE)
    torch.testing.assert_close(codes.increments(codes.running_mean(r)[0])[0], r, rtol=1e-4, atol=1e-4)
    bias = sequence(3, 4, seed=seed + 1)
    biased = codes.decode(x + bias, bias)
    torch.testing.assert_close(codes.running_mean(biased)[0], codes.represented(x + bias, bias)[0], **CLOSE)


def test_a_still_image_is_sent_once():
    image = sequence(2, 3)
    x = codes.encode(image.expand(6, 2, 3))
    torch.testing.assert_close(x[0], image, rtol=0, atol=0)
    torch.testing.assert_close(x[1:], torch.zeros(5, 2, 3), rtol=0, atol=1e-6)
    once = torch.cat([image.unsqueeze(0), torch.zeros(5, 2, 3)])
    assert torch.equal(codes.represented(once)[0], image.expand(6, 2, 3))


def test_a_bias_in_a_slot_of_its_own_is_a_bias_at_the_first_step_alone():
    x, bias = sequence(6, 3, 4), sequence(3, 4, seed=1)
    late = x.clone()
    late[0] += bias
    torch.testing.assert_close(codes.represented(x + bias, bias)[0], codes.represented(late)[0], **CLOSE)


def test_a_layer_with_bias_commutes_with_the_code():
    x, weight, bias = sequence(6, 3, 4), sequence(5, 4, seed=1), sequence(5, seed=2)
    m, _ = codes.represented(x)
    y = torch.nn.functional.linear(x, weight, bias)  # the bias in every slot
    got, _ = codes.represented(y, bias.expand(3, 5))
    torch.testing.assert_close(got, torch.nn.functional.linear(m, weight, bias), **CLOSE)


@pytest.mark.parametrize("function", [codes.running_mean, codes.increments, codes.represented])
def test_chunk_by_chunk_equals_the_whole(function):
    x, state, parts = sequence(9, 2, 3), None, []
    for chunk in x.split([1, 3, 4, 1]):
        part, state = function(chunk, state=state)
        parts.append(part)
    whole, end = function(x)
    torch.testing.assert_close(torch.cat(parts), whole, **CLOSE)
    assert state[0] == end[0] == 9
    torch.testing.assert_close(state[1], end[1], **CLOSE)


@pytest.mark.parametrize("function", [codes.running_mean, codes.increments, codes.represented])
def test_half_precision_is_summed_in_float32(function):
    x = sequence(64, 5, dtype=torch.bfloat16)
    got, (_, state) = function(x)
    assert got.dtype is torch.bfloat16
    assert state.dtype is torch.float32
    torch.testing.assert_close(got.float(), function(x.float())[0], rtol=2**-7, atol=2**-7)


def test_spikes_that_cancel_leave_a_mean_of_exactly_zero():
    """2p + p - 2p - p, whose sum in float32 is 9e-10 for some p, is no signal for who counts operations."""
    p = torch.rand(1000, generator=torch.Generator().manual_seed(0)) / 16
    sent = torch.stack([2 * p, p, -2 * p, -p])
    assert (((2 * p + p) - 2 * p) - p).count_nonzero() > 100
    assert codes.running_mean(sent)[0][-1].count_nonzero() == 0


def test_represented_values_add_up_from_their_start_bit_by_bit():
    """``mi = b``, then ``mi = mi + (x_t - b) / t``, as the authors' code has it."""
    generator = torch.Generator().manual_seed(0)
    b, x = torch.randn(50, generator=generator).double(), torch.randn(9, 50, generator=generator).double()
    found, _ = codes.represented(x, b)
    mi = b
    for t, x_t in enumerate(x, 1):
        mi = mi + (x_t - b) / t
        assert torch.equal(found[t - 1], mi)
