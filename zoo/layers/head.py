"""The layer that makes logits of features over time.

Axes: T time, B batch, F features, K classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class StepLinear(nn.Linear):
    """A linear layer whose answer at a step does not depend on how many steps come with it.

    A product of T * B rows adds up in another order than one of B rows, so that logits of the whole
    sequence and those of its chunks would differ in the last bit. In evaluation mode every step is a product
    of its own. In training, and in programs that are compiled or exported, it is one product of all rows.
    """

    counts_as_base: ClassVar[bool] = True  # for operations: rows are as many, in however many products

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, F]`` -> ``[T, B, K]``; other shapes as `torch.nn.Linear`."""
        jit: Any = torch.jit
        whole = self.training or x.dim() != 3 or torch.compiler.is_compiling() or jit.is_tracing()
        if whole or not len(x):
            return super().forward(x)
        return torch.stack([nn.functional.linear(step, self.weight, self.bias) for step in x])
