"""What a signal does to a run: all of its processes end at the same batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
from typing_extensions import override

from cli import signals

if TYPE_CHECKING:
    from lightning.pytorch.strategies.launchers.launcher import _Launcher


def is_asked(trainer: pl.Trainer) -> bool:
    """Whether a signal has come to any process of the run; to be called by all of them at once."""
    here = signals.asked() is not None
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


def stop() -> None:
    """End the command.

    Raises:
        Stopped: always.
    """
    signals.release()
    raise signals.Stopped(signals.asked() or signals.NUMBERS[0])


class EndProcesses(pl.Callback):
    """Passes a signal on to the processes that this one has started, which would wait for it for ever."""

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        launcher: _Launcher | None = trainer.strategy.launcher
        if isinstance(exception, signals.Stopped) and launcher is not None:
            launcher.kill(exception.number)
