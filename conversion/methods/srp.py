"""SRP: silence neurons whose residual potential after a rehearsal is not positive (arXiv 2302.02091).

Every input is shown twice. During the first ``tau`` steps the network runs as QCFS converted it and its
output is discarded. A neuron whose membrane then is not above `MARGIN` has fired more often than its
activation calls for, or is about to; it is silenced in the second pass, in which every neuron starts anew.
All layers rehearse at once, so that no mask depends on another.

The article argues for ``v(tau) < 0``; the authors' code (hzc1208/ANN2SNN_SRP) also silences membranes from
0 to 0.001, and so do we. Its neuron counts calls to know its phase; here phases are slices of the time axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from typing_extensions import override

from conversion.calibration.trained import is_trained, thresholds_learn
from conversion.methods.base import register_method
from conversion.methods.integrate_fire import V_INIT, integrate_fire
from conversion.methods.integrator import IntegratorMethod, IntegratorSite
from conversion.network.site import RECT, sites
from spiking.arguments import integer

if TYPE_CHECKING:
    from torch import Tensor

    from conversion.network.clock import Clock
    from conversion.network.network import Network
    from conversion.network.site import SiteSpec
    from spiking.surrogate import Surrogate

MARGIN = 0.001  # in thresholds; neurons with a residual membrane potential above it may fire
FEW_STEPS = 8  # up to here SRP comes closer than QCFS to a source with ReLU; benchmarks/srp_rehearsal.py
SILENT = 1e30  # in thresholds; no current brings a membrane this far below the threshold up to it


def srp(x: Tensor, tau: int, *, surrogate: Surrogate = RECT, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """Rehearse on the first ``tau`` steps, then run masked on the others.

    The authors multiply the output of a neuron that runs on unseen. Starting it deep below the threshold
    gives the same spikes, a pass over them sooner, and no gradient either if the surrogate has none there.

    Args:
        x: currents in units of the threshold ``[tau + T, ...]``: the rehearsal, then the run.
        tau: steps of the rehearsal; 0 is plain QCFS.
        surrogate: see `conversion.methods.integrate_fire.integrate_fire`; no gradient runs through the mask.
        backend: see `spiking.functional.neurons`.

    Returns:
        Spikes ``[tau + T, ...]``, unmasked up to ``tau``, and the mask ``[...]``, true for neurons that
        may fire.

    Raises:
        ValueError: ``tau`` is negative or leaves no step for the run.
    """
    if not 0 <= tau < len(x):
        raise ValueError(
            f"tau must be between 0 and {len(x) - 1} for {len(x)} time steps, got {tau!r}; the sequence"
            " holds tau steps of rehearsal and then T of the run"
        )
    if tau == 0:
        return integrate_fire(x, surrogate=surrogate, backend=backend)[0], x.new_ones(x.shape[1:]).bool()
    rehearsed, residual = integrate_fire(x[:tau], surrogate=surrogate, backend=backend)
    residual = residual.detach()
    mask = residual > MARGIN
    start = torch.le(residual, MARGIN, out=torch.empty_like(residual)).mul_(-SILENT).add_(V_INIT)
    spikes, _ = integrate_fire(x[tau:], start, surrogate=surrogate, backend=backend)
    return torch.cat([rehearsed, spikes]), mask


# ---------------------------------------------------------------- the conversion


class SRPNeuron(IntegratorSite):
    """A neuron that rehearses on the first steps of its window; see `srp`.

    Args:
        spec: of the site.
        clock: of the network.
        channelwise: see `conversion.network.site.Site`.
        tau: steps of the rehearsal.
    """

    def __init__(self, spec: SiteSpec, clock: Clock, channelwise: bool, tau: int) -> None:
        super().__init__(spec, clock, channelwise)
        self.tau = tau

    @property
    @override
    def causal(self) -> bool:
        """No: the input is shown twice."""
        return self.tau == 0

    @override
    def spikes(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Spikes of rehearsal and run, ``[tau + T, B, ...]``."""
        if self.tau == 0:
            return integrate_fire(x, V_INIT if state is None else state, surrogate=self.surrogate)
        return srp(x, self.tau, surrogate=self.surrogate)[0], None


@register_method
@dataclass(frozen=True, kw_only=True)
class SRPConversion(IntegratorMethod):
    """Residual membrane potential (arXiv 2302.02091): rehearse on the input, silence what fired too often.

    The latency is tau + T steps. Published with tau = 4 on CIFAR-100, 14 for VGG-16 and 8 for ResNet-34 on
    ImageNet. One pass tells the accuracy at every T, since the rehearsal does not depend on T.

    Attributes:
        tau: steps of the rehearsal; 0 is plain QCFS.
    """

    name: ClassVar[str] = "srp"
    paper: ClassVar[str] = "2302.02091"
    causal: ClassVar[bool] = False
    anytime: ClassVar[bool] = True

    tau: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("tau", self.tau, 0)

    @override
    def window(self, time_steps: int) -> int:
        """The rehearsal comes before the T steps."""
        return self.tau + time_steps

    @override
    def first(self, time_steps: int) -> int:
        """The output of the rehearsal is discarded."""
        return self.tau

    @override
    def remarks(self, network: Network) -> list[str]:
        """A warning where plain QCFS is likely to come closer."""
        calibrated = [name for name, site in sites(network).items() if not is_trained(site)]
        if not self.tau or network.time_steps <= FEW_STEPS or not calibrated:
            return []
        return [
            f"SRP at T = {network.time_steps}: a neuron that the rehearsal silences stays silent at every"
            " step, so the error does not vanish with T; for a source without trained thresholds plain QCFS"
            f" (method='qcfs') is likely to be closer above T = {FEW_STEPS}"
        ]

    @override
    def fine_tuning(self, network: Network) -> str:
        if self.tau == 0:
            return super().fine_tuning(network)
        return (
            "the rehearsal and its masks are constants of the input: gradients flow through the T steps of"
            f" the run alone, and through no neuron that is silenced there; {thresholds_learn(network)}; a"
            " step costs (tau + T) / T of the time"
        )

    @override
    def site(self, spec: SiteSpec, clock: Clock) -> SRPNeuron:
        return SRPNeuron(spec, clock, self.channelwise, self.tau)
