"""Parallel conversion: all T spikes at once from the mean of T currents (arXiv 2412.13610).

A site takes the whole window, so the network runs layer by layer and only the mean of its T outputs means
anything. That mean is QCFS with T levels of the mean current; what stands between sites commutes with the
mean. Hence a QCFS source with ``L = T`` converts without loss, at any depth. For other T, and for ReLU
sources, a pass over training images finds two corrections per channel, ``phi_in`` and ``phi_out``.

Where the article's spikes come last in the window, those of the authors' code come first; we follow the
code. Counts, and so everything that follows, are the same.

Currents and thresholds are in one unit. Thresholds and corrections broadcast against one step: a number,
``[1]``, or ``[C, 1, 1]``. A channel whose threshold is not positive never fires; the authors do not guard it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from conversion.calibration.batches import reference_tensor, to_model
from conversion.calibration.observe import check_rule, find_thresholds, is_trained, single_step
from conversion.graph import ops
from conversion.methods.base import Method, check_integer, register_method
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.integrator import check_trained, thresholds_learn
from conversion.network.site import RECT, Site, overridden, sites

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, fx

    from conversion.calibration.batches import Batches
    from conversion.graph.program import Program
    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import SiteSpec
    from spiking.surrogate import Surrogate

MOMENTUM = 0.99  # of the corrections; no bias correction, so N batches reach 1 - 0.99^N of the way


def parallel_spikes(
    mean: Tensor,
    time_steps: int,
    v_threshold: float | Tensor = 1.0,
    phi_in: Tensor | None = None,
    *,
    surrogate: Surrogate = RECT,
    backend: str = "auto",
) -> Tensor:
    """Spikes of a neuron that receives the charge of all T steps before the first one.

    The authors' step t fires where ``(T / t) mean + (theta / 2 + T phi_in) / t >= theta``, that is where
    ``z = T (mean + phi_in) / theta + 1/2`` is at least t. So ``floor(z)`` spikes come first, as an
    integrate-and-fire neuron without currents sends them from the membrane z. Computed in this order z
    is, to the last bit, what QCFS rounds, so that ties fall as in the source; the authors' quotients may
    round one to the other side.

    Args:
        mean: mean current over the T steps ``[...]``.
        time_steps: T.
        v_threshold: theta.
        phi_in: correction of the mean.
        surrogate: with the default, the straight-through rule of QCFS except within half a level of the
            bounds of its range.
        backend: see `spiking.functional.neurons`.

    Returns:
        Spikes ``[T, ...]`` in the dtype of ``mean``, not increasing over time.

    Raises:
        ValueError: ``time_steps`` is not at least 1.
    """
    z = _levels(mean, v_threshold, time_steps, phi_in)
    nothing = torch.zeros_like(mean).expand(time_steps, *mean.shape)
    return integrate_fire(nothing, z, surrogate=surrogate, backend=backend)[0]


def parallel(
    x: Tensor,
    v_threshold: float | Tensor = 1.0,
    phi_in: Tensor | None = None,
    phi_out: Tensor | None = None,
    *,
    surrogate: Surrogate = RECT,
    backend: str = "auto",
) -> Tensor:
    """A converted site: `parallel_spikes` of the mean, each of which carries ``theta + phi_out``.

    Its mean over time is `da_qcfs` of the mean current.

    Args:
        x: currents ``[T, ...]``.
        v_threshold: theta.
        phi_in: correction of the mean.
        phi_out: correction of the emitted value.
        surrogate: see `parallel_spikes`.
        backend: see `spiking.functional.neurons`.

    Returns:
        Outputs ``[T, ...]``.
    """
    spikes = parallel_spikes(x.mean(0), len(x), v_threshold, phi_in, surrogate=surrogate, backend=backend)
    return spikes * (v_threshold if phi_out is None else v_threshold + phi_out)


# ---------------------------------------------------------------- calibration, without gradients


@torch.no_grad()
def da_qcfs(
    x: Tensor,
    v_threshold: float | Tensor,
    time_steps: int,
    phi_in: Tensor | None = None,
    phi_out: Tensor | None = None,
) -> Tensor:
    """The calibrated activation: ``clip(floor(T (x + phi_in) / theta + 1/2) / T, 0, 1) (theta + phi_out)``.

    Without corrections, QCFS with T levels.

    Args:
        x: currents ``[...]``.
        v_threshold: theta.
        time_steps: T.
        phi_in: correction of the current.
        phi_out: correction of the value of full activity.

    Returns:
        Activations ``[...]``.
    """
    rate = _levels(x, v_threshold, time_steps, phi_in).floor_().clamp_(0, time_steps).div_(time_steps)
    return rate.mul_(v_threshold if phi_out is None else v_threshold + phi_out).to(x.dtype)


@torch.no_grad()
def clipped_relu(x: Tensor, v_threshold: float | Tensor) -> Tensor:
    """``clip(x, 0, theta)``: what a ReLU source shows while thresholds are its channels' maxima.

    Args:
        x: currents ``[...]``.
        v_threshold: theta; where it is not positive, the activation is 0.

    Returns:
        Activations ``[...]``.
    """
    top = torch.as_tensor(v_threshold, dtype=x.dtype, device=x.device)
    return torch.minimum(x, top).clamp_(min=0)


@torch.no_grad()
def calibrate_step(
    x_low: Tensor,
    x_ref: Tensor,
    v_threshold: float | Tensor,
    time_steps: int,
    phi_in: Tensor,
    phi_out: Tensor,
    reference: Callable[[Tensor], Tensor],
    momentum: float = MOMENTUM,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One batch of calibration at one site.

    Two copies of the batch run through the network: one with `da_qcfs` at every site, one with the source's
    activation. The order is that of the authors' code: ``phi_in`` moves first and counts at once, while
    ``phi_out`` counts from the next batch on. Statistics are means over all axes but the channels', so
    maps ``[B, C, H, W]`` have corrections ``[C, 1, 1]`` and vectors ``[B, C]`` have ``[C]``. The authors
    calibrate maps only and let both copies pass classifier sites as ``da_qcfs(x, v_threshold, T)``.

    Args:
        x_low: currents of the copy with T levels.
        x_ref: currents of the reference copy.
        v_threshold: theta.
        time_steps: T.
        phi_in: moving mean of ``x_ref - x_low``; zeros at first.
        phi_out: moving mean of ``y_ref - y_low``; zeros at first.
        reference: the source's activation, e.g. `clipped_relu` with theta, or `da_qcfs` with theta and
            the L of the source. The authors' L is 8 whatever the source.
        momentum: weight of the past.

    Returns:
        ``y_low``, ``y_ref``, and the new ``phi_in`` and ``phi_out``.

    Raises:
        ValueError: the copies differ in shape.
    """
    if x_low.shape != x_ref.shape:
        raise ValueError(
            f"both copies must have one shape, got {tuple(x_low.shape)} with T levels and"
            f" {tuple(x_ref.shape)} of the reference; halve a doubled batch with chunk(2)"
        )
    phi_in = momentum * phi_in + (1 - momentum) * _per_channel(x_ref - x_low)
    y_low = da_qcfs(x_low, v_threshold, time_steps, phi_in, phi_out)
    y_ref = reference(x_ref)
    phi_out = momentum * phi_out + (1 - momentum) * _per_channel(y_ref - y_low)
    return y_low, y_ref, phi_in, phi_out


