"""DCGS: differential coding, the training-free conversion of any backbone (arXiv 2503.00301).

A spike corrects what has been represented so far, by its level divided by the step; once the value is
right, nothing is sent. The network runs on represented values (`conversion._time`): affine layers and exact
functions need no change, and only neurons know of time. The authors' code (h-z-h-cell/ANN-to-SNN-DCGS) sends
the increments through the layers and keeps the constants in a slot of their own; the numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from conversion import _policy
from conversion._attention import split_attention
from conversion._calibrate import check_rule, run_observed
from conversion._export import ConversionError
from conversion._histogram import Histogram
from conversion._method import Method, check_integer, register_method
from conversion._site import Site, sites
from spiking import multi_threshold
from spiking.levels import Levels

if TYPE_CHECKING:
    from torch import Tensor

    from conversion._batches import Batches
    from conversion._export import Program
    from conversion._model import ConvertedModel
    from conversion._site import Activation, SiteSpec
    from conversion._time import Clock

Sharing = Literal["layer", "channel", "feature"]


class TrackingSite(Site):
    """A differential neuron between represented values; see `spiking.multi_threshold.track`.

    Args:
        spec: of the site.
        clock: of the network.
        n: levels a side.
        sharing: which neurons share a threshold.

    Attributes:
        v_threshold: the largest level.
    """

    domain: ClassVar[Literal["step", "mean"]] = "mean"

    def __init__(self, spec: SiteSpec, clock: Clock, n: int, sharing: Sharing) -> None:
        super().__init__(spec, clock)
        self.n, self.sharing = n, sharing
        self.kind = "identity" if spec.activation.kind == "identity" else "relu"
        axes = len(spec.shape)
        size = {
            "layer": (1,),
            "channel": (spec.shape[0], *(1,) * (axes - 1)),
            "feature": (*(1,) * (axes - 1), spec.shape[-1]),
        }[sharing]
        self.register_buffer("v_threshold", torch.zeros(size))

    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Represented output ``[T, B, ...]``."""
        levels = Levels.largest(self.v_threshold.unsqueeze(0), self.n)
        outputs, _, state = multi_threshold.track(x, levels, state, kind=self.kind, keep_state=keep_state)
        return outputs, state


@register_method
@dataclass(frozen=True, kw_only=True)
class DCGSConversion(Method):
    """Differential coding with neurons of several levels.

    Attributes:
        levels: n, levels a side, each half of the one before.
        threshold: the largest level, as a share of the magnitudes at a site: ``"max"`` or ``"99.9%"``.
        threshold_scale: c, by which it is multiplied.
        sharing: one threshold for a ``"layer"``, or for each ``"channel"`` (the first axis of a sample: the
            token or the head of transformers, as published) or ``"feature"`` (the last axis).
        include_patch_embed: whether the image is sent as spikes, too.
        include_head: whether the layer that makes the logits receives spikes.
    """

    name: ClassVar[str] = "dcgs"
    paper: ClassVar[str] = "2503.00301"
    causal: ClassVar[bool] = True
    anytime: ClassVar[bool] = True
    domain: ClassVar[Literal["step", "mean"]] = "mean"

    levels: int = 8
    threshold: str = "99.9%"
    threshold_scale: float = 1.0
    sharing: Sharing = "layer"
    include_patch_embed: bool = False
    include_head: bool = True

    def __post_init__(self) -> None:
        check_integer("levels", self.levels, 1)

    def prepare(self, program: Program) -> None:
        """Take fused attention apart."""
        super().prepare(program)
        split_attention(program)

    def place(self, program: Program, clock: Clock) -> _policy.Placement:
        """Neurons in front of weights and at the operands of products."""
        return _policy.at_operands(
            program,
            lambda spec: self.site(spec, clock),
            include_patch_embed=self.include_patch_embed,
            include_head=self.include_head,
            stands=_is_relu,
        )

    def site(self, spec: SiteSpec, clock: Clock) -> TrackingSite:
        """A differential neuron."""
        return TrackingSite(spec, clock, self.levels, self.sharing)

    def needs_data(self, model: ConvertedModel) -> bool:
        """Always: thresholds are statistics of the signals."""
        return True

    def calibrate(self, model: ConvertedModel, batches: Batches | None) -> None:
        """Measure magnitudes, in one pass."""
        assert batches is not None
        share = check_rule(self.threshold)
        assert share is not None
        found = {n: s for n, s in sites(model).items() if isinstance(s, TrackingSite)}
        seen = {n: Histogram(s.v_threshold.numel()) for n, s in found.items()}

        def watch(name: str, site: Site, x: Tensor) -> Tensor:
            y = site.analog(x)
            seen[name].add(y.abs(), axis=1 if self.sharing == "channel" else -1)
            return y

        run_observed(model, batches, "thresholds", watch)
        for name, site in found.items():
            theta = seen[name].quantile(share) * self.threshold_scale
            if not bool((theta > 0).any()):
                raise ConversionError(f"the signal at {name!r} is 0 on all calibration images")
            site.v_threshold.copy_(theta.view_as(site.v_threshold))


def _is_relu(activation: Activation) -> bool:
    """A threshold bounds no represented value, so a cap as that of ReLU6 cannot be left to the neuron."""
    return activation.kind == "relu"
