"""How trained weights want their images, and whether the data module prepares them so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_modules.record import read_report
from zoo.files.description import NOTE, PREPROCESSING, noted_preprocessing, preprocessing_of, read_description
from zoo.files.formats.torch_file import read_torch
from zoo.files.layout import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Collection

CLOSE = 1e-3  # of means and standard deviations: what rounding in papers and files leaves


def match(
    data: Any, wanted: Mapping[str, Any], whose: str, *, fixed: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Let a data module prepare images as trained weights want them; warn where it cannot or may not.

    What the user chose stays, with one warning that names all differences. Of the rest, mean and standard
    deviation, interpolation, crop and size follow the weights, with one message.

    Args:
        data: a data module of images; others are left alone. Before its ``setup``.
        wanted: ``pretrained_cfg`` of the weights: ``mean``, ``std``, ``input_size`` (C, H, W),
            ``interpolation``, ``crop_pct``.
        whose: what the weights are called in messages.
        fixed: names that can no longer change, as something has been built from them.

    Returns:
        The differences that were mended, and those that stay, in words.
    """
    follow = getattr(data, "follow", None)
    mended: list[str] = []
    left: list[str] = []
    for name in PREPROCESSING:
        now, value = data.facts().get(name) if follow else None, wanted.get(name)
        if now is None or value is None or _same(now, value):
            continue
        words = f"{name} {_text(value)} (the data module: {_text(now)})"
        assert follow is not None
        (mended if name not in fixed and follow(name, value) else left).append(words)
    if mended:
        rank_zero_info(f"images are prepared as {whose} was trained with: {'; '.join(mended)}")
    if left:
        rank_zero_warn(
            f"{whose} was trained with {'; '.join(left)}: expect worse results than it can reach, unless that"
            " is intended; leave these settings of the data out, or set them to the former values"
        )
    return mended, left


def wanted_by(network: Any) -> dict[str, Any]:
    """The preprocessing that a network says its weights were trained with."""
    return preprocessing_of(getattr(network, "pretrained_cfg", None) or {})


def recorded_in(place: str | Path) -> dict[str, Any]:
    """The preprocessing that is recorded beside weights: in a folder of the zoo, in a checkpoint or its run.

    Args:
        place: a folder or a file; what is not there, or says nothing, gives nothing.
    """
    path = Path(place)
    folder = path if path.is_dir() else path.parent
    if path.suffix != ".ckpt":
        described = (folder / CONFIG_FILE).is_file()
        return preprocessing_of(read_description(folder).pretrained_cfg) if described else {}
    if not path.is_file():
        return {}
    content = read_torch(path)
    note = content.get(NOTE) if isinstance(content, Mapping) else None
    return noted_preprocessing(note or _of_run(folder.parent))


def _of_run(folder: Path) -> dict[str, Any]:
    """Of a checkpoint that is older than the record in it: what the training of this run wrote down."""
    try:
        return dict(read_report(folder)["training"]["data"])
    except (KeyError, TypeError, ValueError):
        return {}


def _same(now: Any, value: Any) -> bool:
    if isinstance(now, str) or isinstance(value, str):
        return bool(now == value)
    ours, theirs = (list(v) if isinstance(v, list | tuple) else [v] for v in (now, value))
    if len(ours) != len(theirs):
        return False
    return all(abs(a - b) <= CLOSE for a, b in zip(ours, theirs, strict=True))


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_text(v) for v in value) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
