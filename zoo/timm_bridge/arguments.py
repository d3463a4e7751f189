"""Which arguments a description may hand to timm: those that say what a network is made of."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo.errors import CheckpointError
from zoo.timm_bridge.names import no_timm

FACTS = (  # of ``pretrained_cfg``: what inputs and outputs are, none of which says where weights are
    "num_classes", "input_size", "fixed_input_size", "min_input_size", "pool_size", "test_input_size",
    "crop_pct", "test_crop_pct", "crop_mode", "interpolation", "mean", "std", "first_conv", "classifier",
    "license", "paper_ids", "paper_name", "description", "architecture", "tag", "origin_url",
)  # fmt: skip
COMMON = ("num_classes", "in_chans", "img_size", "global_pool", "drop_rate", "drop_path_rate", "time_steps")
BEYOND = re.compile(r"pretrained|checkpoint|cache|weights|url|file|hub|cfg|device|dtype|self|^(args|kwargs)$")
NAME = re.compile(r"\w+(\.\w+)?")


def check_timm(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what leads timm elsewhere: ``checkpoint_path``, ``pretrained_cfg``, names of repositories.

    Accepted are arguments of the constructors in the file of timm that the network is written in.

    Args:
        name: ``NAME`` or ``NAME.TAG``, without a source in front.
        arguments: of ``timm.create_model``, plain values.

    Raises:
        CheckpointError: timm has no such network, or an argument is not accepted.
    """
    import timm

    base = name.partition(".")[0]
    if not NAME.fullmatch(name) or not timm.is_model(base):
        raise CheckpointError(no_timm(name))
    accepted = constructor_arguments(sys.modules[timm.models.model_entrypoint(base).__module__].__dict__)
    for key, value in arguments.items():
        if key not in accepted:
            raise CheckpointError(
                f"a description must not set {key[:80]!r} of timm/{name}; it may say what the network is made"
                " of, such as " + ", ".join(COMMON[:5])
            )
        check_words(value, f"{key} of timm/{name}")


def constructor_arguments(names: Mapping[str, Any]) -> set[str]:
    """Arguments of all classifiers among ``names``, apart from those that reach beyond the network."""
    found = set(COMMON)
    for value in names.values():
        if inspect.isclass(value) and issubclass(value, nn.Module):
            parameters = set(inspect.signature(value.__init__).parameters)
            found |= parameters if "num_classes" in parameters else set()
    return {name for name in found if not BEYOND.search(name)}


def check_words(value: Any, where: str) -> None:
    """Refuse paths, addresses and names of repositories among plain values; see `check_plain`.

    Raises:
        CheckpointError: a text that could be one.
    """
    rows = [value]
    while rows:
        value = rows.pop()
        if isinstance(value, Mapping):
            rows += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            rows += value
        elif isinstance(value, str) and (re.search(r"[/\\:~\0]|\.\.", value) or value.startswith(".")):
            raise CheckpointError(
                f"{where} is {value[:200]!r}: a description names no paths, addresses or repositories;"
                " if you trust it, give what it means yourself"
            )
