"""Lightning's command line, with run folders, resuming, and short errors."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
    ProgressBar,
    RichProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

import conversion
import datamodules
import lightning_modules
import zoo
from cli import errors
from cli.parser import SpikingParser
from cli.run import resume
from cli.run.callbacks import LastCheckpoint, PredictionWriter
from cli.run.storage import AtomicCheckpointIO, RunLogger
from datamodules import BaseDataModule
from lightning_modules import BaseTask

if TYPE_CHECKING:
    from collections.abc import Sequence

LINKS = ("num_classes", "in_chans", "input_size")  # facts of the data that a task takes over


class SpikingCLI(LightningCLI):
    """LightningCLI over our tasks and data modules.

    What it adds: one fixed folder for each configuration; ``--ckpt_path last`` and ``best`` that
    look there; a command line that checkpoints do not overrule; default callbacks; checkpoints
    that are whole or absent; ``predict`` into a table.

    Args:
        args: command words, the subcommand first; those of the command line if missing.
        kwargs: see ``LightningCLI``.
    """

    def __init__(self, args: Sequence[str] | None = None, **kwargs: Any) -> None:
        self.words = list(sys.argv[1:] if args is None else args)
        self.folder = Path()
        self.ckpt_path: Path | str | None = None
        self._started = 0.0
        defaults: dict[str, Any] = {
            "subclass_mode_model": True,
            "subclass_mode_data": True,
            "auto_configure_optimizers": False,  # tasks build their own
            "seed_everything_default": 0,
            "save_config_kwargs": {"overwrite": True},
            "parser_class": SpikingParser,
            "parser_kwargs": {"prog": "fulgurite"},
        }
        super().__init__(BaseTask, BaseDataModule, args=self.words, **{**defaults, **kwargs})

    # -- words ---------------------------------------------------------------------------------

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our own keys and link the facts of the data to the task."""
        for name in LINKS:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.add_argument(
            "--test_after_fit",
            type=bool,
            default=False,
            help="After fit, test the best checkpoint and print the report; where a run starts from trained"
            " or converted weights, test these before it, too.",
        )
        parser.add_argument(
            "--tensorboard",
            type=bool,
            default=False,
            help="Write TensorBoard files besides metrics.csv.",
        )
        parser.add_argument(
            "--checkpoint_every_n_steps",
            type=int,
            default=500,
            help="Optimiser steps between two checkpoints within an epoch; 0: only at its end.",
        )
        parser.add_argument(
            "--output",
            type=str,
            default="predictions.csv",
            help="Table that predict writes.",
        )
        parser.add_argument(
            "--top_k",
            type=int,
            default=5,
            help="Labels in each line of predict's table.",
        )
        parser.add_argument(
            "--explain",
            type=Literal["tokens"] | None,
            default=None,
            help="tokens: predict also draws where the important tokens of each image are.",
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # without this, Lightning 2.6 loads local checkpoints in the way that runs code in them
        parser.set_defaults({"weights_only": True})
        if subcommand == "test":
            parser.set_defaults({"verbose": False})  # the report says it better than Lightning's table
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args`; the original warns whenever they do not come from the shell."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Find the run's folder and its checkpoint, and leave the settings as they were typed.

        The original merges the hyper-parameters stored in the checkpoint last, so that they beat
        the command line without a word (Lightning pull request 21116).
        """
        command = self.config["subcommand"]
        config = self.config[command]
        if config.trainer.default_root_dir is None:
            given = [str(getattr(p, "relative", p)) for p in config.get("config") or []]
            fallback = "-".join(
                str(config.get(key, {}).get("class_path", key)).rpartition(".")[2]
                for key in ("model", "data")
            )
            config.trainer.default_root_dir = str(resume.run_folder(given, fallback))
        self.folder = Path(config.trainer.default_root_dir)
        self.ckpt_path = resume.resolve(config.get("ckpt_path"), self.folder)
        if self.ckpt_path is not None:
            config.ckpt_path = str(self.ckpt_path)

    # -- building ------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Build data, task and trainer; values that they refuse become one short message."""
        typed = self._typed_links()
        try:
            super().instantiate_classes()
        except errors.CommandError:
            raise
        except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
            raise errors.CommandError(errors.summary(error)) from error
        for name, value in typed.items():
            fact = getattr(self.datamodule, name)
            fact = list(fact) if isinstance(fact, tuple) else fact  # as YAML brings it
            if value is not None and value != fact:
                raise errors.CommandError(
                    f"model.init_args.{name} is {value}, but {type(self.datamodule).__name__} has"
                    f" {name} = {fact}; leave it out, it is taken from the data"
                )

    def _typed_links(self) -> dict[str, Any]:
        """Return the linked values that the user typed; linking drops them without a word."""
        config = self.config[self.config["subcommand"]]
        given: set[str] = set()
        for path in config.get("config") or []:
            content = yaml.safe_load(path.get_content()) or {}
            model = content.get("model") if isinstance(content, dict) else None
            if isinstance(model, dict):
                given |= set(model.get("init_args") or {})
        for word in self.words:
            option = word.partition("=")[0]
            if option.startswith("--model."):
                given.add(option.removeprefix("--model.").removeprefix("init_args."))
        values = config.model.get("init_args") or {}
        return {name: values.get(name) for name in LINKS if name in given}

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> pl.Trainer:
        if not config.get("barebones"):
            given = config.get("callbacks") or []
            given = list(given) if isinstance(given, list) else [given]
            config["callbacks"] = given + self._default_callbacks(config, given)
            config["logger"] = self._loggers(config)
            if config.get("enable_model_summary") is None:
                config["enable_model_summary"] = False  # its operation counts know no spikes: 0
        trainer = super()._instantiate_trainer(config, callbacks)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, lightning_modules.RunReport):
                callback.command = callback.command or shlex.join(["fulgurite", *self.words])
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # neither the user's nor XLA's
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        return trainer

    def _default_callbacks(self, config: dict[str, Any], given: Sequence[Callback]) -> list[Callback]:
        """Return what every run has, except what the user brought or switched off."""
        fitting = self.subcommand == "fit"
        settings = self.config[str(self.subcommand)]
        wanted: list[Callback] = []
        if config.get("enable_progress_bar") is not False:
            wanted.append(RichProgressBar())
        saves = config.get("enable_checkpointing") is not False and not config.get("fast_dev_run")
        if saves and not any(isinstance(c, ModelCheckpoint) for c in given):
            wanted.append(
                ModelCheckpoint(
                    dirpath=self.folder / resume.CHECKPOINTS,
                    filename=Path(resume.BEST).stem,
                    monitor="val/acc1",
                    mode="max",
                    auto_insert_metric_name=False,
                    enable_version_counter=False,
                )
            )
        if fitting and saves:
            command = ["fulgurite", *self._without_ckpt_path(), "--ckpt_path", "last"]
            wanted.append(LastCheckpoint(self.folder, settings.checkpoint_every_n_steps, shlex.join(command)))
        wanted += [lightning_modules.ResumableState(), lightning_modules.RunReport()]
        if fitting and config.get("logger") is not False:
            wanted.append(LearningRateMonitor())
        kinds = {ProgressBar: [c for c in given if isinstance(c, ProgressBar)]}
        return [
            c
            for c in wanted
            if not any(type(c) is type(g) for g in given)
            and not (isinstance(c, ProgressBar) and kinds[ProgressBar])
        ]

    def _without_ckpt_path(self) -> list[str]:
        words: list[str] = []
        skip = False
        for word in self.words:
            if skip or word.startswith("--ckpt_path"):
                skip = not skip and word == "--ckpt_path"
                continue
            words.append(word)
        return words

    def _loggers(self, config: dict[str, Any]) -> Any:
        given = config.get("logger")
        if given is False or config.get("fast_dev_run"):
            return given
        folder = self.folder if self.subcommand == "fit" else self.folder / str(self.subcommand)
        loggers: list[Any] = []
        if given is None or given is True:
            loggers.append(RunLogger(folder, self._kept_steps()))
        else:
            loggers += given if isinstance(given, list) else [given]
        if self.config[str(self.subcommand)].tensorboard:
            from lightning.pytorch.loggers import TensorBoardLogger

            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
        return loggers

    def _continues_here(self) -> bool:
        """Whether this fit goes on from a checkpoint of its own folder."""
        if self.subcommand != "fit" or not isinstance(self.ckpt_path, Path):
            return False
        return self.folder.resolve() in self.ckpt_path.resolve().parents

    def _kept_steps(self) -> int | None:
        if not self._continues_here():
            return None
        assert isinstance(self.ckpt_path, Path)
        return resume.read_progress(self.ckpt_path)

    # -- running -------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Put an earlier run of this folder aside, unless this one continues it."""
        self._check_checkpoint(training=True)
        count = sum(p.numel() for p in self.model.parameters())
        rank_zero_info(f"{self.model.title}: {count:,} parameters, run folder {self.folder}")
        self._started = time.monotonic()
        if getattr(self.trainer, "fast_dev_run", False) or self._continues_here() or not _first_process():
            return
        if (target := resume.set_aside(self.folder)) is not None:
            rank_zero_info(f"the earlier run in {self.folder} is kept as {target}")

    def fit(self, model: BaseTask, **kwargs: Any) -> None:
        """Train; where the weights come from somewhere, measure first what they are worth."""
        dry = getattr(self.trainer, "fast_dev_run", False)
        starts = model.starts_trained and self.ckpt_path is None and not dry
        if self.config["fit"].test_after_fit and starts:
            self.trainer.test(model, datamodule=self.datamodule, verbose=False)
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, lightning_modules.RunReport):
                    callback.keep_as_start(self.trainer)
        self.trainer.fit(model, **kwargs)

    def after_fit(self) -> None:
        """Test the best checkpoint if the configuration says so."""
        if not self.config["fit"].test_after_fit or getattr(self.trainer, "fast_dev_run", False):
            return
        best = self.folder / resume.CHECKPOINTS / resume.BEST
        last = self.folder / resume.CHECKPOINTS / resume.LAST
        path = next((str(p) for p in (best, last) if p.exists()), None)
        minutes = (time.monotonic() - self._started) / 60
        rank_zero_info(f"trained to epoch {self.trainer.current_epoch} in {minutes:.1f} minutes")
        self.trainer.test(
            self.model, datamodule=self.datamodule, ckpt_path=path, verbose=False, weights_only=True
        )

    def before_validate(self) -> None:
        """Say what a checkpoint is, or that there is none."""
        self._check_checkpoint(training=False)
        self._warn_if_untrained()

    def before_test(self) -> None:
        """Say what a checkpoint is, or that there is none."""
        self._check_checkpoint(training=False)
        self._warn_if_untrained()

    def before_predict(self) -> None:
        """Say what a checkpoint is, or that there is none."""
        self._check_checkpoint(training=False)
        self._warn_if_untrained()

    def _check_checkpoint(self, training: bool) -> None:
        if isinstance(self.ckpt_path, Path):
            resume.check_fits(self.ckpt_path, self.model, training)

    def _warn_if_untrained(self) -> None:
        if self.ckpt_path is None and not self.model.starts_trained:
            rank_zero_warn(
                "no --ckpt_path was given and the model is not asked to load weights: these are"
                f" the results of random weights. --ckpt_path best takes the best of {self.folder}"
            )

    def predict(self, **kwargs: Any) -> None:
        """Write the classes of the images under ``data.predict_dir`` into a table, and explain them."""
        settings = self.config["predict"]
        names = getattr(self.datamodule, "class_names", ())
        writer = PredictionWriter(settings.output, names, settings.top_k)
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        if settings.explain == "tokens":
            folder = writer.output.with_name(f"{writer.output.stem}_tokens")
            maps = lightning_modules.TokenMaps(folder, names)
            self.trainer.callbacks.append(maps)  # type: ignore[attr-defined]
        kwargs["return_predictions"] = False  # the table holds them; a large folder would not fit
        try:
            self.trainer.predict(**kwargs)
        except ValueError as error:  # a network without tokens, a scorer without scores
            if settings.explain is None:
                raise
            raise errors.CommandError(errors.summary(error)) from error


def _first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: " not in record.getMessage()


def run(words: Sequence[str]) -> None:
    """Run a Lightning subcommand; errors that are the user's to mend become one message.

    Args:
        words: the subcommand and its options.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_advertisement)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # lightning 2.6 on torch 2.14
    # batches of data in memory are made faster than a worker process could hand them over
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty")  # as intended
    mendable = (
        errors.CommandError,
        FloatingPointError,
        datamodules.DataError,
        zoo.UnknownModelError,
        conversion.ConversionError,
        conversion.CalibrationError,
        MisconfigurationException,
    )
    try:
        SpikingCLI(words)
    except mendable as error:
        if os.environ.get("FULGURITE_TRACEBACK"):
            raise
        errors.fail(errors.summary(error))
    except OSError as error:
        if errors.disk_problem(error) not in errors.FULL.values():
            raise
        errors.fail(f"{errors.disk_problem(error)}: {error}. Make room, then use --ckpt_path last")
