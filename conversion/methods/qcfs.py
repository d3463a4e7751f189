"""QCFS: networks with a quantised activation become integrate-and-fire ones (arXiv 2303.04347)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from conversion.methods.base import register_method
from conversion.methods.integrate_fire import V_INIT, integrate_fire
from conversion.methods.integrator import IntegratorMethod, IntegratorSite
from spiking.qcfs import QCFS, qcfs

if TYPE_CHECKING:
    from torch import Tensor

    from conversion.network.clock import Clock
    from conversion.network.site import SiteSpec


class QCFSNeuron(IntegratorSite):
    """Integrate-and-fire with soft reset, from half a threshold; the state is the membrane."""

    @override
    def spikes(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """See `conversion.methods.integrate_fire.integrate_fire`."""
        return integrate_fire(x, V_INIT if state is None else state, surrogate=self.surrogate)


@register_method
@dataclass(frozen=True, kw_only=True)
class QCFSConversion(IntegratorMethod):
    """Plain conversion of QCFS (arXiv 2303.04347): an integrate-and-fire neuron with the trained threshold.

    Needs no data for a QCFS source, and one conversion serves every T. In expectation without error at any
    T; exact at the first site for T = L. Behind it spikes arrive unevenly, and even T = L loses something.
    """

    name: ClassVar[str] = "qcfs"
    paper: ClassVar[str] = "2303.04347"
    causal: ClassVar[bool] = True
    anytime: ClassVar[bool] = True

    @override
    def site(self, spec: SiteSpec, clock: Clock) -> QCFSNeuron:
        return QCFSNeuron(spec, clock, self.channelwise)


__all__ = ["QCFS", "QCFSConversion", "QCFSNeuron", "qcfs"]
