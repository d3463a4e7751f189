"""Classification by direct training (STBP): back-propagation through space and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from timm.data import Mixup
from torch import Tensor
from typing_extensions import override

from lightning_modules.callbacks.predictions import ClassTable, PredictionWriter
from lightning_modules.callbacks.token_maps import TokenMaps
from lightning_modules.class_weights import check_class_weights, class_weight_tensor
from lightning_modules.losses import mean_logit_loss, tet_loss
from lightning_modules.metrics import AccuracyOverTime, repeated_samples
from lightning_modules.network_task import NetworkTask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning.pytorch as pl

    from zoo import ImageClassifier


class ClassificationTask(NetworkTask):
    """Trains an entry of the zoo with surrogate gradients (STBP, 1706.02609).

    Batches are ``(x, y)``: still images ``x [B, C, H, W]`` or event frames ``[B, T, C, H, W]``, which the
    task transposes, and class numbers ``y [B]``.

    Args:
        model: name of an entry, see ``zoo.list_models``; ``timm/NAME`` trains an ANN of timm, a source of
            conversions. A network of your own is ``{class_path: my_net.Net, init_args: {...}}``; see
            `zoo.own.OwnNetwork` for what it takes and gives.
        model_args: its arguments (``time_steps``, ``neuron``, ...); ``pretrained: true`` or
            ``weights: PATH`` fine-tunes, ``hybrid: {source: PATH}`` starts LM-HT from a QCFS network.
        num_classes: K; taken from the data on the command line.
        in_chans: C; taken from the data on the command line.
        loss: ``"ce"`` (cross-entropy of the mean over T) or ``"tet"`` (2202.11946).
        tet_lambda: of ``"tet"``, the weight of the pull of all logits towards ``tet_phi``.
        tet_phi: of ``"tet"``, where the logits are pulled to.
        label_smoothing: share of the target spread over all classes.
        class_weights: of the training loss, for sets where some classes are rare: K positive numbers, or
            ``"balanced"``, N / (K n) for a class of n among N training samples. Accuracies stay unweighted.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix; 0 is off.
        mixup_prob: share of the batches that are mixed.
        mixup_switch_prob: share of these that take CutMix, where both are on.
        mixup_off_epoch: no mixing from this epoch on; 0 mixes to the end.
        token_reduction: arguments of `zoo.reduce_tokens` (``method``, ``keep``, ...), for training and
            testing on part of the tokens.
        channels_last: lay images and weights out with channels innermost, faster on CPUs and tensor cores.
        **arguments: optimiser and schedule, see `BaseTask`.
    """

    model: ImageClassifier
    monitor: ClassVar[str] = "val/acc1"
    mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        model: str | dict[str, Any],
        model_args: dict[str, Any] | None = None,
        num_classes: int = 10,
        in_chans: int = 3,
        loss: Literal["ce", "tet"] = "ce",
        tet_lambda: float = 0.001,
        tet_phi: float = 1.0,
        label_smoothing: float = 0.0,
        class_weights: Literal["balanced"] | list[float] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mixup_prob: float = 1.0,
        mixup_switch_prob: float = 0.5,
        mixup_off_epoch: int = 0,
        token_reduction: dict[str, Any] | None = None,
        channels_last: bool = True,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        if loss not in ("ce", "tet"):
            raise ValueError(f"loss must be 'ce' or 'tet', got {loss!r}")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {label_smoothing!r}")
        if num_classes < 2:
            raise ValueError(f"a classifier needs two classes or more, but the data have {num_classes}")
        check_class_weights(class_weights, num_classes)
        self.save_hyperparameters()
        facts = {"num_classes": num_classes, "in_chans": in_chans}
        self.take_network(
            model, model_args, facts, channels_last=channels_last, token_reduction=token_reduction
        )
        self.loss_name = loss
        self.class_weights = class_weights
        self.loss_weights: Tensor | None = None
        self.tet_lambda, self.tet_phi, self.label_smoothing = tet_lambda, tet_phi, label_smoothing
        self.mixup_off_epoch = mixup_off_epoch
        self.mixer: Mixup | None = None
        if mixup or cutmix:
            self.mixer = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                prob=mixup_prob,
                switch_prob=mixup_switch_prob,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )
        self.num_classes = num_classes
        self.accuracy = AccuracyOverTime()
        self.accuracy5 = AccuracyOverTime(top_k=5)

    # -- steps ---------------------------------------------------------------------------------

    def check_labels(self, y: Tensor) -> None:
        """Raise an error that names a label outside ``[0, K)``."""
        outputs = int(getattr(self.model, "num_classes", self.num_classes))
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < outputs:
            wrong = int(y.max()) if int(y.max()) >= outputs else int(y.min())
            raise ValueError(
                f"the data hold label {wrong}, but the model has {outputs} classes"
                f" (0 to {outputs - 1}); check the labels, and leave num_classes out of model_args: the data"
                " tell it"
            )

    @override
    def on_train_start(self) -> None:
        """Weigh the classes, once the training data are there."""
        super().on_train_start()
        if self.class_weights is not None:
            data = getattr(self.trainer, "datamodule", None)
            weights = class_weight_tensor(self.class_weights, data, self.num_classes)
            self.loss_weights = weights.to(self.device)

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """The loss of logits ``[T, B, K]`` against classes ``[B]`` or soft targets ``[B, K]``."""
        weights = self.loss_weights
        if self.loss_name == "tet":
            return tet_loss(logits, target, self.tet_lambda, self.tet_phi, label_smoothing, weights)
        return mean_logit_loss(logits, target, label_smoothing, weights)

    def mix(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, float]:
        """Mixed images and soft targets, and the smoothing that is still to be applied."""
        off = self.mixup_off_epoch and self.current_epoch >= self.mixup_off_epoch
        if self.mixer is None or off or x.dim() != 4 or len(x) < 2:
            return x, y, self.label_smoothing
        odd = len(x) % 2  # timm mixes pairs; an odd one at the end stays out of the batch
        mixed, target = self.mixer(x[: len(x) - odd].clone(), y[: len(x) - odd])
        return mixed, target, 0.0  # timm has smoothed the target

    def training_loss(self, x: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Loss and the mean logits ``[B, K]`` that the live accuracy is read from."""
        logits = self(x)
        return self.loss(logits, target, label_smoothing), logits.detach().mean(dim=0)

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss; log ``train/loss`` and ``train/acc1`` of the batch."""
        x, y = batch
        if self.global_step == 0:
            self.check_labels(y)
        x, target, smoothing = self.mix(x, y)
        loss, logits = self.training_loss(x, target, smoothing)
        self.require_finite(loss)
        hard = target if target.dim() == 1 else target.argmax(dim=1)
        accuracy = (logits.argmax(dim=1) == hard).float().mean()
        size = len(x)
        self.log("train/loss", loss, on_step=True, on_epoch=False, prog_bar=True, batch_size=size)
        self.log("train/acc1", accuracy, on_step=True, on_epoch=False, prog_bar=True, batch_size=size)
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str, batch_idx: int) -> None:
        x, y = batch
        self.check_labels(y)
        logits = self.evaluated(x, batch_idx)
        loss = mean_logit_loss(logits, y)
        own = len(y) - repeated_samples(self.trainer, stage, batch_idx)
        self.accuracy.update(logits[:, :own], y[:own])
        self.accuracy5.update(logits[:, :own], y[:own])
        self.log(f"{stage}/loss", loss, prog_bar=stage == "val", batch_size=len(y), sync_dist=True)

    def _finish(self, stage: str, every_step: bool) -> None:
        # torchmetrics makes a scalar of [T] where T is 1
        top1, top5 = self.accuracy.compute().reshape(-1), self.accuracy5.compute().reshape(-1)
        self.accuracy.reset()
        self.accuracy5.reset()
        if not len(top1):
            return
        self.log(f"{stage}/acc1", top1[-1], prog_bar=True, rank_zero_only=False)
        if self.num_classes > 5:
            self.log(f"{stage}/acc5", top5[-1])
        if every_step:
            for t, value in enumerate(top1, 1):
                self.log(f"{stage}/acc1_t{t}", value)

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``val/loss``, the cross-entropy of the mean over T, whatever the training minimises."""
        self._evaluate(batch, "val", batch_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        """Log ``val/acc1`` and, of more than five classes, ``val/acc5``, reduced over the processes."""
        self._finish("val", every_step=False)

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log ``test/loss``, as ``val/loss``."""
        self._evaluate(batch, "test", batch_idx)

    @override
    def on_test_epoch_end(self) -> None:
        """Log ``test/acc1``, ``test/acc5``, and ``test/acc1_t1``, ``test/acc1_t2``, ... after every step."""
        self._finish("test", every_step=True)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """``logits`` and ``probabilities``, ``[B, K]`` each, of a batch ``(x, anything)`` or ``x``."""
        x = batch[0] if isinstance(batch, tuple | list) else batch
        logits = self(x).mean(dim=0).float()
        return {"logits": logits, "probabilities": logits.softmax(dim=1)}

    @override
    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        writers: list[pl.Callback] = [PredictionWriter(output, ClassTable(class_names, top_k))]
        if explain == "tokens":
            writers.append(TokenMaps(output.with_name(f"{output.stem}_tokens"), class_names))
        return writers
