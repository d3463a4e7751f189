"""What ECMT and DCGS share: neurons of several levels for any backbone, whose thresholds are all measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from conversion.graph.attention import split_attention
from conversion.methods.base import Method

if TYPE_CHECKING:
    from conversion.graph.program import Program
    from conversion.network.network import Network


@dataclass(frozen=True, kw_only=True)
class GradedMethod(Method):
    """A method whose neurons send one of several levels; fused attention is taken apart for them."""

    @override
    def prepare(self, program: Program) -> None:
        super().prepare(program)
        split_attention(program)

    @override
    def needs_data(self, network: Network) -> bool:
        return True

    @override
    def fine_tuning(self, network: Network) -> str:
        return (
            "neurons are graded: each passes the gradient of the ReLU or identity that it replaces, unless it"
            " is saturated; thresholds get none and stay as they were measured, so keep the learning rate"
            " small. Where the conversion is lossless this only trains the ANN on at T times the cost"
        )
