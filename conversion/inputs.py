"""What a source takes, images, series, volumes, features or tokens, and samples of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from conversion.calibration.batches import reference_tensor, to_model
from conversion.graph.program import ConversionError
from conversion.graph.wrappers import logits_of
from conversion.network.units import axes_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

TOKENS = "int64"  # ``input_dtype`` in the recipe of a network that takes token numbers


def example(model: nn.Module, recipe: Mapping[str, Any]) -> Tensor:
    """Two samples of noise, or of token numbers, as a recipe has them: ``[2, ...]``."""
    size = tuple(int(s) for s in recipe["input_size"])
    return tokens(model, size) if recipe.get("input_dtype") == TOKENS else noise(model, size)


def noise(model: nn.Module, size: tuple[int, ...]) -> Tensor:
    """Two samples of noise ``[2, *size]``, on the device and in the dtype of ``model``."""
    generator = torch.Generator().manual_seed(0)
    return to_model(torch.randn(2, *size, generator=generator), reference_tensor(model))


def tokens(model: nn.Module, size: tuple[int, ...]) -> Tensor:
    """Two samples of random token numbers ``[2, *size]`` that every embedding of ``model`` knows."""
    known = min((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), default=1)
    numbers = torch.randint(known, (2, *size), generator=torch.Generator().manual_seed(0))
    return to_model(numbers, reference_tensor(model))


def takes_tokens(model: nn.Module, size: tuple[int, ...], batch: Tensor | None) -> bool:
    """Whether ``model`` takes token numbers: as the calibration data are, or where nothing else runs.

    Args:
        model: the source.
        size: of one sample.
        batch: of calibration data, if there are any.

    Raises:
        ConversionError: the source runs on neither, or returns no logits.
    """
    if batch is not None and not batch.is_floating_point():
        wanted = tokens(model, size)
        failure = _failure(model, wanted)
        if failure is not None:
            raise ConversionError(
                f"the source does not run on tokens {tuple(wanted.shape)}: {failure}"
            ) from failure
        return True
    wanted = noise(model, size)
    failure = _failure(model, wanted)
    if failure is not None:
        if batch is None and _failure(model, tokens(model, size)) is None:
            return True
        what, sizes = ("images", "(C, H, W)") if len(size) == 3 else ("inputs", "of one sample")
        raise ConversionError(
            f"the source does not run on {what} {axes_of(size)} = {tuple(wanted.shape)}: {failure}; give"
            f" calibration {what} or input_size={sizes} as the model takes them"
        ) from failure
    return False


def _failure(model: nn.Module, batch: Tensor) -> Exception | None:
    """The error with which ``model`` refuses ``batch``, None if it runs."""
    try:
        with torch.no_grad():
            output = model(batch)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        return error
    logits_of(output)
    return None
