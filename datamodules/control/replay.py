"""The transitions that an agent learns from, in memory and on the disk."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Transitions:
    """A batch of steps in an environment, float32.

    Attributes:
        observation: ``[B, D]``.
        action: ``[B, A]``.
        next_observation: ``[B, D]``.
        reward: ``[B, 1]``.
        not_done: ``[B, 1]``: 0 where the episode terminated, 1 also where a time limit cut it.
    """

    observation: Tensor
    action: Tensor
    next_observation: Tensor
    reward: Tensor
    not_done: Tensor


class ReplayBuffer:
    """The latest transitions, one row of float32 each, in memory that is reserved once.

    Args:
        capacity: rows; the oldest are overwritten.
        obs_dim: D.
        act_dim: A.

    Attributes:
        total: transitions added so far, overwritten ones included.
    """

    def __init__(self, capacity: int, obs_dim: int, act_dim: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {capacity}")
        self.capacity, self.obs_dim, self.act_dim = capacity, obs_dim, act_dim
        self.width = 2 * obs_dim + act_dim + 2
        self.rows: Rows = np.empty((capacity, self.width), dtype=np.float32)
        self.total = 0

    def __len__(self) -> int:
        return min(self.total, self.capacity)

    def add(
        self, observation: Any, action: Any, next_observation: Any, reward: float, terminated: bool
    ) -> None:
        """Add a step; ``terminated`` is not true where only a time limit ended the episode."""
        row, d, a = self.rows[self.total % self.capacity], self.obs_dim, self.act_dim
        row[:d], row[d : d + a], row[d + a : -2] = observation, action, next_observation
        row[-2], row[-1] = reward, 0.0 if terminated else 1.0
        self.total += 1

    def sample(self, count: int, random: np.random.Generator) -> Transitions:
        """``count`` rows, each drawn from all that are there.

        Raises:
            DataError: there are none yet.
        """
        if not self.total:
            raise DataError("the replay buffer is empty: act in the environment before sampling")
        rows = torch.from_numpy(self.rows[random.integers(0, len(self), count)])
        d, a = self.obs_dim, self.act_dim
        return Transitions(
            observation=rows[:, :d],
            action=rows[:, d : d + a],
            next_observation=rows[:, d + a : -2],
            reward=rows[:, -2:-1],
            not_done=rows[:, -1:],
        )

    def since(self, start: int) -> Rows:
        """Rows from number ``start`` (of all that were ever added) on, in their order."""
        order = np.arange(start, self.total) % self.capacity
        return self.rows[order]

    def put(self, rows: Rows, total: int) -> None:
        """Take over the last of ``total`` transitions."""
        kept = rows[-self.capacity :]
        self.rows[np.arange(total - len(kept), total) % self.capacity] = kept
        self.total = total


class ReplayLog:
    """All transitions of a run in one file, which only grows: a checkpoint states how much of it is its own.

    Every checkpoint of the run can therefore be gone on from, not only the last one, and each writes no more
    than what is new since the one before. What a killed run wrote after its last checkpoint is cut off.

    Args:
        path: the file.
        width: numbers in a row.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self.written = 0
        self.checksum = 0

    def append(self, rows: Rows) -> None:
        """Write rows behind those that were written before, and have them on the disk.

        Raises:
            DataError: they could not be written; the checkpoint before is untouched.
        """
        content = rows.tobytes()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
                file.truncate(self.written * self.width * 4)
                file.seek(0, os.SEEK_END)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"could not write the replay buffer {self.path}: {error.strerror or error}. The last"
                " checkpoint is whole; make room, then continue with --ckpt_path last"
            ) from error
        self.written += len(rows)
        self.checksum = zlib.crc32(content, self.checksum)

    def read(self, source: Path, written: int, checksum: int) -> Rows:
        """Rows that a checkpoint counts on, from ``source``, which may be another run's file.

        Raises:
            DataError: the file is missing, too short, or not that of the checkpoint.
        """
        size = written * self.width * 4
        if not size:  # nothing was written yet, so there may be no file
            return np.empty((0, self.width), dtype=np.float32)
        try:
            with open(source, "rb") as file:
                content = file.read(size)
        except OSError as error:
            raise DataError(
                f"the checkpoint counts on the replay buffer {source}: {error.strerror or error}. Put the"
                " file beside the checkpoint, or go on with an empty one: --data.init_args.store_replay false"
            ) from error
        if len(content) != size or zlib.crc32(content) != checksum:
            raise DataError(
                f"{source} is damaged, or is not of this checkpoint, which counts on {written:,} transitions"
                " in it; go on with an empty one: --data.init_args.store_replay false"
            )
        rows: Rows = np.frombuffer(content, dtype=np.float32).reshape(written, self.width)
        if source.resolve() == self.path.resolve():
            self.written, self.checksum = written, checksum
        else:
            self.written = self.checksum = 0
            self.append(rows)
        return rows
