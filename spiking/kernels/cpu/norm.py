"""Norms over everything but the channels on CPU tensors: statistics, the affine map, and its gradient."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.kernels.cpu.arguments import Arguments
from spiking.kernels.cpu.norm_writer import GROUP, NormWriter
from spiking.kernels.cpu.runtime import DTYPES, compiled, share, team_size
from spiking.kernels.cpu.view import View, streams
from spiking.kernels.cpu.writer import BLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spiking.kernels.cpu.channel_writer import Shape

SUMMED = 512  # numbers of a block whose sums are taken in groups of blocks: 32 KiB a group


@lru_cache(maxsize=256)
def _norm_kernel(kind: str, stored: str, shape: Shape, stream: bool) -> tuple[int, Any]:
    return compiled(getattr(NormWriter(stored, shape, stream), kind))


def statistics(x: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, ``[C]`` in float64."""
    total, between, within = _reduced("statistics", 3, view, x)
    mean = total / view.per_channel
    apart = between - total * mean  # of the means of units, from the mean of all
    return mean, ((within + apart) / view.per_channel).clamp_min_(0.0)


def reduction(g: Tensor, x: Tensor, view: View, centre: Tensor) -> Tensor:
    """Sums over each channel of ``g`` and of ``g * (x - centre)``, ``[2, C]`` in float64."""
    return _reduced("reduction", 2, view, x, g, centre)


def _reduced(
    kind: str, kinds: int, view: View, x: Tensor, g: Tensor | None = None, centre: Tensor | None = None
) -> Tensor:
    arguments = Arguments()
    block = view.block(SUMMED if view.lanes else BLOCK)
    view.describe(arguments, block)
    units = -(-(view.numbers // block) // GROUP) if view.lanes else view.units(block)
    threads = team_size(view.numbers, units)
    sums = view.sums(arguments, kinds, threads, block)
    held = None if centre is None else view.table(centre, block)
    arguments.x = x.data_ptr()
    if g is not None and held is not None:
        arguments.g, arguments.centre = g.data_ptr(), held.data_ptr()
    kernel = _norm_kernel(kind, DTYPES[x.dtype], view.shape(block), False)
    share(kernel, arguments, units, threads, 1)
    rest = view.numbers % block if view.lanes else 0
    if rest:  # the last groups of C, as one short block
        past = (view.numbers - rest) * x.element_size()
        arguments.x += past
        arguments.g += past
        arguments.neurons = arguments.block = rest
        kernel[1](arguments, 0, 1, 0)
    return view.gathered(sums, block)


def affine(x: Tensor, view: View, scale: Tensor, shift: Tensor) -> Tensor:
    """``scale * x + shift`` in the layout of ``x``; ``scale`` and ``shift`` are ``[C]``."""
    out = torch.empty_like(x)
    arguments = Arguments()
    arguments.x, arguments.out = x.data_ptr(), out.data_ptr()
    _mapped("affine", view, arguments, out, {"scale": scale, "shift": shift})
    return out


def gradient(
    g: Tensor, x: Tensor, view: View, numbers: Mapping[str, Tensor], out: Tensor | None = None
) -> Tensor:
    """``scale * g + lift - slope * (x - centre)``.

    Args:
        g: ``[N, C, ...]`` in the layout of x.
        x: ``[N, C, ...]``.
        view: of both.
        numbers: ``scale``, ``lift``, ``slope`` and ``centre``, each ``[C]``.
        out: where it is put, maybe ``g`` itself; a new tensor if None.
    """
    out = torch.empty_like(x) if out is None else out
    arguments = Arguments()
    arguments.x, arguments.g, arguments.gx = x.data_ptr(), g.data_ptr(), out.data_ptr()
    _mapped("gradient", view, arguments, out, numbers)
    return out


def _mapped(kind: str, view: View, arguments: Arguments, out: Tensor, numbers: Mapping[str, Tensor]) -> None:
    block = view.block(BLOCK)
    view.describe(arguments, block)
    tables = {name: view.table(values, block) for name, values in numbers.items()}
    for name, table in tables.items():
        setattr(arguments, name, table.data_ptr())
    units = view.units(block)
    stream = streams(out, view, block, view.numbers) and arguments.g != arguments.gx
    kernel = _norm_kernel(kind, DTYPES[out.dtype], view.shape(block), stream)
    share(kernel, arguments, units, team_size(view.numbers, units), 1)
