"""Weights of classes in a loss, for sets where some classes are rare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

ClassWeights = Literal["balanced"] | Sequence[float] | None


def check_class_weights(weights: ClassWeights, num_classes: int) -> None:
    """Refuse what is neither ``"balanced"`` nor a positive number for each class.

    Raises:
        ValueError: says which.
    """
    if weights is None or weights == "balanced":
        return
    if not isinstance(weights, list | tuple):
        raise ValueError(f"class_weights must be 'balanced' or {num_classes} numbers, got {weights!r}")
    if len(weights) != num_classes:
        raise ValueError(f"class_weights has {len(weights)} values for K = {num_classes} classes")
    if bad := [w for w in weights if not (w > 0 and math.isfinite(w))]:
        raise ValueError(f"class_weights must be positive and finite, got {bad[0]!r}")


def class_weight_tensor(weights: ClassWeights, data: Any, num_classes: int) -> Tensor:
    """The weights ``[K]``.

    Args:
        weights: those of the user, or ``"balanced"``: N / (K n_k), as scikit-learn defines it.
        data: the data module, whose ``train_set.targets`` are counted.
        num_classes: K.

    Raises:
        ValueError: the training data do not tell their labels, or lack a class.
    """
    if weights != "balanced":
        return torch.tensor(weights, dtype=torch.float32)
    targets = getattr(getattr(data, "train_set", None), "targets", None)
    if targets is None:
        raise ValueError(
            "class_weights: balanced counts train_set.targets, which these data have not; give K numbers"
        )
    counts = torch.bincount(torch.as_tensor(targets), minlength=num_classes)
    if len(missing := (counts == 0).nonzero().flatten().tolist()):
        raise ValueError(f"class_weights: balanced, but no training sample is of class {missing[0]}")
    return len(targets) / (num_classes * counts.float())
