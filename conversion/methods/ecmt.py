"""ECMT: rate-coded conversion of transformers with expectation compensation (arXiv 2502.21193).

Nonlinear operations act on the running means of their inputs, which the engine does by itself
(`conversion.network.units`): that is expectation compensation. Neurons send one of several levels, positive
or negative, in front of every layer with weights and at the operands of products. Thresholds name the
*smallest* level, those of DCGS the largest.

The equations are those of the authors' code (h-z-h-cell/Transformer-to-SNN-ECMT), which leaves the patch
embedding and the head without neurons. Parallel parameter normalisation, a copy of the next weights for each
level, is a matter of hardware: sending the level through the weights gives the same numbers.

The code measures signals of both signs. A signal without negative values, such as that of a ReLU, here gets a
negative side as large as the positive one: a running mean that went too high comes down by negative steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import override

from conversion.calibration.fallback import Magnitudes
from conversion.calibration.observe import run_observed
from conversion.calibration.statistics import Average, base_quantiles
from conversion.graph.placement import at_operands
from conversion.methods.base import register_method
from conversion.methods.graded import GradedMethod
from conversion.network.site import Site, sites
from spiking.arguments import integer
from spiking.functional import multi_threshold
from spiking.levels import Levels

if TYPE_CHECKING:
    from torch import Tensor

    from conversion.calibration.batches import Batches
    from conversion.graph.placement import Placement
    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import SiteSpec


class MultiThresholdSite(Site):
    """A neuron that sends one of ``2 n`` levels; see `spiking.functional.multi_threshold.rate_coded`.

    Args:
        spec: of the site.
        clock: of the network.
        n: levels a side.

    Attributes:
        v_threshold: p, the smallest positive level.
        negative_threshold: q, the size of the smallest negative level.
    """

    negative_threshold: Tensor

    def __init__(self, spec: SiteSpec, clock: Clock, n: int) -> None:
        super().__init__(spec, clock)
        self.n, self.producer = n, spec.producer
        self.register_buffer("negative_threshold", torch.zeros(1))

    def thresholds(self) -> Levels:
        """The levels."""
        return Levels.smallest(self.v_threshold, self.negative_threshold, self.n)

    @override
    def initial_state(self, x: Tensor) -> Any:
        """The potential."""
        return multi_threshold.rate_start(x, self.thresholds(), "identity")

    @override
    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Levels ``[T, B, ...]``; the state is the potential."""
        return multi_threshold.rate_coded(x, self.thresholds(), state, keep_state=keep_state)


SOFTMAX = ("softmax", "_softmax", "_safe_softmax")


class SmallestLevels:
    """The smallest levels of a site, averaged over batches.

    Args:
        percent: see `ECMTConversion`.

    Attributes:
        magnitudes: the largest ones, for a signal without levels.
    """

    def __init__(self, percent: float) -> None:
        self.percent, self.magnitudes = percent, Magnitudes()
        self._all, self._sparse = Average(), Average()

    def add(self, x: Tensor) -> None:
        """Take in the values ``[B, ...]`` of a batch."""
        value = base_quantiles(x, self.percent)
        self._all.add(value)
        self.magnitudes.add(x, x)
        if not bool((value > 0).any()) and bool(x.any()):
            self._sparse.add(base_quantiles(x[x != 0], self.percent))

    def value(self) -> Tensor:
        """The levels ``[2]``: of all values, or of those that are not zero where the share is at zero."""
        value = self._all.value
        assert value is not None
        if not bool((value > 0).any()) and self._sparse.value is not None:
            return self._sparse.value
        return value


