"""fit, validate, test and predict: Lightning's command line over our tasks and data modules."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from typing_extensions import override

from cli import errors
from cli.parser import SpikingParser
from cli.run import facts, help, resume
from cli.run.defaults import as_list, default_callbacks, loggers, without_averaging
from cli.run.epochs import mend_epochs
from cli.run.folder import RunFolder, check_output, claim, move_aside, run_folder, typed_seed
from cli.run.lock import release_all
from cli.run.messages import quiet, why_it_stopped
from cli.run.options import RunOptions
from cli.run.precision import slow_precision
from cli.run.storage import AtomicCheckpointIO
from cli.run.trainer_settings import check_trainer
from cli.shipped_configs import find_config
from lightning_modules import BaseTask, RunReport
from lightning_modules.report_page import write_page

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULTS: dict[str, Any] = {
    "subclass_mode_model": True,
    "subclass_mode_data": True,
    "auto_configure_optimizers": False,  # tasks build their own
    "seed_everything_default": 0,
    "save_config_kwargs": {"overwrite": True},
    "parser_class": SpikingParser,
    "parser_kwargs": {"prog": "fulgurite"},
}


class SpikingCLI(LightningCLI):
    """LightningCLI with one fixed folder for each configuration, and checkpoints that are whole or absent.

    ``--ckpt_path last`` and ``best`` look into that folder, and what is typed is not overruled by a
    checkpoint.

    Args:
        args: command words, the subcommand first; those of the command line if missing.
        **kwargs: see ``LightningCLI``.
    """

    def __init__(self, args: Sequence[str] | None = None, **kwargs: Any) -> None:
        self.words = list(sys.argv[1:] if args is None else args)
        super().__init__(BaseTask, pl.LightningDataModule, args=self.words, **{**DEFAULTS, **kwargs})

    # -- words ---------------------------------------------------------------------------------

    @override
    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # known to the instance alone
        """The one that was typed: to describe the options of all four would take most of a start."""
        known = super().subcommands()
        return {name: known[name] for name in self.words[:1] if name in known} or known

    @override
    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        super().setup_parser(*args, **kwargs)
        # without this, Lightning 2.6 loads local checkpoints in the way that runs code in them
        self.parser.set_defaults({f"{name}.weights_only": True for name in self.subcommands()})
        if "test" in self.subcommands():  # the report says it better than Lightning's table
            self.parser.set_defaults({"test.verbose": False})

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        facts.link(parser)
        parser.add_class_arguments(RunOptions, nested_key=None, as_group=False)

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)  # the original warns whenever `args` are not the shell's
        settings = self.settings
        self.options = RunOptions(**{f.name: settings[f.name] for f in dataclasses.fields(RunOptions)})
        if settings.trainer.default_root_dir is None:
            given = [str(getattr(p, "relative", p)) for p in settings.get("config") or []]
            parts = [str(settings.get(key, {}).get("class_path", key)) for key in ("model", "data")]
            fallback = "-".join(part.rpartition(".")[2] for part in parts)
            seed = typed_seed(self.words, settings.get("seed_everything"))
            found = run_folder(given, fallback, self.options.name, seed)
        else:
            found = Path(settings.trainer.default_root_dir)
        path = self._claim(found, named=settings.trainer.default_root_dir is not None)
        settings.trainer.default_root_dir = str(path)
        words = self.words if path == found else [*self.words, f"--trainer.default_root_dir={path}"]
        checkpoint = resume.resolve(settings.get("ckpt_path"), path)
        self.folder = RunFolder(path=path, checkpoint=checkpoint, words=tuple(words))
        # Lightning would now merge the hyper-parameters of a checkpoint that it finds here, so that they
        # beat the command line without a word (its pull request 21116); `before_instantiate_classes` puts
        # the path back
        settings.ckpt_path = None

    def _claim(self, folder: Path, named: bool) -> Path:
        """The folder of this run, which no other run writes to at the same time."""
        trainer, command = self.settings.trainer, str(self.config.subcommand)
        if command not in ("fit", "test") or trainer.get("fast_dev_run") or trainer.get("barebones"):
            return folder
        # a test's report is that of the whole run, and a run that goes on has its folder
        own = command == "fit" and not named and self.settings.get("ckpt_path") is None
        return claim(folder, own=own)

    @property
    def settings(self) -> Any:
        """What was parsed for the subcommand."""
        return self.config[self.config.subcommand]

    @property
    def output(self) -> Path:
        """What predict writes."""
        return Path(self.options.output or self.model.output)

    # -- building ------------------------------------------------------------------------------

    @override
    def before_instantiate_classes(self) -> None:
        check_trainer(self.settings.trainer)
        if self.folder.checkpoint is not None:
            self.settings.ckpt_path = str(self.folder.checkpoint)

    @override
    def instantiate_classes(self) -> None:
        """Build everything; a task that a checkpoint fills is built without what its run once began with."""
        self._asked = self.config
        if isinstance(self.folder.checkpoint, Path):
            self.config = self.config.clone()
            resume.leave_out_beginning(self.settings.model, self.folder.checkpoint)
        super().instantiate_classes()

    @override
    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        self.config = self._asked  # what is written down, whatever it took to build it
        command, folder, options = str(self.subcommand), self.folder, self.options
        self.reports: list[RunReport] = []
        config: dict[str, Any] = {**self.config_init[command]["trainer"], **kwargs}
        if config.get("barebones"):
            return super().instantiate_trainer(**kwargs)
        given = as_list(config.get("callbacks"))
        if command != "fit":
            given = without_averaging(given)
        added = default_callbacks(given, config, self.model, folder, options, fitting=command == "fit")
        if command == "predict":
            check_output(self.output, folder=not Path(self.model.output).suffix)
            names = getattr(self.datamodule, "class_names", ())
            added += self.model.prediction_callbacks(
                self.output, class_names=names, top_k=options.top_k, explain=options.explain
            )
        if config.get("enable_model_summary") is None:
            kwargs["enable_model_summary"] = False  # its operation counts know no spikes: 0
        kwargs["callbacks"] = [*given, *added]
        self.reports += [callback for callback in kwargs["callbacks"] if isinstance(callback, RunReport)]
        for report in self.reports:
            report.command = report.command or folder.command
        kwargs["logger"] = loggers(config, folder, options, command)
        return super().instantiate_trainer(**kwargs)

    @override
    def after_instantiate_classes(self) -> None:
        facts.refuse_other_facts(self.datamodule, self.settings, self.words)
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # neither the user's nor XLA's
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        mend_epochs(self.trainer)
        if (slow := slow_precision(self.trainer)) is not None:
            rank_zero_warn(slow)
        checkpoint = self.folder.checkpoint
        self.model.match_preprocessing(
            self.datamodule,
            checkpoint if isinstance(checkpoint, Path) else None,
            training=self.subcommand == "fit",
        )
        if isinstance(checkpoint, Path):
            resume.check_fits(checkpoint, self.model, training=self.subcommand == "fit")
        if checkpoint is None and self.subcommand != "fit" and not self.model.starts_trained:
            told = "no --ckpt_path was given and the model is not asked to load weights: "
            way_out = f"--ckpt_path best takes the best of {self.folder.path}"
            if self.subcommand == "predict" and not getattr(self.trainer, "fast_dev_run", False):
                raise errors.CommandError(f"{told}random weights predict nothing. {way_out}")
            rank_zero_warn(f"{told}these are the results of random weights. {way_out}")

    # -- running -------------------------------------------------------------------------------

    def before_fit(self) -> None:
        """Make room for the run; measure first what weights that come from somewhere are worth."""
        self.started = time.monotonic()
        if getattr(self.trainer, "fast_dev_run", False):
            return
        self.folder.start_clean()  # loggers open their files before the first hook of any callback
        if self.options.test_after_fit and self.model.starts_trained and self.folder.checkpoint is None:
            # metrics that are reset in inference mode could not count in the validations of the training
            self.trainer.test_loop.inference_mode = False
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            for report in self.reports:
                report.keep_as_start(self.trainer)

    def after_fit(self) -> None:
        """Say how the training ended; test the best checkpoint if the configuration says so."""
        if getattr(self.trainer, "fast_dev_run", False):
            return
        if (reason := why_it_stopped(self.trainer)) is not None:
            rank_zero_info(reason)
        path = self.folder.trained
        minutes = (time.monotonic() - self.started) / 60
        kept = "" if path is None else f"; the best weights are in {path}"
        rank_zero_info(f"trained {self.trainer.current_epoch} epochs in {minutes:.1f} minutes{kept}")
        if not self.options.test_after_fit:
            return
        callbacks: list[Any] = getattr(self.trainer, "callbacks", [])
        callbacks[:] = without_averaging(callbacks)
        self.trainer.test(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=None if path is None else str(path),
            verbose=False,
            weights_only=True,
        )

        self.after_test()

    def after_test(self) -> None:
        """Write the page if it is asked for."""
        for report in self.reports:
            if self.options.report and report.written is not None:
                rank_zero_info(f"report: {write_page(report.written)}")

    def predict(self, **kwargs: Any) -> None:
        """Predict; what the task's callbacks write is not kept in memory, too."""
        kwargs["return_predictions"] = False
        output = self.output
        if output.exists() and self.trainer.is_global_zero:
            rank_zero_info(f"the earlier {output} is kept as {move_aside(output)}")
        try:
            self.trainer.predict(**kwargs)
        except ValueError as error:  # a network without tokens, a scorer without scores
            if self.options.explain is None:
                raise
            raise errors.CommandError(errors.summary(error)) from error


