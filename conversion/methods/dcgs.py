"""DCGS: differential coding, the training-free conversion of any backbone (arXiv 2503.00301).

A spike corrects what has been represented so far, by its level divided by the step; once the value is
right, nothing is sent. The network runs on represented values
(`conversion.network.units`): affine layers and exact
functions need no change, and only neurons know of time. The authors' code (h-z-h-cell/ANN-to-SNN-DCGS) sends
the increments through the layers and keeps the constants in a slot of their own; the numbers are the same.

In rate code, which the authors' code has, too, a spike of the same neurons is its share of the
average over time, and the network runs on steps.

Thresholds name the *largest* level, those of ECMT the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from typing_extensions import override

from conversion.calibration.fallback import Magnitudes
from conversion.calibration.observe import check_rule, run_observed
from conversion.calibration.statistics import (
    Average,
    Level,
    Moments,
    maximum,
    quantile,
    reduced_axes,
)
from conversion.calibration.threshold_iteration import (
    best_threshold,
    iterated_threshold,
    quantisation_levels,
)
from conversion.graph.activations import require_only_relu
from conversion.graph.placement import at_activations, at_operands
from conversion.methods.base import register_method
from conversion.methods.graded import GradedMethod
from conversion.network.site import Site, sites
from spiking.arguments import integer
from spiking.functional import multi_threshold
from spiking.levels import MAX_LEVELS, Levels
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from conversion.calibration.batches import Batches
    from conversion.graph.placement import Placement
    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import Activation, SiteSpec
    from conversion.network.units import Domain

Policy = Literal["auto", "official-cnn", "official-transformer"]
Code = Literal["differential", "rate"]
Iteration = ("iterated", "converged")
HEADROOM = 8  # levels above the share; outliers of 256 times it arrive in the first steps


class TrackingSite(Site):
    """A differential neuron between represented values; see `spiking.functional.multi_threshold.track`.

    Args:
        spec: of the site.
        clock: of the network.
        n: levels a side from the threshold down; 0 for one threshold that fires as an integrate-and-fire
            neuron does.
        headroom: levels above the threshold.
        level: which neurons share a threshold.
        moments: whether the threshold is found from the moments of the currents.

    Attributes:
        v_threshold: the level up to which ``n`` counts, of the shape of a sample with axes of size 1.
        mean: of the currents, for thresholds that depend on T; absent otherwise.
        var: of the currents, likewise.
    """

    domain: ClassVar[Domain] = "mean"
    state_names: ClassVar[tuple[str, ...]] = ("steps", "mean")
    mean: Tensor | None
    var: Tensor | None

    def __init__(
        self, spec: SiteSpec, clock: Clock, *, n: int, headroom: int, level: Level, moments: bool
    ) -> None:
        super().__init__(spec, clock)
        self.n, self.headroom, self.level = n, headroom, level
        self.kind = "identity" if spec.activation.kind == "identity" else "relu"
        reduced = reduced_axes(level, len(spec.shape) + 1)
        size = tuple(1 if axis + 1 in reduced else s for axis, s in enumerate(spec.shape))
        self.register_buffer("v_threshold", torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size) if moments else None)
        self.register_buffer("var", torch.zeros(size) if moments else None)

    def thresholds(self) -> Levels:
        """The levels, for ``[B, ...]``."""
        theta = self.v_threshold.unsqueeze(0)
        if not self.n:
            return Levels.single(theta)
        return Levels.largest(theta * 2**self.headroom, self.n + self.headroom)

    @override
    def initial_state(self, x: Tensor) -> Any:
        """No step, and a mean of 0."""
        return 0, torch.zeros_like(x, dtype=state_dtype(x))

    @override
    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Represented output ``[T, B, ...]``."""
        outputs, _, state = multi_threshold.track(
            x, self.thresholds(), state, kind=self.kind, keep_state=keep_state
        )
        return outputs, state


