"""What a training of text and images begins with: a model and a tokenizer, fresh, of a run, or published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zoo
from lightning_modules.source import checkpoint_of
from zoo.models.emu3_5.ibq import IBQ, load_ibq, tokenizer_of
from zoo.models.emu3_5.ibq.official import is_published as ibq_is_published
from zoo.models.emu3_5.official import is_published, load_emu3_5


def build_language_model(name: str, arguments: dict[str, Any]) -> Any:
    """A fresh entry, or a trained one where ``weights`` or ``pretrained`` ask for it, in training mode.

    Args:
        name: of the entry.
        arguments: of the entry; ``weights`` is a checkpoint, the folder of a run, or that of the published
            model, which is loaded in bfloat16.

    Raises:
        ValueError: an entry that writes no sequences, or sizes that the published files tell themselves.
    """
    arguments = dict(arguments)
    pretrained, weights = arguments.pop("pretrained", None), arguments.pop("weights", None)
    if weights is not None and is_published(Path(str(weights)).expanduser()):
        return _published(str(weights), arguments)
    if pretrained or weights is not None:
        place = None if weights is None else checkpoint_of(str(weights))
        return zoo.load(name, pretrained=pretrained or None, weights=place, **arguments).train()
    model = zoo.create(name, **arguments)
    if not hasattr(model, "vocabulary"):
        raise ValueError(f"{name} writes no sequences of text and images; emu3_5_tiny does")
    return model


def _published(folder: str, arguments: dict[str, Any]) -> Any:
    """The model of the authors' folder, in bfloat16, whose sizes are those of the files."""
    given = {key: value for key, value in arguments.items() if value is not None}
    given.pop("tokenizer", None)  # the task hands it over
    facts: dict[str, Any] = {key: given.pop(key) for key in ("grid", "noise") if key in given}
    attention = given.pop("attention", "sdpa")
    if given:
        raise ValueError(f"model_args: the files in {folder} tell {', '.join(given)}; leave it out")
    model = load_emu3_5(folder, attention=attention)
    if "grid" in facts:
        facts["grid"] = [int(side) for side in facts["grid"]]
    for name, value in facts.items():
        setattr(model, name, value)
    model.model_args = {**model.model_args, "attention": attention, **facts}
    return model.train()


def load_tokenizer(given: str | dict[str, Any]) -> IBQ:
    """The tokenizer of a run, of the zoo or of the published folder, or one that a checkpoint fills.

    Args:
        given: a place or a name; or ``model`` and ``model_args`` of an entry, as a checkpoint records them.

    Raises:
        ValueError: something else.
    """
    if isinstance(given, dict):
        return tokenizer_of(given)
    place = Path(given).expanduser()
    if ibq_is_published(place):
        return load_ibq(place)
    tokenizer: Any = zoo.load(str(checkpoint_of(given)) if place.is_dir() else given)
    if not isinstance(tokenizer, IBQ):
        raise ValueError(f"{given} is no tokenizer of images; one such as emu3_5_ibq_tiny is")
    return tokenizer
