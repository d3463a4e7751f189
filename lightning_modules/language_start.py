"""What a training of text and images begins with: a model and a tokenizer, fresh, of a run, or published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zoo
from lightning_modules.source import checkpoint_of
from zoo.models.emu3_5.ibq import IBQ, Codec, load_ibq
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
    facts = {key: given.pop(key) for key in ("grid", "noise") if key in given}
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


def load_tokenizer(given: str | dict[str, Any], codes: int) -> Codec:
    """The tokenizer of a run, of the zoo or of the published folder, or one that a checkpoint fills.

    Args:
        given: a place or a name; or ``model`` and ``model_args`` of an entry, as a checkpoint records them.
        codes: number of image codes that the language model has.

    Raises:
        ValueError: something else, or a tokenizer with another number of codes.
    """
    tokenizer: Any
    if isinstance(given, dict):  # from a checkpoint, which fills it
        name = str(given["model"])
        tokenizer = zoo.create(name, **given["model_args"])
    else:
        name = given
        place = Path(name).expanduser()
        if ibq_is_published(place):
            return _fitting(load_ibq(place), name, codes)
        tokenizer = zoo.load(str(checkpoint_of(name)) if place.is_dir() else name)
    return _fitting(tokenizer, name, codes)


def _fitting(tokenizer: Any, name: str, codes: int) -> Codec:
    if not isinstance(tokenizer, IBQ):
        raise ValueError(f"{name} is no tokenizer of images; one such as emu3_5_ibq_tiny is")
    if tokenizer.codes != codes:
        raise ValueError(
            f"the tokenizer {name} has {tokenizer.codes} codes and the model {codes}; "
            f"set model_args.visual_codes to {tokenizer.codes}"
        )
    return Codec(tokenizer)
