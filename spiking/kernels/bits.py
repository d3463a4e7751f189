"""Spikes as bits or bytes on any device: by `spiking.kernels.cpu.bits`, or by PyTorch's own operations.

Over 8,388,608 numbers the first packs in 4.5 ms of one core, the second in 50 (``benchmarks/README.md``).
"""

from __future__ import annotations

import torch
from torch import Tensor

from spiking.kernels import HAS_LLVM
from spiking.kernels.bit_code import ONE, QUARTER

INTEGER = {4: torch.int32, 2: torch.int16}
PROBE = 4096  # numbers that are looked at before all the others


def pack(x: Tensor) -> tuple[Tensor, int] | None:
    """Numbers as bytes, and how many bits each takes: 1 or 8; None where they are not made of spikes.

    1 bit for numbers that are 0 or 1, 8 for multiples of 1/4 from 0 to 63.75, which sums and average pools of
    spikes give; compared to the bit, so that `unpack` gives what was packed.

    Args:
        x: ``[n]``, contiguous, of a dtype of `bit_code.ONE`, n a multiple of `bit_code.MULTIPLE`.
    """
    if x.device.type == "cpu" and HAS_LLVM:
        from spiking.kernels.cpu import bits  # loads the compiler, so not before it is wanted

        return bits.pack(x)
    for attempt in (_as_bits, _as_bytes):
        if attempt(x[:PROBE]) is not None and (found := attempt(x)) is not None:
            return found
    return None


def unpack(packed: Tensor, bits: int, out: Tensor) -> None:
    """The way back into ``out [n]``."""
    if out.device.type == "cpu" and HAS_LLVM:
        from spiking.kernels.cpu import bits as cpu

        cpu.unpack(packed, bits, out)
    elif bits == 8:
        torch.mul(packed, 1 / QUARTER, out=out)
    else:
        places = torch.arange(8, dtype=torch.uint8, device=out.device)
        out.copy_(((packed.unsqueeze(-1) >> places) & 1).flatten())


def _as_bits(x: Tensor) -> tuple[Tensor, int] | None:
    numbers = x.view(INTEGER[x.element_size()])
    ones = numbers == ONE[x.dtype]
    if not bool((ones | (numbers == 0)).all()):
        return None
    weights = 2 ** torch.arange(8, dtype=torch.uint8, device=x.device)
    return (ones.view(-1, 8).to(torch.uint8) * weights).sum(dim=1, dtype=torch.uint8), 1


def _as_bytes(x: Tensor) -> tuple[Tensor, int] | None:
    packed = (x * QUARTER).clamp(0.0, 255.0).to(torch.uint8)
    back = torch.empty_like(x)
    torch.mul(packed, 1 / QUARTER, out=back)
    kind = INTEGER[x.element_size()]
    return (packed, 8) if torch.equal(back.view(kind), x.view(kind)) else None
