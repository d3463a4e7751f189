"""Parallel conversion: all T spikes at once from the mean of T currents (arXiv 2412.13610).

A site takes the whole window, so the network runs layer by layer and only the mean of its T outputs means
anything. That mean is QCFS with T levels of the mean current; what is between sites commutes with the
mean. Hence a QCFS source with ``L = T`` converts without loss, at any depth. For other T, and for ReLU
sources, a pass over training images finds two corrections per channel, ``phi_in`` and ``phi_out``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import override

from conversion.calibration.batches import reference_tensor, to_model
from conversion.calibration.observe import check_rule, find_thresholds, single_step
from conversion.calibration.trained import all_trained, check_trained, thresholds_learn
from conversion.graph import ops
from conversion.methods.base import Method, register_method
from conversion.methods.parallel_neuron import (
    MOMENTUM,
    calibrate_step,
    clipped_relu,
    da_qcfs,
    parallel,
    parallel_spikes,
)
from conversion.network.site import Site, overridden, sites
from spiking.arguments import integer

if TYPE_CHECKING:
    from torch import Tensor, fx

    from conversion.calibration.batches import Batches
    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import SiteSpec


class ParallelNeuron(Site):
    """All T spikes at once from the mean current; see `parallel`.

    Attributes:
        phi_in: correction of the mean current, ``[C, 1, 1]``; absent where the signal has no map.
        phi_out: correction of the emitted value, likewise.
    """

    phi_in: Tensor | None
    phi_out: Tensor | None

    def __init__(self, spec: SiteSpec, clock: Clock, channelwise: bool) -> None:
        super().__init__(spec, clock, channelwise)
        corrected = len(spec.shape) > 1  # as in the authors' code, which leaves classifiers alone
        size = (spec.shape[0], *(1,) * (len(spec.shape) - 1))
        self.register_buffer("phi_in", torch.zeros(size) if corrected else None)
        self.register_buffer("phi_out", torch.zeros(size) if corrected else None)

    @property
    @override
    def causal(self) -> bool:
        """No: every step depends on the mean of all."""
        return False

    @override
    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Outputs ``[T, B, ...]``."""
        outputs = parallel(x, self.v_threshold, self.phi_in, self.phi_out, surrogate=self.surrogate)
        return outputs.to(x.dtype), None

    def reference(self, x: Tensor) -> Tensor:
        """What the copy with the source's activations computes during calibration."""
        if self.activation.kind == "qcfs":
            return da_qcfs(x, self.v_threshold, self.activation.levels)
        return clipped_relu(x, self.v_threshold)


@register_method
@dataclass(frozen=True, kw_only=True)
class ParallelConversion(Method):
    """Parallel conversion (arXiv 2412.13610): lossless for a QCFS source at T = L.

    At other T, and for ReLU sources (training-free), corrections are calibrated on training images; T is
    fixed from then on. A QCFS source may go without images, and without corrections. The first activation
    of a ReLU source stays analog if max pooling follows, as in the authors' code. Only the mean over all T
    steps means anything.

    Attributes:
        momentum: of the corrections; N batches reach ``1 - momentum^N`` of the way.
        passes: how often the calibration images are gone through; 1 as published.
        threshold: of ReLU sources, channel by channel: ``"max"`` as published, a percentage, or ``"mse"``.
    """

    name: ClassVar[str] = "parallel"
    paper: ClassVar[str] = "2412.13610"
    causal: ClassVar[bool] = False
    anytime: ClassVar[bool] = False
    free_time_steps: ClassVar[bool] = False

    momentum: float = MOMENTUM
    passes: int = 1
    threshold: str = "max"

    def __post_init__(self) -> None:
        check_rule(self.threshold)
        integer("passes", self.passes, 1)
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum!r}")

    @override
    def stays_analog(self, program: Program, node: fx.Node) -> str | None:
        """The stem of a ReLU network: its first activation, where max pooling goes with it."""
        source = node.all_input_nodes[0]
        pooled = ops.op_name(source.target).startswith("max_pool")
        return "stem with max pooling" if pooled and _is_first(program, node) else None

    @override
    def site(self, spec: SiteSpec, clock: Clock) -> ParallelNeuron:
        return ParallelNeuron(spec, clock, channelwise=spec.v_threshold is None)

    @override
    def needs_data(self, network: Network) -> bool:
        return not all_trained(network)

    @override
    def fine_tuning(self, network: Network) -> str:
        levels = {s.activation.levels for s in sites(network).values()}
        if levels == {network.time_steps}:
            T = network.time_steps
            raise ValueError(
                f"fine-tuning makes no sense here: parallel conversion at T = L = {T} is its QCFS source"
                f" and trains straight-through like it, at {T} times the cost; train the source on with"
                " ClassificationTask, or choose another T"
            )
        return (
            "the mean over time is a QCFS of T levels and trains as one, straight-through;"
            f" {thresholds_learn(network)}, and corrections stay as they were measured"
        )

    @override
    def calibrate(self, network: Network, batches: Batches | None) -> None:
        """Thresholds of ReLU sources, then corrections unless T = L makes them zero."""
        check_trained(network)
        if batches is None:
            return
        if self.needs_data(network):
            find_thresholds(network, batches, self.threshold, levels=network.time_steps)
        levels = {s.activation.levels for s in sites(network).values()}
        if levels == {network.time_steps}:
            return
        like = reference_tensor(network)
        corrected = partial(_correct, time_steps=network.time_steps, momentum=self.momentum)
        with (
            torch.no_grad(),
            single_step(network),
            overridden(network, lambda name, site: partial(corrected, site)),
        ):
            for number in range(self.passes):
                for images in batches.through(f"corrections {number + 1}/{self.passes}"):
                    if len(images) < len(batches.first):
                        continue  # the authors drop a last batch that is not full
                    images = to_model(images, like)
                    network(torch.cat([images, images]))


def _correct(site: Site, x: Tensor, time_steps: int, momentum: float) -> Tensor:
    """Both copies of a batch ``[1, 2 B, ...]`` through one site, whose corrections move."""
    assert isinstance(site, ParallelNeuron)
    low, reference = x[0].chunk(2)
    if site.phi_in is None or site.phi_out is None:
        return da_qcfs(x, site.v_threshold, time_steps)
    y_low, y_reference, phi_in, phi_out = calibrate_step(
        low, reference, site.v_threshold, time_steps, site.phi_in, site.phi_out, site.reference, momentum
    )
    site.phi_in.copy_(phi_in)
    site.phi_out.copy_(phi_out)
    return torch.cat([y_low, y_reference]).unsqueeze(0)


def _is_first(program: Program, node: fx.Node) -> bool:
    return next(n for n in program.graph.nodes if ops.op_name(n.target) in ops.ACTIVATIONS) is node


__all__ = [
    "MOMENTUM",
    "ParallelConversion",
    "ParallelNeuron",
    "calibrate_step",
    "clipped_relu",
    "da_qcfs",
    "parallel",
    "parallel_spikes",
]
