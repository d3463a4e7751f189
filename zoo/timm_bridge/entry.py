"""Our entries among timm's: ``timm.create_model(NAME)`` builds them after ``import zoo``."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from zoo.registry import Entry


def register(entry: Entry, build: Callable[[Entry, bool, dict[str, Any]], nn.Module]) -> None:
    """Make timm know an entry.

    Args:
        entry: the entry.
        build: ``build(entry, pretrained, arguments)``, called by ``timm.create_model``.

    Raises:
        ValueError: timm has a model of this name.
    """
    import timm.models
    from timm.models._pretrained import DefaultCfg, PretrainedCfg

    if timm.models.is_model(entry.name):
        # replacing timm's model would change the source of every conversion without a word
        raise ValueError(f"timm has a model named {entry.name!r}; prefix the family, e.g. 'spiking_'")

    @functools.wraps(entry.fn)
    def timm_entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(entry, pretrained, kwargs)

    module = sys.modules[entry.fn.__module__]
    defaults = vars(module).setdefault("default_cfgs", {})  # where timm's decorator looks
    default = DefaultCfg()
    default.tags.append("")
    default.cfgs[""] = PretrainedCfg(**entry.cfg)
    defaults[entry.name] = default
    timm.models.register_model(timm_entry)
