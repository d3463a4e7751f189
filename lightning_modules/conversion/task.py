"""Conversion as a task: calibrate in fit, fine-tune if there are epochs, measure like any other network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

import conversion
from lightning_modules import preprocessing
from lightning_modules.classification import ClassificationTask
from lightning_modules.source import Calibration, Source, as_plain

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from conversion import ConvertedModel


class ConversionTask(ClassificationTask):
    """Converts a trained ANN and fine-tunes the spiking network with surrogate gradients.

    ``fit`` measures thresholds and corrections on training images first, the same on every process, and
    then trains as `ClassificationTask` does; ``max_epochs: 0`` only converts. ``validate``, ``test`` and
    ``predict`` without a checkpoint convert, too. What a method lets training change is told by
    ``conversion.Method.fine_tuning`` and logged; parallel conversion at T = L, which is its source, is
    refused. Checkpoints hold the converted network: they need neither the source nor images, and
    ``zoo.load(CHECKPOINT)`` gives the network.

    Args:
        source: the ANN.
        method: see ``conversion.list_methods``.
        method_args: settings of the method.
        time_steps: T.
        calibration: training images for thresholds and corrections; null goes without.
        input_size: ``(C, H, W)``; taken from the data on the command line.
        num_classes: K; taken from the data on the command line.
        in_chans: C; taken from the data on the command line.
        **arguments: see `ClassificationTask`.
    """

    method: ClassVar[str] = "conversion of a trained ANN, fine-tuned with surrogate gradients"
    paper: ClassVar[str | None] = None
    begins_with: ClassVar[tuple[str, ...]] = ("source",)

    model: ConvertedModel  # type: ignore[assignment]

    def __init__(
        self,
        source: Source,
        method: str = "qcfs",
        method_args: dict[str, Any] | None = None,
        time_steps: int = 8,
        calibration: Calibration | None = None,
        input_size: list[int] | None = None,
        num_classes: int = 10,
        in_chans: int = 3,
        **arguments: Any,
    ) -> None:
        # what checkpoints hold must be plain, and this is what save_hyperparameters finds
        source = _plain("source", Source, source)
        if calibration is not None:
            calibration = _plain("calibration", Calibration, calibration)
        input_size = None if input_size is None else list(input_size)
        recipe = {
            "source": source,
            "method": method,
            "settings": method_args or {},
            "time_steps": time_steps,
            "input_size": input_size,
        }
        super().__init__("converted", recipe, num_classes=num_classes, in_chans=in_chans, **arguments)
        self.calibration = None if calibration is None else as_plain("calibration", Calibration, calibration)
        if self.loss_name == "tet" and not self.model.method.anytime:
            raise ValueError(
                f"loss 'tet' judges every step, but {method} gives logits whose mean over all T steps alone"
                " means something; use loss: ce"
            )

    @override
    def build_model(self, name: str, arguments: dict[str, Any]) -> ConvertedModel:
        """The network, not yet calibrated, and its source until it is."""
        ann = Source(**arguments["source"]).load(arguments["num_classes"], arguments["in_chans"])
        network = conversion.prepare(
            ann,
            arguments["method"],
            arguments["time_steps"],
            input_size=arguments["input_size"],
            **arguments["settings"],
        )
        self.source_facts = Source(**arguments["source"]).facts(ann)
        self._ann: list[nn.Module] = [ann]  # in a list, so that it is no part of this module
        return network.train()

    @property
    def starts_trained(self) -> bool:
        """Yes: the source is trained, or was asked to be random."""
        return True

    @property
    def title(self) -> str:
        """The source's architecture and the method, in a few words."""
        recipe = self.model.recipe
        return f"{(recipe['source'] or {}).get('architecture', 'ANN')} by {recipe['method']}"

    @override
    def match_preprocessing(self, data: Any, checkpoint: Path | None, training: bool) -> None:
        fixed = ("input_size",)  # the network has been exported for it
        if checkpoint is not None:
            found = {} if training else preprocessing.recorded_in(checkpoint)
            preprocessing.match(data, found, str(checkpoint), fixed=fixed)
        elif self._ann:
            source = Source(**self.hparams["source"])
            preprocessing.match(data, source.preprocessing(self._ann[0]), source.model, fixed=fixed)

    @override
    def trained_by(self) -> tuple[str, str | None]:
        if self.global_step == 0:
            return "conversion of a trained ANN, not trained further", self.paper
        return super().trained_by()

    # -- calibration ---------------------------------------------------------------------------

    def calibrate(self) -> None:
        """Measure what the method needs to know; once, and not for a network that comes from a checkpoint."""
        if not self._ann:
            return
        ann, images = self._ann.pop().to(self.device), None
        if self.calibration is not None:
            data = getattr(self.trainer, "datamodule", None)
            if data is None:
                raise ValueError(
                    "ConversionTask calibrates with the data module: trainer.fit(task, datamodule)"
                )
            images = self.calibration.images(data)
        training = self.model.training
        with torch.inference_mode(False):  # evaluation loops run in it, and what it makes cannot be trained
            report = conversion.calibrate(
                self.model.eval(), ann, images, progress=self.trainer.is_global_zero
            )
        self.model.train(training)
        rank_zero_info(str(report))

    @override
    def on_fit_start(self) -> None:
        self.calibrate()
        if self.trainer.max_epochs != 0:
            rank_zero_info(f"fine-tuning {self.title}: {self.model.method.fine_tuning(self.model)}")

    @override
    def on_validation_start(self) -> None:
        self.calibrate()

    @override
    def on_test_start(self) -> None:
        self.calibrate()

    @override
    def on_predict_start(self) -> None:
        self.calibrate()

    # -- checkpoints ---------------------------------------------------------------------------

    @override
    def recorded_beginning(self) -> dict[str, Any]:
        """The source's architecture alone."""
        source = self.model.model_args["source"]
        named = {"model": source["architecture"], "model_args": source["model_args"], "pretrained": False}
        return {"source": named}

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        for key in ("model", "model_args"):  # of the base class; this one takes neither
            checkpoint["hyper_parameters"].pop(key, None)
        # what zoo.load builds
        checkpoint["entry"] = {"model": "converted", "model_args": self.model.model_args}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._ann.clear()  # what is loaded is calibrated

    # -- steps ---------------------------------------------------------------------------------

    @override
    def on_test_epoch_end(self) -> None:
        """Log ``test/acc1`` and ``test/acc5``, and ``test/acc1_t1``, ... where steps alone mean something."""
        self._finish("test", every_step=self.model.method.anytime)


def _plain(label: str, kind: type[Source | Calibration], value: Any) -> Any:
    """A mapping of plain values, checked."""
    return asdict(as_plain(label, kind, value))
