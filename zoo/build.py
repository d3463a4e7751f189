"""A class, the numbers of a variant and what the caller asked for -> a model that knows its name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from spiking.arguments import only_known
from zoo.argument_types import check_types
from zoo.base import ZooModel
from zoo.registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Mapping

M = TypeVar("M", bound=ZooModel)


def build_model(cls: type[M], name: str, variant: Mapping[str, Any], **kwargs: Any) -> M:
    """Build ``cls`` from the numbers of a variant and what the caller asked for.

    Args:
        cls: the model class.
        name: entry name, the name of the calling function.
        variant: arguments that make this entry what it is; ``kwargs`` win over them.
        **kwargs: the caller's arguments; ``None`` means the default. Unknown ones, and those of another
            type than the class declares, raise.

    Returns:
        A model with random weights in training mode, which knows its name and arguments.
    """
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    accepted = [p for p in inspect.signature(cls).parameters if p != "self"]
    only_known(name, kwargs, accepted)
    check_types(name, cls, kwargs)
    model = cls(**{**variant, **kwargs})
    model.architecture = name
    own = {key: getattr(model, key) for key in model.recorded if key in accepted}
    model.model_args = {**kwargs, **own}
    cfg = model.configuration(get_entry(name).cfg, kwargs)
    model.default_cfg = model.pretrained_cfg = {**cfg, "architecture": name}
    return model
