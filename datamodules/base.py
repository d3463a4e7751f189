"""What all data modules share, whatever the task: loaders, the order of samples, and resuming."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.loading.datasets import BatchDataset
from datamodules.loading.errors import DataError
from datamodules.loading.loader import EpochLoader, as_is
from datamodules.loading.sampler import EvalSampler, TrainSampler
from datamodules.loading.splits import Split


class BaseDataModule(pl.LightningDataModule):
    """Loaders over a training, a validation and a test set, for any task.

    The order of the training samples depends on (seed, epoch), each augmentation on (seed, epoch,
    sample): neither the number of workers nor a resume changes them. The split among processes and
    the continuation in the middle of an epoch need nothing from the user.

    A subclass fills `train_set`, `val_set` and `test_set` in `setup`; see `BatchDataset` for what
    they hand out. Where they are others than their names say, it corrects `split_names`, too: reports and
    cards call them so. Data of classes derive from `ClassificationDataModule`.

    Args:
        batch_size: training samples per process and step.
        eval_batch_size: the same for validation, test and prediction; `batch_size` if missing.
        num_workers: processes that prepare batches. Missing: none for data in memory without a
            policy, else one less than the processor's cores, at least 1 and at most 8.
        seed: of order and augmentation; missing: the one of ``seed_everything``, else 0. Splits do
            not depend on it.
        drop_last: leave out the incomplete last training batch. A set smaller than one batch is
            kept whole.
        pin_memory: page-locked batches; missing: only if there is an accelerator.

    Raises:
        ValueError: a batch size below 1 or a negative number of workers.
    """

    title: str = ""  # of the data set, for cards; its identifier on the Hub; its licence
    hub_id: str | None = None
    licence: str | None = None
    linked_facts: ClassVar[tuple[str, ...]] = ()  # attributes that a task takes over as its arguments
    in_memory = True  # decides the default number of workers

    def __init__(
        self,
        *,
        batch_size: int = 64,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
        drop_last: bool = True,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be 0 or more, got {num_workers}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self.train_set: BatchDataset | None = None
        self.val_set: BatchDataset | None = None
        self.test_set: BatchDataset | None = None
        self.split_names = {"train": "train", "val": "validation", "test": "test"}
        self._resumed: dict[str, int] | None = None

    # -- facts ---------------------------------------------------------------------------------

    @property
    def train_transform(self) -> Any:
        """The training transform, whose ``repr`` lists its steps; None if samples stay as they are."""
        return None

    @property
    def eval_transform(self) -> Any:
        """The transform of validation, test and prediction; None if samples stay as they are."""
        return None

    def facts(self) -> dict[str, Any]:
        """What somebody who uses a network must know about its training data, as plain values."""
        return {
            "name": self.title or type(self).__name__.removesuffix("DataModule"),
            "hub_id": self.hub_id,
            "licence": self.licence,
        }

    def splits(self) -> dict[str, Split]:
        """Return which samples are behind ``train``, ``val`` and ``test``, as far as they are loaded."""
        sets = {"train": self.train_set, "val": self.val_set, "test": self.test_set}
        names = dict(self.split_names)
        if self.val_set is self.test_set and names["val"] != names["test"]:
            names["test"] = names["val"]  # whatever chooses the checkpoint is no test set
        return {k: Split(name=names[k], samples=len(v)) for k, v in sets.items() if v is not None}

    def described(self) -> dict[str, str]:
        """Return what `describe` shows of the samples' meaning and shape, by heading."""
        return {}

    def describe(self) -> str:
        """Return the facts and transforms as text, one line each."""
        sizes = [
            f"{role} {split.samples:,}" + (f" ({split.name})" if split.name != role else "")
            for role, split in self.splits().items()
        ]
        lines = {
            "data": type(self).__name__,
            **self.described(),
            "samples": ", ".join(sizes) or "not loaded yet",
            "training": repr(self.train_transform),
            "evaluation": repr(self.eval_transform),
            "seed": str(self.seed),
        }
        width = 1 + max(map(len, lines))
        return "\n".join(f"{key:<{width}}{value}" for key, value in lines.items())

    # -- loaders -------------------------------------------------------------------------------

    def _processes(self) -> tuple[int, int]:
        """Return (rank, number of processes)."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _loader_options(self, in_memory: bool) -> dict[str, Any]:
        workers = self.num_workers
        if workers is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
            workers = 0 if in_memory else min(8, max(1, cores - 1))
        pin = torch.accelerator.is_available() if self.pin_memory is None else self.pin_memory
        return {
            "num_workers": workers,
            "pin_memory": pin,
            "persistent_workers": workers > 0,
            "collate_fn": as_is,
            # without an own generator every pass would draw a number from the global one
            "generator": torch.Generator().manual_seed(self.seed),
        }

    @property
    def light_training(self) -> bool:
        """Whether a training batch is prepared faster than a worker process could send it."""
        return self.in_memory

    def _loaded(self, name: str) -> BatchDataset:
        data: BatchDataset | None = getattr(self, name)
        if data is None:
            raise DataError(f"{type(self).__name__}.{name} is not there yet: call setup() first")
        if len(data) == 0:
            raise DataError(f"{type(self).__name__}.{name} is empty")
        return data

    def sample_weights(self, data: BatchDataset) -> Tensor | None:
        """How often each training sample is drawn, in proportion, ``[N]``; None: each once an epoch."""
        return None

    @override
    def train_dataloader(self) -> EpochLoader:
        """Return the training loader: shuffled by (seed, epoch), resumable, shared by processes."""
        data = self._loaded("train_set")
        rank, world = self._processes()
        # dropping the only batch would leave nothing to train on
        drop_last = self.drop_last and len(data) >= self.batch_size * world
        sampler = TrainSampler(len(data), self.seed, rank, world, drop_last, self.sample_weights(data))
        self._compare_with_checkpoint(len(sampler), world)
        return EpochLoader(
            data,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            position=self._finished_batches,
            **self._loader_options(self.light_training),
        )

    def _eval_dataloader(self, name: str) -> DataLoader[Any]:
        data = self._loaded(name)
        size = self.eval_batch_size or self.batch_size
        return DataLoader(
            data,
            batch_size=size,
            sampler=EvalSampler(len(data), size, *self._processes()),
            **self._loader_options(self.in_memory),
        )

    @override
    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader: samples in their order, shared among processes by `EvalSampler`."""
        return self._eval_dataloader("val_set")

    @override
    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader: samples in their order, shared among processes by `EvalSampler`."""
        return self._eval_dataloader("test_set")

    def calibration_dataloader(self, samples: int = 0, batch_size: int | None = None) -> DataLoader[Any]:
        """Return training samples as evaluation sees them, in one fixed random order.

        Every process gets all of them, so that all of them calibrate alike.

        Args:
            samples: how many; 0 is all of the training set.
            batch_size: that of evaluation if missing.
        """
        if samples < 0:
            raise ValueError(f"samples must be 0 (all) or more, got {samples}")
        data = self._loaded("train_set")
        if self.eval_transform is not None:
            data = data.with_transform(self.eval_transform)
        order = TrainSampler(len(data), self.seed).order(epoch=0)
        size = batch_size or self.eval_batch_size or self.batch_size
        options = self._loader_options(self.in_memory)
        return DataLoader(data, batch_size=size, sampler=order[: samples or None], **options)

    # -- resuming ------------------------------------------------------------------------------

    def _finished_batches(self, loader: EpochLoader) -> int | None:
        """Return how many batches of this epoch Lightning's training loop has behind it."""
        trainer = self.trainer
        if trainer is None or not trainer.training or trainer.train_dataloader is not loader:
            return None
        return int(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return what decides the order; Lightning stores it in checkpoints."""
        return {"seed": self.seed, "batch_size": self.batch_size, "processes": self._processes()[1]}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember how the checkpoint's run was set up, to compare in `train_dataloader`."""
        self._resumed = dict(state_dict)

    def _compare_with_checkpoint(self, share: int, world: int) -> None:
        trainer, stored = self.trainer, self._resumed
        if stored is None or trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        now = {"seed": self.seed, "batch_size": self.batch_size, "processes": world}
        changed = [f"{k} was {stored.get(k)}, is {v}" for k, v in now.items() if stored.get(k) != v]
        if changed and trainer.fit_loop.epoch_loop.batch_progress.current.ready % math.ceil(
            share / self.batch_size
        ):
            warnings.warn(
                f"continuing in the middle of an epoch with another order ({'; '.join(changed)}):"
                " some samples of this epoch will be seen twice, others not at all",
                stacklevel=2,
            )