def name_what_is_missing(words: Sequence[str]) -> None:
    """Say that a run needs a model and data, which the parser would take for their base classes."""
    _name_the_option(words[1:])
    given = {word.partition("=")[0] for word in words}
    if given & {"-c", "--config", "-h", "--help", "--print_config"}:
        return
    for key in ("model", "data"):
        if not given & {f"--{key}", f"--{key}.class_path"}:
            errors.fail(
                f"no {key} is named: give --config FILE, or --{key} CLASS (fulgurite fit --help lists them)"
            )


def _name_the_option(words: Sequence[str]) -> None:
    """Say that a run's file stands behind ``--config``, where it stands alone or behind a word like that."""
    if not words:
        return
    first = words[0]
    option = errors.nearest(first.partition("=")[0], ("--config",), cutoff=0.75)
    if option is not None and first.partition("=")[0] != option:
        errors.fail(f"there is no option {first.partition('=')[0]}; did you mean '{option}'?")
    if not first.startswith("-"):
        known = Path(first).is_file() or find_config(first) is not None
        file = first if known else "FILE"
        more = "" if known else "; fulgurite configs lists those that come along"
        errors.fail(f"'{first}' stands alone; a run is named by --config {file}{more}")


def run(words: Sequence[str]) -> None:
    """Run a Lightning subcommand.

    Args:
        words: the subcommand and its options.
    """
    if help.wanted(words[1:]):
        help.show(words[0])
        return
    words = help.without_all(words)
    name_what_is_missing(words)
    try:
        with quiet():
            SpikingCLI(words)
    finally:
        release_all()