def _per_channel(x: Tensor) -> Tensor:
    """Means over all axes but the second: ``[B, C, ...]`` -> ``[C, 1...]``."""
    return x.mean([0, *range(2, x.dim())], keepdim=True)[0]


def _levels(x: Tensor, v_threshold: float | Tensor, time_steps: int, phi_in: Tensor | None) -> Tensor:
    """``T (x + phi_in) / theta + 1/2``, in a tensor of its own; its floor is the number of spikes."""
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps!r}")
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    theta = torch.as_tensor(v_threshold, dtype=dtype, device=x.device)
    theta = torch.where(theta > 0, theta, torch.inf)  # half a level from everywhere: silent
    x = x.to(dtype)
    return (x if phi_in is None else x + phi_in) / theta * time_steps + 0.5


# ---------------------------------------------------------------- the conversion


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
    def causal(self) -> bool:
        """No: every step depends on the mean of all."""
        return False

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
        check_integer("passes", self.passes, 1)
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum!r}")

    def stays_analog(self, program: Program, node: fx.Node) -> str | None:
        """The stem of a ReLU network: its first activation, where max pooling goes with it."""
        source = node.all_input_nodes[0]
        pooled = ops.op_name(source.target).startswith("max_pool")
        return "stem with max pooling" if pooled and _is_first(program, node) else None

    def site(self, spec: SiteSpec, clock: Clock) -> ParallelNeuron:
        """A parallel neuron; ReLU sources have a threshold for each channel."""
        return ParallelNeuron(spec, clock, channelwise=spec.v_threshold is None)

    def needs_data(self, network: Network) -> bool:
        """Whether a site has no trained threshold."""
        return not all(is_trained(s) for s in sites(network).values())

    def fine_tuning(self, network: Network) -> str:
        """QCFS of T levels; nothing new at T = L."""
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
