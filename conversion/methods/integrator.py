"""What QCFS, SRP and COS share: integrate-and-fire neurons with a threshold that is trained or measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from conversion.calibration.observe import check_rule, find_thresholds
from conversion.calibration.trained import all_trained, check_trained, is_trained, thresholds_learn
from conversion.methods.base import Method
from conversion.methods.integrate_fire import V_INIT
from conversion.network.site import Site
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from conversion.calibration.batches import Batches
    from conversion.network.network import Network


@dataclass(frozen=True, kw_only=True)
class IntegratorMethod(Method):
    """A method whose neurons integrate and fire.

    Attributes:
        threshold: for sources without trained thresholds: ``"max"``, a percentage of the activations such as
            ``"99.9%"``, or ``"mse"``, the least squared error of T levels.
        channelwise: such a threshold for each channel instead of one for a layer.
    """

    threshold: str = "99.9%"
    channelwise: bool = False

    def __post_init__(self) -> None:
        check_rule(self.threshold)

    @override
    def needs_data(self, network: Network) -> bool:
        return not all_trained(network)

    @override
    def calibrate(self, network: Network, batches: Batches | None) -> None:
        """Measure the thresholds that were not trained."""
        check_trained(network)
        if batches is not None and self.needs_data(network):
            find_thresholds(network, batches, self.threshold, levels=network.time_steps)

    @override
    def fine_tuning(self, network: Network) -> str:
        return f"gradients flow through all steps and the reset; {thresholds_learn(network)}"


class IntegratorSite(Site):
    """A site whose spikes are found in units of the threshold; subclasses write `spikes`."""

    @override
    def initial_state(self, x: Tensor) -> Tensor:
        """The membrane at half a threshold, in thresholds."""
        return torch.full_like(x, V_INIT, dtype=state_dtype(x))

    def spikes(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Spikes for currents in units of the threshold, ``[T, B, ...]``."""
        raise NotImplementedError

    @override
    def fire(self, x: Tensor, state: Any, keep_state: bool) -> tuple[Tensor, Any]:
        """Spikes times the threshold."""
        theta = self.v_threshold if self.channelwise else self.v_threshold.reshape(())
        # a channel that was silent in calibration stays silent: no current reaches an infinite threshold
        reach = theta if is_trained(self) else torch.where(theta > 0, theta, torch.inf)
        spikes, state = self.spikes(x / reach, state, keep_state)
        return (spikes * theta).to(x.dtype), state
