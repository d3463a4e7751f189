"""A DataLoader that continues in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from datamodules.loading.sampler import TrainSampler


def as_is(batch: Any) -> Any:
    """Return a batch unchanged: the data sets here build whole batches themselves."""
    return batch


class EpochLoader(DataLoader[Any]):
    """DataLoader over a `TrainSampler` that can begin in the middle of an epoch.

    Lightning may ask for the loader, and even create its iterator, long before it restores the
    position of a checkpoint (``estimated_stepping_batches`` in ``configure_optimizers`` does so).
    So nothing is decided before the first batch is asked for; only then are the epoch and the
    number of finished batches looked up. ``len`` is always that of the whole epoch, which keeps
    step counts, schedules and validation intervals the same after a resume.

    Outside of Lightning, ``state_dict`` and ``load_state_dict`` do the same for a plain loop.

    Args:
        args: as for ``torch.utils.data.DataLoader``; the sampler should be a `TrainSampler`.
        position: called with this loader at the first batch of a pass; returns how many batches
            of this epoch are done, or ``None`` if it cannot tell: then the pass starts at 0, or
            where `load_state_dict` said.
        kwargs: as for ``torch.utils.data.DataLoader``.
    """

    def __init__(
        self, *args: Any, position: Callable[[Any], int | None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.position = position
        self._loaded: int | None = None
        self._epoch = 0
        self._done = 0

    def __iter__(self) -> Any:
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        start, self._loaded = self._loaded, None
        known = None if self.position is None else self.position(self)
        start = (start or 0) if known is None else known
        if isinstance(self.sampler, TrainSampler) and self.batch_size is not None:
            self._epoch = self.sampler.epoch
            self.sampler.start = start * self.batch_size
        self._done = start
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of batches handed out in it."""
        return {"epoch": self._epoch, "batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass continue after ``state["batches"]`` batches of its epoch."""
        if isinstance(self.sampler, TrainSampler):
            self.sampler.set_epoch(state["epoch"])
        finished = state["batches"] >= len(self)
        self._loaded = 0 if finished else state["batches"]
        if finished and isinstance(self.sampler, TrainSampler):
            self.sampler.set_epoch(state["epoch"] + 1)
