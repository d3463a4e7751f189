"""What is known about a set of trained weights: where they are, what they need, what they reach."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import CheckpointError
from zoo.files.checkpoint import weights_file
from zoo.files.description import read_description
from zoo.files.layout import CONFIG_FILE, FOLDER_VARIABLE, PACKAGED


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
        parameters: of the network, their number.
        licence: licence of the weights.
        paper: arXiv id.
        dataset: what they were trained on.
        published: the paper's metrics, by name, for comparison.
        metrics: our own metrics, by name, measured with the file at hand.
        measured: on what: ``split``, ``samples`` and more, see `zoo.files.description.Record`.
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
    parameters: int | None = None
    licence: str | None = None
    paper: str | None = None
    dataset: str | None = None
    published: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    seed: int | None = None
    model_args: dict[str, Any] = field(default_factory=dict)


def weights_folders() -> list[Path]:
    """Folders searched for ``NAME.TAG/``: the user's own (``FULGURITE_WEIGHTS``), then ours."""
    own = os.environ.get(FOLDER_VARIABLE)
    return [*([Path(own)] if own else []), PACKAGED]


def find_weights(name: str) -> dict[str, WeightsCfg]:
    """Weights of entry ``name`` that lie in `weights_folders`, by tag; a warning names broken ones."""
    found: dict[str, WeightsCfg] = {}
    for folder in weights_folders():
        for path in sorted(folder.glob(f"{name}.*")):
            tag = path.name.split(".", 1)[1]
            if tag in found or not (path / CONFIG_FILE).is_file():
                continue
            try:
                weights_file(path)
                found[tag] = read_weights_cfg(path)
            except FileNotFoundError:
                continue
            except (CheckpointError, OSError) as error:  # the others are none the worse for it
                warnings.warn(f"left out: {error}", stacklevel=2)
    return found


def read_weights_cfg(folder: Path) -> WeightsCfg:
    """The `WeightsCfg` that ``zoo.save`` recorded in ``folder/config.json``."""
    described = read_description(folder)
    own, size = described.recorded, described.pretrained_cfg.get("input_size")
    return WeightsCfg(
        file=str(folder),
        sha256=own.sha256,
        input_size=(int(size[0]), int(size[1]), int(size[2])) if size else None,
        time_steps=own.time_steps,
        num_classes=described.num_classes,
        parameters=own.parameters,
        licence=own.licence,
        paper=own.paper,
        dataset=own.dataset,
        published=dict(own.published),
        metrics=dict(own.metrics),
        measured=dict(own.measured),
        command=own.command,
        seed=own.seed,
        model_args=dict(described.model_args),
    )
