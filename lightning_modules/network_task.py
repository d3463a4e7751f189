"""What tasks share that train one network of the zoo on images or event frames: input, steps, checkpoints.

Axes: T time, B batch, C channels, H W map.
"""

from __future__ import annotations

import inspect
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

import zoo
from lightning_modules import preprocessing
from lightning_modules.base import BaseTask
from lightning_modules.start import build
from spiking import check_finite
from spiking.neurons import Neuron
from zoo.files.description import LABELS, NOTE, TASK, preprocessing_of
from zoo.own import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class NetworkTask(BaseTask):
    """Trains an entry of the zoo, ``timm/NAME``, or a network of the user's with surrogate gradients.

    A subclass calls `take_network` in its constructor; ``self.model`` is the network then.

    Args:
        **arguments: optimiser and schedule, see `BaseTask`.

    Attributes:
        task: name of what the network is for, see `zoo.list_tasks`; cards, tables and `zoo.load` know it.
        over_time: whether the network gives an output at every step.
        entry: what builds the network, where the arguments of the task do not tell; None where they do.
    """

    method: ClassVar[str] = "direct training with surrogate gradients (STBP)"
    paper: ClassVar[str | None] = "1706.02609"
    task: ClassVar[str] = "classification"
    model: Any

    def take_network(
        self,
        model: str | dict[str, Any],
        model_args: Mapping[str, Any] | None,
        facts: Mapping[str, Any],
        *,
        channels_last: bool = True,
        token_reduction: Mapping[str, Any] | None = None,
    ) -> None:
        """Build the network.

        Args:
            model: name of an entry, or ``{class_path: ..., init_args: {...}}``.
            model_args: its arguments.
            facts: of the data: ``num_classes``, ``in_chans``.
            channels_last: lay images and weights out with channels innermost, where `_overruns` allows it.
            token_reduction: arguments of `zoo.reduce_tokens`.
        """
        name, own = (model, {}) if isinstance(model, str) else name_of(model)
        arguments = {**facts, **own, **(model_args or {})}
        told = isinstance(model, str) and self.task == NetworkTask.task  # by the arguments of the task
        self.entry = None if told else {"model": name, "model_args": arguments}
        self.model = self.build_model(name, arguments)
        if zoo.task_of(self.model).name != self.task:
            self.model.task = self.task
        self.over_time = "steps" in inspect.signature(self.model.forward).parameters
        if token_reduction:
            self.model = zoo.reduce_tokens(self.model, **token_reduction)
        self.channels_last = channels_last and not _overruns(self.model)
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)

    def build_model(self, name: str, arguments: dict[str, Any]) -> Any:
        """The network that is trained."""
        return build(name, arguments)

    @override
    def trained_by(self) -> tuple[str, str | None]:
        if (self.hparams.get("model_args") or {}).get("hybrid"):
            return "hybrid training: a QCFS network goes on as an LM-HT network", "2402.00411"
        spiking = any(isinstance(module, Neuron) for module in self.model.modules())
        if spiking or self.method != NetworkTask.method:
            return super().trained_by()
        return "training of an ANN by back-propagation", None

    @override
    def match_preprocessing(self, data: Any, checkpoint: Path | None, training: bool) -> None:
        if training:
            return
        arguments = self.hparams.get("model_args") or {}
        if checkpoint is not None or arguments.get("weights"):
            place = checkpoint or arguments["weights"]
            preprocessing.match(data, preprocessing.recorded_in(place), str(place))
        elif arguments.get("pretrained"):
            preprocessing.match(data, preprocessing.wanted_by(self.model), str(self.hparams["model"]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the network is for, how the data are prepared, and whose weights these derive from."""
        super().on_save_checkpoint(checkpoint)
        facts = getattr(getattr(self._trainer, "datamodule", None), "facts", None)
        if facts is not None:
            told = facts()
            checkpoint[NOTE] = preprocessing_of(told)
            checkpoint[LABELS] = [str(name) for name in told.get("class_names") or ()]
        checkpoint[TASK] = self.task
        checkpoint["origin"] = getattr(self.model, "origin", None) or {}
        if self.entry is not None:
            checkpoint["entry"] = self.restored_arguments(self.entry, {})  # what zoo.load builds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take on the origin of the weights with them."""
        super().on_load_checkpoint(checkpoint)
        if "origin" in checkpoint:
            self.model.origin = checkpoint["origin"]

    # -- input ---------------------------------------------------------------------------------

    def prepare(self, x: Tensor) -> Tensor:
        """Event frames ``[B, T, C, H, W]`` -> ``[T, B, C, H, W]``; images in their memory format."""
        if x.dim() == 5:
            return x.transpose(0, 1)
        if self.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` or ``[B, T, C, H, W]`` -> outputs of every step ``[T, B, ...]``; one of an ANN."""
        x = self.prepare(x)
        outputs: Tensor = self.model(x, steps=True) if self.over_time else self.model(x).unsqueeze(0)
        return outputs

    def evaluated(self, x: Tensor, batch_idx: int) -> Tensor:
        """As `forward`; a layer of the first batch that hands NaN to a neuron, silence then, is named."""
        watched = nullcontext() if batch_idx else check_finite(self.model)
        with warnings.catch_warnings(), watched:
            if self.trainer.sanity_checking:  # weights are fresh then, and nobody takes them for trained
                warnings.filterwarnings("ignore", ".*never set by training.*")
            outputs: Tensor = self(x)
        return outputs


def _overruns(model: nn.Module) -> bool:
    """Whether a convolution would write past its memory on CPUs if its channels were innermost.

    oneDNN's gradient of a strided 1 x 1 convolution does, that of torch 2.14, too, where there are fewer
    channels than in one vector (https://github.com/uxlfoundation/oneDNN/issues/6035): 8 with AVX2. Networks
    so narrow lose nothing by another layout.
    """
    return any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < 16  # one vector of AVX-512
        for module in model.modules()
    )
