"""``config.json``: what network lies in a folder, and what was recorded about its weights.

The file is a superset of timm's (``architecture``, ``num_classes``, ``num_features``, ``model_args``,
``pretrained_cfg``, ``label_names``), so that timm opens our folders; the part ``fulgurite`` is our own. Keys
that this version does not know are kept as they are. Version 1 had no ``schema`` and no ``task``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from zoo.errors import CheckpointError
from zoo.files.formats.json_file import check_plain, read_json
from zoo.files.layout import CONFIG_FILE, PART

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2
PREPROCESSING = ("input_size", "mean", "std", "interpolation", "crop_pct")  # of ``pretrained_cfg``
LARGEST_SIDE = 1 << 14  # pixels
NOTE = "preprocessing"  # of a run's checkpoint: the same
LABELS = "label_names"  # of a run's checkpoint: names of the classes
TASK = "task"  # of a run's checkpoint: what its network is for
OTHERS = (("model_type", "transformers"), ("_class_name", "diffusers"), ("model_cfg", "open_clip"))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The weights that these derive from.

    Attributes:
        name: of the model or file.
        licence: of those weights.
        url: where they were published.
        sha256: of their file.
    """

    name: str | None = None
    licence: str | None = None
    url: str | None = None
    sha256: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Self:
        """See `Description.from_dict`."""
        return cls(**_read(cls, content, where))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a hash only if there is one."""
        told = _plain(self)
        return told if self.sha256 else {k: v for k, v in told.items() if k != "sha256"}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was recorded about weights.

    Attributes:
        version: of the program that wrote it.
        task: name of a `zoo.tasks.Task`.
        conversion: report of the conversion that made the network, if one did.
        time_steps: T, of a network that runs over time.
        parameters: their number.
        sha256: of the file with the weights, or of their index.
        metrics: what they reach, by logged name.
        measured: on what: ``data``, ``split``, ``samples``, ``of`` (all of the split), ``energy_samples``,
            ``energy_constants`` (a paper's, pJ), ``command``, ``precision``, ``hardware``, and ``chosen``,
            whether the same samples chose the checkpoint.
        training: ``samples``, ``part`` (options that left out some), ``minutes``, ``resumed`` (further
            commands) and ``versions`` of programs.
        source: of a conversion: ``name``, ``weights``, their ``sha256``.
        published: the paper's figures.
        dataset: name of the data.
        dataset_id: their name on the Hub.
        dataset_licence: their licence.
        method: how the weights came about.
        command: the command that made them.
        settings: file with all its settings.
        seed: its seed.
        hardware: what it ran on.
        paper: arXiv id.
        licence: of the weights.
        origin: the weights that these derive from.
        limits: what users must know.
        files: what was written beside weights and description, by name, and the SHA-256 of each.
    """

    version: str = "unknown"
    task: str = "classification"
    conversion: Mapping[str, Any] | None = None
    time_steps: int | None = None
    parameters: int | None = None
    sha256: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    dataset: str | None = None
    dataset_id: str | None = None
    dataset_licence: str | None = None
    method: str | None = None
    command: str | None = None
    settings: str | None = None
    seed: int | None = None
    hardware: str | None = None
    paper: str | None = None
    licence: str | None = None
    origin: Origin | None = None
    limits: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Self:
        """See `Description.from_dict`."""
        schema = content.get("schema", 1)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise CheckpointError(
                f"{where} has schema {schema!r}, this version reads up to {SCHEMA}: pip install -U fulgurite"
            )
        told = _read(cls, content, f"{where}, {PART!r}")
        told["further"].pop("schema", None)
        if told.get("origin") is not None:
            told["origin"] = Origin.from_dict(told["origin"], f"{where}, 'origin'")
        for name in ("metrics", "published"):
            for key, value in told.get(name, {}).items():
                if not isinstance(value, float) and not (isinstance(value, int) and abs(value) < 1 << 63):
                    raise CheckpointError(f"{where} is no model description: {name} {key!r} is no number")
        return cls(**told)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the number of the schema."""
        told = _plain(self)
        told["origin"] = None if self.origin is None else self.origin.to_dict()
        return {"schema": SCHEMA, **told}


@dataclass(frozen=True, kw_only=True)
class Description:
    """A whole ``config.json``.

    Attributes:
        architecture: name of the entry, ours or timm's.
        num_classes: K, of a classifier.
        num_features: width of what its head takes.
        model_args: arguments of the entry.
        pretrained_cfg: what the weights expect of inputs, under timm's names.
        record: our own part; None in a folder that timm wrote.
        label_names: of the classes, in the order of the logits.
        further: what else the file holds.
    """

    architecture: str
    num_classes: int | None = None
    num_features: int | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    pretrained_cfg: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None
    label_names: list[str] | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Any, where: str = CONFIG_FILE) -> Self:
        """Read plain values.

        Args:
            content: of the file.
            where: the file, for messages.

        Raises:
            CheckpointError: it describes no network of ours or timm's, or a value is of another type.
        """
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{where} is no model description: it holds a {type(content).__name__}")
        if not isinstance(content.get("architecture"), str):
            raise _foreign(content, where)
        told = _read(cls, content, where, without=("record",))
        own = told["further"].pop(PART, None)
        if own is not None:
            if not isinstance(own, Mapping):
                raise CheckpointError(f"{where} is no model description: {PART!r} is no mapping")
            told["record"] = Record.from_dict(own, where)
        if told.get("label_names") is not None:
            told["label_names"] = [str(label) for label in told["label_names"]]
        described = cls(**told)
        check_plain(described.model_args, f"{where}, 'model_args'")
        _check_preprocessing(described.pretrained_cfg, f"{where}, 'pretrained_cfg'")
        _check_conversion(described, where)
        return described

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are written; what only classifiers have is left out where it is unknown."""
        told = _plain(self)
        told.pop("record")
        for key in ("num_classes", "num_features", "label_names"):
            if told[key] is None:
                del told[key]
        labels = told.pop("label_names", None)
        own = {} if self.record is None else {PART: self.record.to_dict()}
        return {**told, **own, **({} if labels is None else {"label_names": labels})}

    def to_json(self) -> bytes:
        """The content of the file."""
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()

    @property
    def recorded(self) -> Record:
        """Our own part; an empty one where timm wrote the file."""
        return self.record or Record()


