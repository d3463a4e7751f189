"""What a run gets without asking: by task, by command, and next to what the user brought."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar

from cli.run.callbacks import LastCheckpoint
from cli.run.defaults import default_callbacks, loggers
from cli.run.folder import RunFolder
from cli.run.loggers import LogFigures
from cli.run.messages import RunLog
from cli.run.monitors import CheckMonitors
from cli.run.options import RunOptions
from cli.run.splits import SplitColumns, SplitProgressBar
from cli.run.stopping import EndProcesses
from cli.run.storage import RunLogger
from lightning_modules import BaseTask, ResumableState, RunReport

SAVING = [ModelCheckpoint, LastCheckpoint]


class Reconstruction(BaseTask):
    monitor = "val/psnr"


def folder(path="runs/x", checkpoint=None, words=("fit", "--ckpt_path", "last", "-c", "x.yaml")):
    return RunFolder(path=Path(path), checkpoint=checkpoint, words=words)


def made(given=(), fitting=True, **trainer):
    return default_callbacks(list(given), trainer, Reconstruction(), folder(), RunOptions(), fitting)


def test_the_best_checkpoint_is_the_one_that_the_task_names():
    best = next(c for c in made() if isinstance(c, ModelCheckpoint))
    assert (best.monitor, best.mode) == ("val/psnr", "min")
    assert best.dirpath == str(Path("runs/x/checkpoints").resolve())


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (
            {},
            [
                SplitProgressBar,
                ModelCheckpoint,
                LastCheckpoint,
                ResumableState,
                SplitColumns,
                RunReport,
                LogFigures,
                EndProcesses,
                RunLog,
                CheckMonitors,
                LearningRateMonitor,
            ],
        ),
        (
            {"fitting": False},
            [
                SplitProgressBar,
                ModelCheckpoint,
                ResumableState,
                SplitColumns,
                RunReport,
                LogFigures,
                EndProcesses,
            ],
        ),
        (
            {"fast_dev_run": 1},
            [
                SplitProgressBar,
                ResumableState,
                SplitColumns,
                RunReport,
                LogFigures,
                EndProcesses,
                LearningRateMonitor,
            ],
        ),
        (
            {"enable_checkpointing": False, "logger": False},
            [
                SplitProgressBar,
                ResumableState,
                SplitColumns,
                RunReport,
                LogFigures,
                EndProcesses,
                RunLog,
                CheckMonitors,
            ],
        ),
        (
            {"given": [TQDMProgressBar(), RunReport()], "enable_checkpointing": False},
            [
                ResumableState,
                SplitColumns,
                LogFigures,
                EndProcesses,
                RunLog,
                CheckMonitors,
                LearningRateMonitor,
            ],
        ),
    ],
)
def test_what_is_added(options, kinds):
    assert [type(callback) for callback in made(**options)] == kinds


def test_the_table_of_metrics_goes_where_the_command_says(tmp_path):
    (fit,) = loggers({}, folder(tmp_path), RunOptions(), "fit")
    (test,) = loggers({"logger": True}, folder(tmp_path), RunOptions(), "test")
    assert isinstance(fit, RunLogger)
    assert (fit.log_dir, test.log_dir) == (str(tmp_path), str(tmp_path / "test"))
    assert loggers({"logger": False}, folder(), RunOptions(), "fit") is False
    assert loggers({"logger": fit}, folder(), RunOptions(), "fit") == [fit]


def test_a_run_knows_how_it_goes_on():
    assert folder().command == "fulgurite fit --ckpt_path last -c x.yaml"
    assert folder().resume_command == "fulgurite fit -c x.yaml --ckpt_path last"
    assert folder(words=("fit", "--ckpt_path=best")).resume_command == "fulgurite fit --ckpt_path last"


def test_only_checkpoints_of_its_own_folder_continue_a_run(tmp_path):
    assert folder(tmp_path, tmp_path / "checkpoints" / "last.ckpt").goes_on
    assert not folder(tmp_path, tmp_path.parent / "last.ckpt").goes_on
    assert not folder(tmp_path, "hpc").goes_on
    assert folder(tmp_path).kept_steps is None


def test_an_earlier_run_is_kept(tmp_path):
    run = folder(tmp_path / "x")
    run.start_clean()
    for number in (1, 2):
        run.checkpoints.mkdir(parents=True)
        (run.checkpoints / "last.ckpt").touch()
        run.start_clean()
        assert (tmp_path / f"x.{number}" / "checkpoints" / "last.ckpt").exists()
    assert not run.path.exists()
