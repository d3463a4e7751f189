"""Keeps spikes for the backward pass as bits."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from spiking.kernels.bit_code import MULTIPLE, ONE
from spiking.kernels.bits import pack, unpack
from spiking.kernels.layout import is_dense

if TYPE_CHECKING:
    from collections.abc import Iterator

    Saved = tuple[Tensor, int] | tuple["_Spikes", tuple[int, ...], tuple[int, ...]]

SMALLEST = 1 << 14  # numbers below which nothing is gained


@contextmanager
def compress_spikes() -> Iterator[None]:
    """Within the block, autograd keeps spikes for the backward pass as bits.

    Convolutions, linear layers, products and poolings keep their inputs. An input of 0 and 1 is kept as bits;
    one of multiples of 1/4 from 0 to 63.75, as the sums of SEW-ResNet and average pools give, as bytes. All
    others are left alone. Whether a tensor is one of these is seen while it is packed, number by number, so
    gradients are the same to the bit. Several layers that keep one tensor share what is packed.

    >>> import torch, spiking
    >>> layer, spikes = torch.nn.Linear(64, 64), torch.rand(512, 64).round()
    >>> with compress_spikes():
    ...     loss = layer(spikes).sum()
    >>> loss.backward()

    The block has to hold the forward pass; the backward pass may come later. It acts on the thread that
    entered it. Activation checkpointing inside it keeps its own rules. A tensor that is changed in place
    between the two passes raises an error, as without the block, unless it was packed.
    """
    memory: weakref.WeakValueDictionary[tuple[Any, ...], _Spikes] = weakref.WeakValueDictionary()

    def packed(x: Tensor) -> Saved:
        if not _may_hold_spikes(x):
            return x.detach(), x._version  # x itself would keep alive the graph that keeps it
        key = (x.untyped_storage()._cdata, x.storage_offset(), x.numel(), x.dtype, x._version)
        found = memory.get(key)
        if found is None:
            flat = x.detach().as_strided((x.numel(),), (1,))
            whole = x.numel() // MULTIPLE * MULTIPLE
            spikes = pack(flat[:whole])
            if spikes is None:
                return x.detach(), x._version
            found = memory[key] = _Spikes(x, flat, whole, *spikes)
        return found, tuple(x.shape), x.stride()

    def unpacked(saved: Saved) -> Tensor:
        if isinstance(saved[0], _Spikes):
            spikes, shape, strides = saved
            return spikes.numbers().as_strided(shape, strides)
        x, version = saved
        if x._version != version:
            raise RuntimeError(
                f"a tensor {list(x.shape)} that the backward pass needs was changed in place: it is at"
                f" version {x._version} and was at {version} in the forward pass"
            )
        return x

    with saved_tensors_hooks(packed, unpacked):
        yield


def _may_hold_spikes(x: Tensor) -> bool:
    """Whether a look at the numbers is worth it: activations that fill their memory."""
    if type(x) is not Tensor or x.dtype not in ONE or x.numel() < SMALLEST:
        return False
    if x.layout is not torch.strided or (x.is_leaf and x.requires_grad):
        return False
    return is_dense(x.shape, x.stride())


class _Spikes:
    """A packed tensor.

    Args:
        x: what it was; its storage's identity is kept, not its memory, so that no later one takes its place.
        flat: its numbers ``[n]`` as they lie in memory.
        whole: how many of them are packed; the few others are kept as they are.
        data: `spiking.kernels.bits.pack` of these.
        bits: of each number.
    """

    def __init__(self, x: Tensor, flat: Tensor, whole: int, data: Tensor, bits: int) -> None:
        self.storage = StorageWeakRef(x.untyped_storage())
        self.rest = flat[whole:].clone()
        self.whole, self.data, self.bits = whole, data, bits

    def numbers(self) -> Tensor:
        """All of them, ``[n]``."""
        out = self.rest.new_empty(self.whole + len(self.rest))
        unpack(self.data, self.bits, out[: self.whole])
        out[self.whole :] = self.rest
        return out
