"""What a sequence represents over time: rate code, differential code (DCGS, 2503.00301), and conversions.

Letters: ``x_t`` what is sent at step t = 1..T, ``r_t`` the same in rate code, ``m_t`` the value
represented after t steps. In rate code ``m_t`` is the mean of ``r_1..r_t``; in differential code ``m_t =
m_(t-1) + x_t / t``, so that ``x_t = r_t - m_(t-1)`` is what the mean does not know yet. A still image is
sent at every step in rate code, and at the first one alone in differential code.

All functions take and give ``[T, ...]``, in float32 inside, and a state with which a sequence can come in
chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spiking.reference.neurons import state_dtype

Count = int | Tensor  # of steps; a 0-d tensor where it is an input of an exported program
CodeState = tuple[Count, Tensor]  # steps so far; their sum, or the value represented after them [...]


def step_numbers(done: Count, like: Tensor) -> Tensor:
    """``done + 1, done + 2, ...`` for every step of ``like [T, ...]``, broadcastable to it."""
    numbers = torch.arange(1, 1 + like.shape[0], device=like.device, dtype=like.dtype) + done
    return numbers.view(-1, *(1,) * (like.dim() - 1))


def running_mean(x: Tensor, state: CodeState | None = None) -> tuple[Tensor, CodeState]:
    """``m_t``, the mean of the steps up to t: what a rate-coded sequence represents.

    Args:
        x: ``[T, ...]``.
        state: steps seen before, and their sum.
    """
    done, total = state if state is not None else (0, None)
    sums = x.to(state_dtype(x)).cumsum(0)
    if total is not None:
        sums = sums + total
    return (sums / step_numbers(done, sums)).to(x.dtype), (done + x.shape[0], sums[-1])


def increments(m: Tensor, state: CodeState | None = None) -> tuple[Tensor, CodeState]:
    """``t m_t - (t - 1) m_(t-1)``: the rate-coded steps whose running mean is ``m [T, ...]``.

    Args:
        m: ``[T, ...]``.
        state: steps given before, and their sum.
    """
    done, total = state if state is not None else (0, None)
    wide = m.to(state_dtype(m))
    if m.shape[0] == 1 and isinstance(done, int) and not done:
        return m, (1, wide[0])
    sums = wide * step_numbers(done, wide)
    before = torch.zeros_like(sums[:1]) if total is None else total.unsqueeze(0)
    return torch.diff(sums, dim=0, prepend=before).to(m.dtype), (done + m.shape[0], sums[-1])


def represented(
    x: Tensor, bias: Tensor | None = None, state: CodeState | None = None
) -> tuple[Tensor, CodeState]:
    """``m_t`` of a sequence in differential code.

    Args:
        x: ``[T, ...]``.
        bias: ``[...]``, what every step carries on top and the represented value starts from; 0 if missing.
            DCGS's code sends it in a slot of its own in front, ``represented(slots[1:], slots[0])``.
        state: steps seen before, and the value represented after them.
    """
    wide = x.to(state_dtype(x))
    offset = torch.zeros_like(wide[0]) if bias is None else bias.to(wide.dtype)
    done, start = state if state is not None else (0, offset)
    parts = (wide - offset) / step_numbers(done, wide)
    m = torch.cat([parts[:1] + start, parts[1:]]).cumsum(0)  # from the start on, as the authors' code adds up
    return m.to(x.dtype), (done + x.shape[0], m[-1])


def decode(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """``r_t = m_(t-1) + x_t - b``: differential to rate code; arguments as in `represented`."""
    m, _ = represented(x, bias)
    offset = torch.zeros_like(x[0]) if bias is None else bias
    return torch.cat([offset.expand_as(x[:1]), m[:-1]]) + x - offset


def encode(r: Tensor) -> Tensor:
    """``x_t = r_t - m_(t-1)``: rate to differential code, ``[T, ...]``, without a bias."""
    m, _ = running_mean(r)
    return r - torch.cat([torch.zeros_like(m[:1]), m[:-1]])
