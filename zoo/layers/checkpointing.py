"""Activation checkpointing that leaves running statistics alone when a block is recomputed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn


def checkpoint_block(block: nn.Module, x: Tensor) -> Tensor:
    """Run ``block(x)`` under activation checkpointing; running statistics move once, not twice."""
    options: dict[str, Any] = {"use_reentrant": False}
    if not torch.compiler.is_compiling():
        options["context_fn"] = lambda: (contextlib.nullcontext(), frozen_statistics(block))
    y: Tensor = checkpoint(block, x, **options)
    return y


class frozen_statistics:  # noqa: N801 - reads as a statement: with frozen_statistics(block)
    """Keep running statistics of ``block`` still, while training mode stays on.

    BatchNorm works on copies of its buffers for the time being (switching the tracking off would
    save fewer tensors, which activation checkpointing refuses); a module with an
    ``update_statistics`` attribute (firing rates) is told through it. May be entered again, because
    a graph that is kept is recomputed at every backward pass.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.buffers: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
        self.told: list[Any] = []

    def __enter__(self) -> None:
        for module in self.block.modules():
            if isinstance(module, _BatchNorm):
                own = dict(module._buffers)
                self.buffers.append((module, own))
                module._buffers.update({k: b if b is None else b.clone() for k, b in own.items()})
            elif getattr(module, "update_statistics", False):
                self.told.append(module)
                self.told[-1].update_statistics = False

    def __exit__(self, *error: object) -> None:
        while self.buffers:
            module, own = self.buffers.pop()
            module._buffers.update(own)
        while self.told:
            self.told.pop().update_statistics = True
