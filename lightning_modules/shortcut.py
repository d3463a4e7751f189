"""Shortcut back-propagation: side branches that carry the gradient past the depth of the network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from lightning_modules.classification import ClassificationTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo import ImageClassifier


class ShortcutBranches(nn.Module):
    """One linear classifier for each stage but the last, over the mean of its map.

    Args:
        channels: C of each stage.
        num_classes: K.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(c, num_classes) for c in channels)

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """Stage outputs ``[T, B, C, H, W]`` -> logits ``[T, B, K]`` of each branch."""
        return [head(x.mean(dim=(-2, -1))) for head, x in zip(self.heads, stages, strict=True)]


class ShortcutTask(ClassificationTask):
    """Shortcut back-propagation with an evolving balance (2401.04486, NeurIPS 2024).

    Training minimises one cross-entropy on summed logits,

        ``o = o_n + lambda(i) * sum_l o_l``,  ``lambda(i) = lambda0 * (1 - i / I)``,

    with ``o_n`` of the network and ``o_l`` of a branch after each stage but the last; i counts steps, I is
    their number over the run. Validation, test and prediction use ``o_n`` alone; the branches belong to
    the task, so ``task.model`` is the plain network at all times.

    Args:
        model: see `ClassificationTask`.
        lambda0: balance at the start.
        evolve: whether the balance falls to 0; without it ``lambda`` is 1 throughout (plain shortcuts).
        update: ``"iteration"`` moves the balance at every step, as the paper's algorithm does;
            ``"epoch"`` at every epoch.
        combine: ``"logits"`` as above; ``"losses"`` weighs the branches' own losses instead.
        **arguments: see `ClassificationTask`.
    """

    method: ClassVar[str] = "shortcut back-propagation with an evolving balance"
    paper: ClassVar[str | None] = "2401.04486"

    def __init__(
        self,
        model: str,
        lambda0: float = 0.25,
        evolve: bool = True,
        update: Literal["iteration", "epoch"] = "iteration",
        combine: Literal["logits", "losses"] = "logits",
        **arguments: Any,
    ) -> None:
        super().__init__(model, **arguments)
        if not lambda0 >= 0.0:
            raise ValueError(f"lambda0 must be at least 0, got {lambda0!r}")
        if update not in ("iteration", "epoch") or combine not in ("logits", "losses"):
            raise ValueError(
                "update must be 'iteration' or 'epoch' and combine 'logits' or 'losses',"
                f" got {update!r} and {combine!r}"
            )
        self.save_hyperparameters()
        self.lambda0, self.evolve, self.update, self.combine = lambda0, evolve, update, combine
        channels = [stage["num_chs"] for stage in self.model.feature_info[:-1]]
        if not channels:
            raise ValueError(f"{model} has a single stage, so there is nowhere to put a shortcut branch")
        self.branches = ShortcutBranches(channels, self.num_classes)

    def balance(self) -> float:
        """``lambda`` of the current step."""
        if not self.evolve:
            return 1.0
        steps = self.trainer.estimated_stepping_batches
        if self.update == "epoch":
            return self.balance_at(self.current_epoch, math.ceil(steps / self.steps_per_epoch()))
        return self.balance_at(self.global_step, int(steps))

    def balance_at(self, done: int, total: int) -> float:
        """``lambda0 * (1 - done / total)``, never below 0."""
        return self.lambda0 * max(0.0, 1.0 - done / max(1, total))

    def all_logits(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[T, B, K]`` of the network and of every branch, from one pass."""
        features, stages = self.model.forward_intermediates(self.prepare(x))
        return self.model.forward_head(features), self.branches(stages[:-1])

    def combined_loss(
        self, main: Tensor, side: Sequence[Tensor], balance: float, target: Tensor, smoothing: float
    ) -> Tensor:
        """The loss of logits ``[T, B, K]`` of network and branches."""
        if self.combine == "losses":
            loss = self.loss(main, target, smoothing)
            for logits in side:
                loss = loss + balance * self.loss(logits, target, smoothing)
            return loss
        total = main
        for logits in side:
            total = total + balance * logits
        return self.loss(total, target, smoothing)

    def training_loss(self, x: Tensor, target: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
        """Loss over all branches; accuracy is read from the network's own logits."""
        main, side = self.all_logits(x)
        balance = self.balance()
        self.log("train/balance", balance, on_step=True, on_epoch=False)
        loss = self.combined_loss(main, side, balance, target, label_smoothing)
        return loss, main.detach().mean(dim=0)

    def strip(self) -> ImageClassifier:
        """The network without branches, what one deploys."""
        return self.model
