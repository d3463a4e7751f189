"""Thresholds that the source was trained with, which no calibration measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from conversion.network.site import sites

if TYPE_CHECKING:
    from conversion.network.network import Network
    from conversion.network.site import Site


def is_trained(site: Site) -> bool:
    """Whether the source was trained with this threshold."""
    return isinstance(site.v_threshold, nn.Parameter)


def all_trained(network: Network) -> bool:
    """Whether every site has a trained threshold, so that there is none to measure."""
    return all(is_trained(site) for site in sites(network).values())


def check_trained(network: Network) -> None:
    """Refuse trained thresholds that are not positive."""
    for name, site in sites(network).items():
        if is_trained(site) and not bool((site.v_threshold > 0).all()):
            raise ValueError(
                f"the trained threshold at {name!r} is {float(site.v_threshold.min()):g}, but a neuron needs"
                " a positive one; train the source from a larger initial threshold (8) or with less decay"
            )


def thresholds_learn(network: Network) -> str:
    """Which thresholds fine-tuning of ``network`` changes, as half a sentence for a log."""
    learn = [is_trained(s) for s in sites(network).values()]
    if all(learn):
        return "thresholds learn with the weights"
    if not any(learn):
        return "thresholds stay as they were measured"
    return "trained thresholds learn with the weights, measured ones stay"
