"""What is known about a set of trained weights: where they are, what they need, what they reach."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import CheckpointError

PACKAGED = Path(__file__).parents[1] / "weights"  # NAME.TAG/{model.safetensors,config.json}, in the wheel
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # where weights are in several files: which tensor is where
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
SETTINGS_FILE = "training.yaml"
FIGURES = "figures"
UNKNOWN = (None, "", "None", "unknown", "other")  # licences that say nothing
FOLDER_VARIABLE = "FULGURITE_WEIGHTS"
SHARD = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors")


@dataclass(frozen=True, kw_only=True)
class WeightsCfg:
    """One set of trained weights of one entry.

    Attributes:
        file: folder or file on this machine.
        url: where the weights can be fetched: ``hf-hub:OWNER/NAME@REV``.
        sha256: hash of the weights file, checked before anything is read from it.
        input_size: ``(C, H, W)`` that the weights were trained for.
        time_steps: T that the weights were trained for.
        num_classes: K of the classifier.
        licence: licence of the weights.
        paper: arXiv id.
        dataset: what they were trained on.
        published: the paper's metrics, by name, for comparison.
        metrics: our own metrics, by name, measured with the file at hand.
        command: the command that made the file.
        seed: its seed.
        model_args: arguments of the entry that the weights need.
    """

    file: str | None = None
    url: str | None = None
    sha256: str | None = None
    input_size: tuple[int, int, int] | None = None
    time_steps: int | None = None
    num_classes: int | None = None
    licence: str | None = None
    paper: str | None = None
    dataset: str | None = None
    published: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    command: str | None = None
    seed: int | None = None
    model_args: dict[str, Any] = field(default_factory=dict)


def weights_folders() -> list[Path]:
    """Folders searched for ``NAME.TAG/``: the user's own (``FULGURITE_WEIGHTS``), then ours."""
    own = os.environ.get(FOLDER_VARIABLE)
    return [*([Path(own)] if own else []), PACKAGED]


def find_weights(name: str) -> dict[str, WeightsCfg]:
    """Weights of entry ``name`` that lie in `weights_folders`, by tag."""
    found: dict[str, WeightsCfg] = {}
    for folder in weights_folders():
        for path in sorted(folder.glob(f"{name}.*")):
            if (path / CONFIG_FILE).is_file() and (path / WEIGHTS_FILE).is_file():
                found.setdefault(path.name.split(".", 1)[1], read_weights_cfg(path))
    return found


def read_weights_cfg(folder: Path) -> WeightsCfg:
    """The `WeightsCfg` that ``zoo.save`` recorded in ``folder/config.json``."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    own = config.get("fulgurite") or {}
    size = (config.get("pretrained_cfg") or {}).get("input_size")
    return WeightsCfg(
        file=str(folder),
        sha256=own.get("sha256"),
        input_size=(int(size[0]), int(size[1]), int(size[2])) if size else None,
        time_steps=own.get("time_steps"),
        num_classes=config.get("num_classes"),
        licence=own.get("licence"),
        paper=own.get("paper"),
        dataset=own.get("dataset"),
        published=dict(own.get("published") or {}),
        metrics=dict(own.get("metrics") or {}),
        command=own.get("command"),
        seed=own.get("seed"),
        model_args=dict(config.get("model_args") or {}),
    )


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def check_shard_names(index: Path) -> dict[str, str]:
    """Files that an index of weights names, and their SHA-256, in order (empty where it states none).

    Raises:
        CheckpointError: if it is no index, or a name leads out of its folder.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = sorted({str(name) for name in content["weight_map"].values()})
        hashes = dict((content.get("metadata") or {}).get("sha256") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of weights: {error!r}") from error
    for name in names:
        if not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{index} names the file {name!r}, which is no plain name of a .safetensors file beside it;"
                " it is refused"
            )
    return {name: str(hashes.get(name, "")) for name in names}