class RateSite(TrackingSite):
    """The same neuron in rate code: currents in, levels out.

    See `spiking.functional.multi_threshold.rate_coded`.
    """

    domain: ClassVar[Domain] = "step"
    state_names: ClassVar[tuple[str, ...]] = ("v", "sent")

    @override
    def initial_state(self, x: Tensor) -> Any:
        """The potential, and for a ReLU the sum of all sent."""
        return multi_threshold.rate_start(x, self.thresholds(), self.kind)

    @override
    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Levels ``[T, B, ...]``."""
        return multi_threshold.rate_coded(x, self.thresholds(), state, kind=self.kind, keep_state=keep_state)


@register_method
@dataclass(frozen=True, kw_only=True)
class DCGSConversion(GradedMethod):
    """Differential coding with neurons of several levels.

    The published settings: CNNs ``policy="official-cnn", threshold="iterated", level="channel", levels=4``;
    transformers ``policy="official-transformer", threshold="99.9%", signed=True, level="channel",
    threshold_scale=4, levels=8`` (the released code multiplies by 8 whatever its files say); detectors, see
    `conversion.detection.detector`, ``policy="official-cnn", threshold="99.9%", level="channel", levels=8``.

    Attributes:
        policy: where neurons are. ``"official-cnn"``: for each ReLU, which must be the only nonlinearity
            beside max pooling and group norms. ``"official-transformer"``: in front of every layer with
            weights, the first and the last included, and at the operands of products. ``"auto"``: as the
            latter, but a ReLU that feeds nothing but such layers becomes a neuron itself, and the image
            enters the first layer as it is.
        code: ``"differential"``, or ``"rate"``, which the authors' code has for comparison
            (``MTH_with_neg`` and ``MTH_with_neg_line``): what is sent means its average over time, which the
            largest level bounds.
        levels: n, levels a side from the threshold down, each half of the one before; 0 for one threshold
            (IF).
        headroom: further levels a side above the threshold, each twice the one before. A neuron whose largest
            level is theta gets no further than ``theta (1 + 1/2 + ... + 1/T)``, 3.4 theta in 16 steps and 6.1
            in 256: what lies above, such as an outlier that the share leaves out or calibration did not see,
            never arrives, and gates multiply its error. Smallest level and quiet neurons stay as they are.
            None: 8 with policy ``"auto"``, 0 with the published ones.
        threshold: a share of the values at a site, ``"max"`` or ``"99.9%"``, or for ReLU
            the threshold iteration on mean and variance of its currents, ``"iterated"`` (100 updates, as
            published) or ``"converged"``; these two are found anew when T is changed.
        threshold_scale: c, by which it is multiplied.
        level: what shares a threshold: ``"layer"``, ``"channel"`` (the first axis of a sample: the token or
            the head of transformers, as published), ``"feature"`` (the last axis) or ``"neuron"``.
        include_patch_embed: whether the image itself is sent as spikes; None: as the policy has it.
        include_head: whether the layer that makes the logits receives spikes; None: it does.
        signed: take the share of signed values, as published, not of magnitudes; where it is negative, the
            neuron is silent, unless all of its site would be.
    """

    name: ClassVar[str] = "dcgs"
    paper: ClassVar[str] = "2503.00301"
    causal: ClassVar[bool] = True
    anytime: ClassVar[bool] = True
    counted: ClassVar[frozenset[str]] = frozenset({"conv", "linear", "matmul"})
    before: ClassVar[Mapping[str, Any]] = {"headroom": 0}

    policy: Policy = "auto"
    code: Code = "differential"
    levels: int = 8
    headroom: int | None = None
    threshold: str = "99.9%"
    threshold_scale: float = 1.0
    level: Level = "layer"
    signed: bool = False
    include_patch_embed: bool | None = None
    include_head: bool | None = None

    def __post_init__(self) -> None:
        integer("levels", self.levels, 0)
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy must be one of {', '.join(get_args(Policy))}, got {self.policy!r}")
        if self.code not in get_args(Code):
            raise ValueError(f"code must be one of {', '.join(get_args(Code))}, got {self.code!r}")
        reduced_axes(self.level, 4)
        if self.threshold not in Iteration and check_rule(self.threshold) is None:
            raise ValueError("threshold 'mse' is for integrate-and-fire neurons; use 'iterated' or '99.9%'")
        if self.threshold in Iteration and self.policy == "official-transformer":
            raise ValueError(
                f"threshold {self.threshold!r} needs currents of ReLU, which policy 'official-transformer'"
                " leaves exact; use '99.9%'"
            )
        if self.policy == "official-cnn" and (self.include_patch_embed, self.include_head) != (None, None):
            raise ValueError(
                "policy 'official-cnn' puts neurons nowhere but for ReLUs, so include_patch_embed and"
                " include_head have no meaning; leave them out, or use policy='auto'"
            )
        self._check_headroom()
        if not self.threshold_scale > 0.0:
            raise ValueError(f"threshold_scale must be positive, got {self.threshold_scale!r}")

    def _check_headroom(self) -> None:
        if self.headroom is None:
            return
        integer("headroom", self.headroom, 0)
        if self.headroom and not self.levels:
            raise ValueError("levels=0 stands for one threshold, above which there is no headroom")
        if self.levels + self.headroom > MAX_LEVELS:
            raise ValueError(
                f"levels={self.levels} and headroom={self.headroom} are more than {MAX_LEVELS} levels a side"
            )

    @property
    @override
    def domain(self) -> Domain:
        """Means in differential code, steps in rate code."""
        return "mean" if self.code == "differential" else "step"

    @override
    def place(self, program: Program, clock: Clock) -> Placement:
        def build(spec: SiteSpec) -> TrackingSite:
            return self.site(spec, clock)

        if self.policy == "official-cnn":
            require_only_relu(program)
            return at_activations(program, build, self.stays_analog)
        everywhere = self.policy == "official-transformer"
        return at_operands(
            program,
            build,
            include_patch_embed=everywhere if self.include_patch_embed is None else self.include_patch_embed,
            include_head=self.include_head is not False,
            replaces=lambda activation: not everywhere and _is_relu(activation),
        )

    @override
    def site(self, spec: SiteSpec, clock: Clock) -> TrackingSite:
        moments = self.threshold in Iteration and _is_relu(spec.activation)
        kind = TrackingSite if self.code == "differential" else RateSite
        headroom = self.headroom
        if headroom is None:
            above = self.policy == "auto" and self.levels
            headroom = min(HEADROOM, MAX_LEVELS - self.levels) if above else 0
        return kind(spec, clock, n=self.levels, headroom=headroom, level=self.level, moments=moments)

    @override
    def calibrate(self, network: Network, batches: Batches | None) -> None:
        """Measure the signals in one pass; batches count by their size."""
        assert batches is not None
        found = {n: s for n, s in sites(network).items() if isinstance(s, TrackingSite)}
        averages = {n: Average() for n, s in found.items() if s.mean is None}
        moments = {n: Moments(self.level) for n, s in found.items() if s.mean is not None}
        magnitudes = {n: Magnitudes() for n in averages}
        share = 0.999 if self.threshold in Iteration else check_rule(self.threshold)
        assert share is not None

        def watch(name: str, site: Site, x: Tensor) -> Tensor:
            y = site.analog(x)
            if name in moments:
                moments[name].add(x)
                return y
            magnitudes[name].add(x, y)
            magnitude = not self.signed
            value = (
                maximum(y, self.level, magnitude=magnitude)
                if share == 1.0
                else quantile(y, share, self.level, magnitude=magnitude)
            )
            averages[name].add(value, len(x))
            return y

        run_observed(network, batches, "thresholds", watch)
        for name, site in found.items():
            if name in moments:
                assert site.mean is not None
                assert site.var is not None
                site.mean.copy_(_first(moments[name].mean))
                site.var.copy_(_first(moments[name].var))
            else:
                self._set_threshold(site, _first(averages[name].value), magnitudes[name])
        self.update_thresholds(network)

    def _set_threshold(self, site: TrackingSite, theta: Tensor, magnitudes: Magnitudes) -> None:
        """The measured threshold, or what stands in for it where it is not above 0.

        Single channels that were always 0 stay silent as the authors' do with a published policy, or where
        the signs of the share silence neurons on purpose.
        """
        site.fallback = ""
        dead = int((theta <= 0).sum())
        if dead == theta.numel():
            value, site.fallback = magnitudes.stand_in()
            theta = torch.full_like(theta, value)
        elif dead and self.policy == "auto" and not self.signed:
            site.fallback = f"the largest one, {float(theta.max()):.4g}, for {dead} whose share was 0"
            theta = torch.where(theta > 0, theta, theta.max())
        site.v_threshold.copy_(theta * self.threshold_scale)

    @override
    def update_thresholds(self, network: Network) -> None:
        """Thresholds of the iteration, for the T of ``network``."""
        find = iterated_threshold if self.threshold == "iterated" else best_threshold
        count = quantisation_levels(network.time_steps, self.levels or None)
        for site in sites(network).values():
            if isinstance(site, TrackingSite) and site.mean is not None and site.var is not None:
                site.v_threshold.copy_(find(site.mean, site.var, count) * self.threshold_scale)


def _is_relu(activation: Activation) -> bool:
    """A threshold bounds no represented value, so a cap as that of ReLU6 cannot be left to the neuron."""
    return activation.kind == "relu"


def _first(statistic: Tensor | None) -> Tensor:
    """``[1, ...]``, as statistics of batches are, -> the shape of a sample."""
    assert statistic is not None
    return statistic[0]
