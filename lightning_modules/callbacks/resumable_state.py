"""Random numbers that do not depend on whether a run was interrupted."""

from __future__ import annotations

import os
import random
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from typing_extensions import override


class ResumableState(pl.Callback):
    """Seeds every training step from (run's seed, process, epoch, batch).

    Dropout, mixup and random encoders then draw in a resumed run what they would have drawn in an
    undisturbed one; nothing has to be stored for it.
    """

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        where = (seed, trainer.global_rank, trainer.current_epoch, batch_idx)
        words = np.random.SeedSequence(where).generate_state(3)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002 - what timm's mixup draws from
        if pl_module.device.type == "cpu":
            # torch.manual_seed writes down the whole call stack for the day when CUDA starts
            torch.default_generator.manual_seed(int(words[2]))
        else:
            torch.manual_seed(int(words[2]))
