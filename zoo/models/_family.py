"""What the entries of one architecture have in common when they are registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from zoo.layers.preprocessing import Inputs

    FilterFn = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]

F = TypeVar("F", bound="Callable[..., nn.Module]")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Registers entries that differ in their inputs and in the numbers of their variant.

    Attributes:
        paper: arXiv id.
        first_conv: path of the convolution that sees the image.
        classifier: path of the layer that makes logits.
        interpolation: how images are resized.
        checkpoint_filter_fn: maps the authors' keys, see `zoo.register_model`.
        note: where else weights can be had.
    """

    paper: str | None = None
    first_conv: str
    classifier: str
    interpolation: str = "bicubic"
    checkpoint_filter_fn: FilterFn | None = None
    note: str | None = None

    def register(self, inputs: Inputs, *, small: Mapping[str, Any] | None = None) -> Callable[[F], F]:
        """A decorator: the function below builds an entry that takes ``inputs``; see `zoo.register_model`."""
        return register_model(
            paper=self.paper,
            input_size=inputs.input_size,
            num_classes=inputs.num_classes,
            cfg={
                **inputs.statistics(),
                "first_conv": self.first_conv,
                "classifier": self.classifier,
                "interpolation": self.interpolation,
            },
            checkpoint_filter_fn=self.checkpoint_filter_fn,
            note=self.note,
            small=small,
        )