@register_method
@dataclass(frozen=True, kw_only=True)
class ECMTConversion(GradedMethod):
    """Expectation compensation with multi-threshold neurons, for any backbone.

    Attributes:
        levels: n, levels a side, each twice the one before; the code's ``linear_num`` and ``qkv_num``.
        softmax_levels: n behind a softmax.
        percent: share of the values at a site below the smallest positive level. As published 0.99, for
            transformers; CNNs of ReLUs want finer levels, 0.9. Where that share is zero, as behind ReLUs
            that are mostly silent, it is taken of the values that are not.
        softmax_base: smallest level of either sign behind a softmax, whose values are not measured.
        gelu_bases: smallest positive and negative level behind a GELU; empty: measured. The code fixes
            [0.25, 0.08] for the ViTs of timm.
        include_patch_embed: whether the image is sent as spikes.
        include_head: whether the layers that make the logits receive spikes.
    """

    name: ClassVar[str] = "ecmt"
    paper: ClassVar[str] = "2502.21193"
    causal: ClassVar[bool] = True
    anytime: ClassVar[bool] = True
    counted: ClassVar[frozenset[str]] = frozenset({"linear", "matmul"})
    counts_own_step: ClassVar[bool] = True

    levels: int = 8
    softmax_levels: int = 8
    percent: float = 0.99
    softmax_base: float = 0.0125
    gelu_bases: tuple[float, ...] = ()
    include_patch_embed: bool = False
    include_head: bool = False

    def __post_init__(self) -> None:
        integer("levels", self.levels, 1)
        integer("softmax_levels", self.softmax_levels, 1)
        if not 0.5 < self.percent < 1.0:
            raise ValueError(f"percent must lie between 0.5 and 1, got {self.percent!r}")
        object.__setattr__(self, "gelu_bases", tuple(self.gelu_bases))  # YAML and JSON bring lists
        if len(self.gelu_bases) not in (0, 2):
            raise ValueError(f"gelu_bases takes a positive and a negative base, got {self.gelu_bases!r}")
        if not self.softmax_base > 0.0 or (self.gelu_bases and not max(self.gelu_bases) > 0.0):
            raise ValueError(
                "a neuron needs a level above 0, got"
                f" softmax_base={self.softmax_base!r}, gelu_bases={self.gelu_bases!r}"
            )

    @override
    def place(self, program: Program, clock: Clock) -> Placement:
        return at_operands(
            program,
            lambda spec: self.site(spec, clock),
            include_patch_embed=self.include_patch_embed,
            include_head=self.include_head,
            replaces=lambda activation: False,
        )

    @override
    def site(self, spec: SiteSpec, clock: Clock) -> MultiThresholdSite:
        behind_softmax = spec.producer in SOFTMAX
        return MultiThresholdSite(spec, clock, self.softmax_levels if behind_softmax else self.levels)

    def fixed(self, site: MultiThresholdSite) -> tuple[float, ...]:
        """Smallest levels that are not measured, (positive, negative); empty where they are."""
        if site.producer in SOFTMAX:
            return self.softmax_base, self.softmax_base
        return tuple(self.gelu_bases) if site.producer == "gelu" else ()

    @override
    def calibrate(self, network: Network, batches: Batches | None) -> None:
        """Measure the signals in one pass; each batch counts alike, as in the code."""
        assert batches is not None
        found = {n: s for n, s in sites(network).items() if isinstance(s, MultiThresholdSite)}
        seen = {n: SmallestLevels(self.percent) for n, s in found.items() if not self.fixed(s)}

        def watch(name: str, site: Site, x: Tensor) -> Tensor:
            if name in seen:
                seen[name].add(x)
            return x

        run_observed(network, batches, "thresholds", watch)
        for name, site in found.items():
            value = seen[name].value() if name in seen else torch.tensor(self.fixed(site))
            site.fallback = ""
            if not bool((value > 0).any()):  # the largest level stands in
                largest, site.fallback = seen[name].magnitudes.stand_in()
                value = torch.full_like(value, largest / 2 ** (site.n - 1))
            value = torch.where(value > 0, value, value.max())
            site.v_threshold.copy_(value[:1])
            site.negative_threshold.copy_(value[1:])
