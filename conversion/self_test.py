"""Whether a converted network is its source, spiking aside: what each conversion ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conversion.graph.program import ConversionError
from conversion.network.site import bypassed, overridden
from spiking.functional.codes import running_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from conversion.network.network import Network

STEPS = 3
TOLERANCE = 1e-3  # of the largest logit, in float32; what rounding adds up to stays far below


def self_test(converted: Network, model: nn.Module, images: Tensor) -> float:
    """Compare the network with its neurons bypassed with the source.

    With steps that are all alike at every step, which is what a still image gives, and with steps that
    differ, as spikes do, over all of them: an operation wrongly run on every step alone, or a batch that is
    not what time was folded into, shows only then.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        ConversionError: they differ.
    """
    with torch.no_grad(), converted.clock.running(STEPS):
        expected = model(images).double()
        with bypassed(converted):
            steps = converted(images, steps=True).double()
        with overridden(converted, lambda name, site: site.analog_unevenly):
            spread = converted(images).double()
    if not bool(expected.isfinite().all()):
        raise ConversionError(
            f"the source itself gives {int((~expected.isfinite()).sum())} logits that are NaN or infinite;"
            " look for broken weights, or statistics of batch norm that were never set"
        )
    means = torch.cat([running_mean(steps)[0], spread.unsqueeze(0)])
    scale = float(expected.abs().max().clamp(min=1e-6))
    difference = float((means - expected).abs().max()) / scale
    limit = TOLERANCE if images.dtype in (torch.float32, torch.float64) else 0.05
    if not difference <= limit:
        raise ConversionError(
            f"self-test failed: with its neurons bypassed the converted network differs from the source by"
            f" {difference:.2e} of the largest logit (allowed: {limit:g}); this is an error of the conversion"
            " rules, not of the data: please report the architecture"
        )
    return difference
