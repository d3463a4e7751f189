"""The converted network: a graph over time with the entry points of the zoo's models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from conversion.network.network import Network

if TYPE_CHECKING:
    from torch import fx, nn

    from conversion.methods.base import Method
    from conversion.network.annotation import Annotation
    from conversion.report import Report


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How a network was converted, and what the zoo has to know about it.

    Attributes:
        recipe: plain values that rebuild the network: source, method, its settings, T and the input.
        method: the method and its settings.
        report: what was converted and how.
        num_classes: K.
        num_features: inputs of the last layer with weights.
        pretrained_cfg: preprocessing of the source, in timm's words.
        origin: name, licence and address of the weights that the source was loaded with, if it knows.
    """

    recipe: dict[str, Any]
    method: Method
    report: Report
    num_classes: int
    num_features: int
    pretrained_cfg: dict[str, Any]
    origin: dict[str, Any] | None = None


class ConvertedModel(Network):
    """A spiking network that was converted from an ANN; ``[B, C, H, W]`` -> ``[B, K]``.

    ``model(x)`` gives the mean over T, ``model(x, steps=True)`` all steps, ``[T, B, K]``; where the source
    gives logits of N positions, ``[B, N, K]`` and ``[T, B, N, K]``. Memory grows with T unless `chunk` bounds
    it. Parameters keep the names of the source. It is an ordinary module: it trains, copies, pickles, moves
    and saves.

    Args:
        root: modules and parameters.
        graph: ``(x, steps=False) -> logits``.
        annotation: see `conversion.network.network.Network`.
        conversion: how it was converted.

    Attributes:
        architecture: ``"converted"``, the zoo's entry that rebuilds it.
    """

    architecture = "converted"
    conversion: Conversion
    _kept = (*Network._kept, "conversion")

    def __init__(
        self, root: nn.Module, graph: fx.Graph, annotation: Annotation, conversion: Conversion
    ) -> None:
        super().__init__(root, graph, annotation)
        self.conversion = conversion

    @property
    def recipe(self) -> dict[str, Any]:
        """Plain values that rebuild this network: source, method, its settings, T and the input."""
        return self.conversion.recipe

    @property
    def method(self) -> Method:
        """The method and its settings."""
        return self.conversion.method

    @property
    def report(self) -> Report:
        """What was converted and how; ``print`` it."""
        return self.conversion.report

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of the entry ``converted``."""
        return {**self.recipe, "time_steps": self.time_steps}

    @property
    def num_classes(self) -> int:
        """K."""
        return self.conversion.num_classes

    @property
    def num_features(self) -> int:
        """Inputs of the last layer with weights."""
        return self.conversion.num_features

    @property
    def in_chans(self) -> int:
        """C of the input."""
        return int(self.recipe["input_size"][0])

    @property
    def default_cfg(self) -> dict[str, Any]:
        """Preprocessing of the source, in timm's words."""
        return dict(self.conversion.pretrained_cfg)

    @default_cfg.setter
    def default_cfg(self, value: dict[str, Any]) -> None:
        self.conversion = replace(self.conversion, pretrained_cfg=dict(value))

    pretrained_cfg = default_cfg

    @property
    def origin(self) -> dict[str, Any] | None:
        """Name, licence and address of the weights that the source was loaded with, if it knows."""
        return self.conversion.origin

    @origin.setter
    def origin(self, value: dict[str, Any] | None) -> None:
        self.conversion = replace(self.conversion, origin=value)

    @property
    def time_steps(self) -> int:
        """T. Can be set where the method allows it."""
        return self.clock.time_steps

    @time_steps.setter
    def time_steps(self, value: int) -> None:
        self.method.check_time_steps(value, self)
        self.method.set_clock(self.clock, value)
        self.method.update_thresholds(self)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Refused: the head is part of a fixed graph."""
        raise RuntimeError(
            "the head of a converted network is part of its graph and cannot be replaced; give the source"
            f" another head (source.reset_classifier({num_classes})), train it, and convert again"
        )
