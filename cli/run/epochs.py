"""A run by steps that goes on from the end of an epoch begins the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from typing_extensions import override

if TYPE_CHECKING:
    import lightning.pytorch as pl


class EpochLoop(_FitLoop):
    """Lightning's, which takes a whole epoch for one that was cut wherever ``max_steps`` ends the training.

    Its loop of 2.6 then goes through an epoch without a batch, so that all later epochs have the samples of
    the epoch after theirs.
    """

    @property
    @override
    def restarting(self) -> bool:
        return self._restarting

    @restarting.setter
    def restarting(self, restarting: bool) -> None:
        done: Any = self.epoch_progress.current
        inherited: Any = _Loop.restarting
        inherited.fset(self, restarting and not done.ready == done.started == done.processed)


def mend_epochs(trainer: pl.Trainer) -> None:
    """Put `EpochLoop` in the place of Lightning's loop; one of the user's stays."""
    given = trainer.fit_loop
    if type(given) is _FitLoop:
        mended = EpochLoop(trainer, min_epochs=given.min_epochs, max_epochs=given.max_epochs)
        mended.epoch_loop = given.epoch_loop
        trainer.fit_loop = mended
