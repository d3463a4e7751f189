"""Our entries among timm's: ``timm.create_model(NAME)`` builds them after ``import zoo``."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from zoo.registry import Entry


def register(entry: Entry, build: Callable[[Entry, bool, dict[str, Any]], nn.Module]) -> None:
    """Make timm know an entry, unless another package has given timm a model of this name.

    That one stays, with a warning: whoever registered it first counts on it. ``zoo.load`` and ``zoo.create``
    do not ask timm. Packages that come later replace ours in timm, of which timm warns.

    Args:
        entry: the entry.
        build: ``build(entry, pretrained, arguments)``, called by ``timm.create_model``.

    Raises:
        ValueError: timm itself has a model of this name.
    """
    import timm.models
    from timm.models._pretrained import DefaultCfg, PretrainedCfg

    if timm.models.is_model(entry.name):
        owner = timm.models.model_entrypoint(entry.name).__module__
        if owner.partition(".")[0] == "timm":
            # replacing timm's model would change the source of every conversion without a word
            raise ValueError(f"timm has a model named {entry.name!r}; prefix the family, e.g. 'spiking_'")
        warnings.warn(
            f"{owner} registered {entry.name!r} with timm before: timm.create_model builds that one,"
            " zoo.create and zoo.load build ours",
            stacklevel=2,
        )
        return

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
