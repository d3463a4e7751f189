"""What a number is when it is packed, whoever packs it; see `spiking.kernels.bits`."""

from __future__ import annotations

import torch

ONE = {torch.float32: 0x3F800000, torch.bfloat16: 0x3F80, torch.float16: 0x3C00}  # its bits
MULTIPLE = 1024  # numbers come in groups of so many
QUARTER = 4.0  # a byte counts quarters
