"""Whether a converted network is its source, spiking aside: what each conversion ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from conversion.exact import exact
from conversion.graph.program import ConversionError
from conversion.graph.wrappers import logits_of, unwrapped
from conversion.model import ConvertedModel
from conversion.network.site import bypassed, overridden
from spiking.functional.codes import running_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from conversion.network.network import Network

STEPS = 2
IMAGES = 2  # the fewest that tell samples from steps; together they are another batch than was exported
TOLERANCE = (
    1e-9  # of the largest logit; in float64 rounding stays below 1e-11 at any depth, see conversion.exact
)


def self_test(converted: Network, model: nn.Module, images: Tensor) -> float:
    """Compare the network with its neurons bypassed with the source.

    With steps that are all alike at every step, which is what a still image gives, and with steps that
    differ, as spikes do, over all of them: an operation wrongly run on every step alone, or a batch that is
    not what time was folded into, shows only then. Both compute as in `conversion.exact.exact`, in which
    rounding cannot be taken for a wrong rule, nor hide one.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        ConversionError: they differ.
    """
    model = unwrapped(model)
    with torch.no_grad(), exact(), converted.clock.running(STEPS):
        expected = logits_of(model(images))
        with bypassed(converted):
            steps = converted(images, steps=True)
        with overridden(converted, lambda name, site: site.analog_unevenly):
            spread = converted(images)
    if not bool(expected.isfinite().all()):
        raise ConversionError(
            f"the source itself gives {int((~expected.isfinite()).sum())} logits that are NaN or infinite;"
            " look for broken weights, or statistics of batch norm that were never set"
        )
    means = torch.cat([running_mean(steps)[0], spread.unsqueeze(0)])
    difference = _relative(means - expected, expected)
    if difference <= TOLERANCE:
        return difference
    _check_repeats(model, images, expected)
    limit = TOLERANCE + _rounded_weights(converted, model, images, expected)
    if not difference <= limit:
        raise ConversionError(
            f"self-test failed: with its neurons bypassed the converted network differs from the source by"
            f" {difference:.2e} of the largest logit (allowed: {limit:.1e}, in float64 and without jumps, so"
            " that it is not rounding); this is an error of the conversion rules, not of the data: please"
            " report the architecture"
        )
    return difference


def _relative(difference: Tensor, expected: Tensor) -> float:
    return float(difference.abs().max()) / float(expected.abs().max().clamp(min=1e-6))


def _check_repeats(model: nn.Module, images: Tensor, expected: Tensor) -> None:
    """Raise an error if the source is random, so that nothing can be compared with it."""
    with torch.no_grad(), exact():
        again = logits_of(model(images))
    difference = _relative(again - expected, expected)
    if difference > 0.0:
        raise ConversionError(
            f"the source gives two answers to the same images ({difference:.2e} of the largest logit apart);"
            " take out what is random in evaluation mode, such as dropout with training=True, or changes from"
            " call to call"
        )


def _rounded_weights(converted: Network, model: nn.Module, images: Tensor, expected: Tensor) -> float:
    """What it may change that folded batch norms leave weights that were rounded anew; 0 where none are.

    Several times what errors of one unit in the last place do in the source.
    """
    if not (isinstance(converted, ConvertedModel) and converted.recipe.get("fold_batch_norm")):
        return 0.0
    stored = next(converted.parameters()).dtype
    with torch.no_grad(), exact(noise=torch.finfo(stored).eps):
        rounded = logits_of(model(images))
    return 32 * _relative(rounded - expected, expected)