def preprocessing_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``pretrained_cfg`` that the facts of a data module tell, as its ``describe`` gives them."""
    return {key: facts[key] for key in PREPROCESSING if facts.get(key) is not None}


def noted_preprocessing(content: Any) -> dict[str, Any]:
    """The part of ``pretrained_cfg`` that a run's checkpoint notes, as far as it is plain values.

    Args:
        content: what the checkpoint has under `NOTE`.
    """
    told: dict[str, Any] = {}
    for key, value in preprocessing_of(content if isinstance(content, Mapping) else {}).items():
        row = tuple(value) if isinstance(value, list | tuple) else (value,)
        if key == "interpolation":
            kind: tuple[type, ...] = (str,)
        else:
            kind = (int,) if key == "input_size" else (int, float)
        if row and all(isinstance(v, kind) and not isinstance(v, bool) for v in row):
            told[key] = row if isinstance(value, list | tuple) else value
    return told


def read_description(folder: Path, where: str | None = None) -> Description:
    """The description in a folder.

    Args:
        folder: the folder.
        where: what messages call the file.

    Raises:
        CheckpointError: see `Description.from_dict`.
        FileNotFoundError: there is none.
    """
    path = folder / CONFIG_FILE
    return Description.from_dict(read_json(path, "model description"), where or str(path))


KINDS: dict[str, tuple[type, ...]] = {  # what a value may be, by the first word of its field's type
    "str": (str,),
    "int": (int,),
    "list": (list,),
    "Mapping": (Mapping,),
    "Origin": (Mapping,),
}


def _read(cls: type, content: Mapping[str, Any], where: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arguments of the dataclass ``cls``: known keys, checked; the others under ``further``."""
    named = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    known = {name: kind for name, kind in named.items() if name not in ("further", *without)}
    told: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known or (value is None and "None" not in known[key]):
            continue
        kind = KINDS[known[key].split("[")[0].split(" ")[0]]
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise CheckpointError(
                f"{where} is no model description: {key!r} is a {type(value).__name__}, expected {known[key]}"
            )
        told[key] = value
    return {**told, "further": {k: v for k, v in content.items() if k not in known}}


def _check_preprocessing(cfg: Mapping[str, Any], where: str) -> None:
    """Refuse what no image can be brought into."""
    check_plain(cfg, where)
    size = cfg.get("input_size")
    if size is not None and not (
        isinstance(size, list | tuple) and len(size) == 3 and all(map(_is_size, size))
    ):
        raise CheckpointError(f"{where}: input_size is {size!r}, expected C, H and W up to {LARGEST_SIDE}")
    for key in ("mean", "std"):
        values = cfg.get(key)
        if values is None:
            continue
        if not isinstance(values, list | tuple) or not all(map(_is_number, values)):
            raise CheckpointError(f"{where}: {key} is {values!r}, expected a number for each channel")
        if key == "std" and not all(values):
            raise CheckpointError(f"{where}: std is {values!r}, and nothing can be divided by 0")
    crop = cfg.get("crop_pct")
    if crop is not None and not (_is_number(crop) and crop > 0):
        raise CheckpointError(f"{where}: crop_pct is {crop!r}, expected a number above 0")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_SIDE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_conversion(described: Description, where: str) -> None:
    """Refuse a conversion that does not name its method and its source."""
    if described.recorded.conversion is None:
        return
    source = described.model_args.get("source")
    named = isinstance(source, Mapping) and isinstance(source.get("architecture"), str)
    methods = (described.recorded.conversion.get("method"), described.model_args.get("method"))
    if not named or not all(isinstance(method, str) for method in methods):
        raise CheckpointError(f"{where} is no model description: the conversion names no source or no method")


def _plain(described: Any) -> dict[str, Any]:
    """Fields by name, mappings as dictionaries, ``further`` behind them."""
    told = {f.name: getattr(described, f.name) for f in dataclasses.fields(described)}
    further = told.pop("further")
    return {**{k: dict(v) if isinstance(v, Mapping) else v for k, v in told.items()}, **further}


def _foreign(content: Mapping[str, Any], where: str) -> CheckpointError:
    """The error for a configuration that is not ours, saying whose it looks like."""
    for key, owner in OTHERS:
        if key in content:
            return CheckpointError(
                f"{where} is no model description of ours or timm's: it looks like one of {owner}"
                f" ({key}: {content[key]!r}), whose networks this zoo does not build; load it with {owner},"
                " or, if an entry has this architecture, zoo.load(NAME, weights=FILE)"
            )
    return CheckpointError(
        f"{where} is no model description: it names no 'architecture' (it has:"
        f" {', '.join(list(content)[:8]) or 'nothing'}); if you know the network,"
        " zoo.load(NAME, weights=FILE)"
    )
