"""Norms over everything but the channels on CPU tensors: statistics and gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.norm_writer import GROUP, NormWriter
from spiking.kernels.cpu.runtime import DTYPES, compiled, share, team_size
from spiking.kernels.cpu.writer import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from spiking.kernels.cpu.channel_writer import Shape
    from spiking.kernels.cpu.view import View

SUMMED = 512  # numbers of a block whose sums are taken in groups of blocks: 32 KiB a group


@lru_cache(maxsize=256)
def _norm_kernel(kind: str, stored: str, shape: Shape) -> tuple[int, Any]:
    return compiled(getattr(NormWriter(stored, shape), kind))


def statistics(x: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, ``[C]`` in float64."""
    arguments = Arguments()
    block = view.block(SUMMED if view.lanes else BLOCK)
    view.describe(arguments, block)
    units = -(-(view.numbers // block) // GROUP) if view.lanes else view.units(block)
    threads = team_size(view.numbers, units)
    sums = view.sums(arguments, 3, threads, block)
    arguments.x = x.data_ptr()
    kernel = _norm_kernel("statistics", DTYPES[x.dtype], view.shape(block))
    share(kernel, arguments, units, threads, 1)
    rest = view.numbers % block if view.lanes else 0
    if rest:  # the last groups of C, as one short block
        arguments.x += (view.numbers - rest) * x.element_size()
        arguments.neurons = arguments.block = rest
        kernel[1](arguments, 0, 1, 0)
    total, between, within = view.gathered(sums, block)
    mean = total / view.per_channel
    apart = between - total * mean  # of the means of units, from the mean of all
    return mean, ((within + apart) / view.per_channel).clamp_min_(0.0)


def gradient_(g: Tensor, x: Tensor, view: View, numbers: Mapping[str, Tensor]) -> Tensor:
    """``scale * g + lift - slope * (x - centre)``, written to ``g``, which is returned.

    Args:
        g: ``[N, C, ...]`` in the layout of x.
        x: ``[N, C, ...]``.
        view: of both.
        numbers: ``scale``, ``lift``, ``slope`` and ``centre``, each ``[C]``.
    """
    arguments = Arguments()
    arguments.x, arguments.g = x.data_ptr(), g.data_ptr()
    block = view.block(BLOCK)
    view.describe(arguments, block)
    tables = {name: view.table(values, block) for name, values in numbers.items()}
    for name, table in tables.items():
        setattr(arguments, name, table.data_ptr())
    units = view.units(block)
    kernel = _norm_kernel("gradient", DTYPES[g.dtype], view.shape(block))
    share(kernel, arguments, units, team_size(view.numbers, units), 1)
    return g
