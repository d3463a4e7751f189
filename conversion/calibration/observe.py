"""One pass over images with every site computing the source's activation, watched by an observer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from conversion.calibration.batches import reference_tensor, to_model
from conversion.calibration.fallback import Magnitudes
from conversion.calibration.histogram import Histogram
from conversion.calibration.trained import is_trained
from conversion.graph.program import ConversionError
from conversion.network.site import overridden, sites

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor

    from conversion.calibration.batches import Batches
    from conversion.network.network import Network
    from conversion.network.site import Site


def single_step(network: Network) -> AbstractContextManager[None]:
    """Within the block the network runs one step, so that steps, means and values are the same."""
    return network.clock.running(1)


def run_observed(
    network: Network, batches: Batches, label: str, watch: Callable[[str, Site, Tensor], Tensor]
) -> None:
    """Send all images through, ``watch`` in place of each neuron.

    Args:
        network: a converted network.
        batches: the images.
        label: of the progress bar.
        watch: ``f(path, site, currents [B, ...]) -> activations [B, ...]``.
    """

    def observer(name: str, site: Site) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            if not bool(x.isfinite().all()):
                raise ConversionError(
                    f"the signal in front of {name!r} has NaN or infinite values on the calibration images;"
                    " look for broken weights, and for images that are not normalised as for the source"
                )
            return watch(name, site, x[0]).unsqueeze(0)

        return run

    like = reference_tensor(network)
    with torch.no_grad(), single_step(network), overridden(network, observer):
        for images in batches.through(label):
            network(to_model(images, like))


def find_thresholds(network: Network, batches: Batches, rule: str, levels: int) -> None:
    """Set the threshold of every site that has no trained one.

    A site that is silent on all images gets the one of `conversion.calibration.fallback`, and says so at
    `Site.fallback`; single channels that are silent stay so.

    Args:
        network: a converted network.
        batches: the images.
        rule: see `check_rule`.
        levels: steps between 0 and the threshold, for the rule ``"mse"``.
    """
    share = check_rule(rule)
    todo = {n: s for n, s in sites(network).items() if not is_trained(s)}
    seen = {n: Histogram(s.v_threshold.shape[0] if s.channelwise else 1) for n, s in todo.items()}
    magnitudes = {n: Magnitudes() for n in todo}

    def watch(name: str, site: Site, x: Tensor) -> Tensor:
        y = site.analog(x)
        if name in seen:
            seen[name].add(y)
            magnitudes[name].add(x, y)
        return y

    run_observed(network, batches, "thresholds", watch)
    for name, site in todo.items():
        histogram = seen[name]
        theta = histogram.best_threshold(levels) if share is None else histogram.quantile(share)
        site.fallback = ""
        if not bool((theta > 0).any()):
            value, site.fallback = magnitudes[name].stand_in()
            theta = theta.new_full(theta.shape, value)
        site.v_threshold.copy_(theta.view_as(site.v_threshold).to(site.v_threshold))


def check_rule(rule: str) -> float | None:
    """The share of values below the threshold: 1 for ``"max"``, None for ``"mse"``.

    Args:
        rule: ``"max"``, a percentage such as ``"99.9%"``, or ``"mse"``, which makes the error of T equal
            steps least.
    """
    if rule == "mse":
        return None
    if rule == "max":
        return 1.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", str(rule))
    if found is None or not 0.0 < float(found[1]) <= 100.0:
        raise ValueError(f"threshold must be 'max', 'mse' or a percentage such as '99.9%', got {rule!r}")
    return float(found[1]) / 100.0
