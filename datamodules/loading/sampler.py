"""The order of the training samples, and a share of the evaluation samples for every process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from datamodules.loading.random import sample_keys


class TrainSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index); the order is a function of (seed, epoch) and nothing else.

    It is a ``DistributedSampler`` by type, because that is what makes Lightning leave it in place
    under DDP. The processes take turns in the common order, so batch j of R processes together
    holds the same samples as batch j of one process with R times the batch size.

    Args:
        size: samples in the set, or the set itself.
        seed: seed of the order.
        rank: this process, from 0.
        world_size: number of processes.
        drop_last: leave out the samples that do not divide evenly among the processes; otherwise
            the first ones of the epoch are seen twice.
        weights: how often each sample is drawn, in proportion, ``[N]``; with replacement.
    """

    def __init__(
        self,
        size: int | Sized,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        weights: Tensor | None = None,
    ) -> None:
        self.size = size if isinstance(size, int) else len(size)
        self.weights = weights
        if drop_last and self.size < world_size:
            raise ValueError(
                f"{self.size} training samples cannot be shared by {world_size} processes;"
                " use fewer devices or drop_last: false"
            )
        super().__init__(
            cast("Any", range(self.size)),
            num_replicas=world_size,
            rank=rank,
            seed=seed,
            drop_last=drop_last,
        )
        rounding = math.floor if drop_last else math.ceil
        self.num_samples = rounding(self.size / world_size)
        self.total_size = self.num_samples * world_size
        self.start = 0

    def order(self, epoch: int) -> list[int]:
        """Return all indices of an epoch in the order common to all processes."""
        generator = torch.Generator()
        key = int(sample_keys(self.seed, epoch, [0])[0]) >> 1  # manual_seed takes 63 bits
        generator.manual_seed(key)
        if self.weights is not None:
            return torch.multinomial(self.weights, self.size, True, generator=generator).tolist()
        return torch.randperm(self.size, generator=generator).tolist()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = self.order(self.epoch)
        while len(order) < self.total_size:
            order += order[: self.total_size - len(order)]
        mine = order[self.rank : self.total_size : self.num_replicas]
        epoch = self.epoch
        for index in mine[self.start :]:
            yield epoch, index

    def __len__(self) -> int:
        return self.num_samples


class EvalSampler(DistributedSampler[int]):
    """Splits a set among the processes in order, each sample once.

    All processes must run the same number of batches (each evaluation forward may broadcast
    buffers). Only where the shares would need different numbers of batches, which takes a remainder
    of fewer samples than processes, are the last shares filled up with repeated samples.

    Args:
        size: samples in the set, or the set itself.
        batch_size: samples a batch and process.
        rank: this process, from 0.
        world_size: number of processes.

    Attributes:
        repeated: how many samples at the end of this process's share are also another's.
    """

    def __init__(self, size: int | Sized, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.size = size if isinstance(size, int) else len(size)
        super().__init__(cast("Any", range(self.size)), num_replicas=world_size, rank=rank, shuffle=False)
        most, least = math.ceil(self.size / world_size), self.size // world_size
        uneven = math.ceil(most / batch_size) != math.ceil(least / batch_size)
        self.indices = list(range(self.size))[rank::world_size]
        self.repeated = 0
        if uneven and self.size and len(self.indices) < most:
            self.repeated = 1
            self.indices.append(rank % self.size)
        self.num_samples = len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return self.num_samples
