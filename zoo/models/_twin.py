"""The same entry built again with other arguments, for networks that can change their form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from zoo.classifier import ImageClassifier
from zoo.registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

M = TypeVar("M", bound=ImageClassifier)


def build_twin(model: M, state: Mapping[str, Tensor] | None = None, **changes: Any) -> M:
    """A copy in evaluation mode that was built with ``changes`` on the arguments of ``model``.

    Args:
        model: stays as it is.
        state: entries of the state dict in which the copy differs from ``model``.
        **changes: arguments of the entry.

    Raises:
        ValueError: no entry built the model, so that its arguments are not known.
    """
    if not model.architecture:
        raise ValueError(f"only a {type(model).__name__} that an entry of the zoo built can change its form")
    twin = get_entry(model.architecture).fn(**{**model.model_args, **changes})
    assert isinstance(twin, type(model))
    reference = next(model.parameters())
    known = {**model.state_dict(), **(state or {})}
    twin.to(reference.device, reference.dtype)
    twin.load_state_dict({key: known[key] for key in twin.state_dict()})
    return twin.eval()
