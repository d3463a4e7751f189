"""The network that a conversion starts from, and the images that calibrate it, from plain values."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import zoo
from lightning_modules.preprocessing import recorded_in, wanted_by
from lightning_modules.record import read_report, split_text
from spiking.arguments import only_known
from zoo.files.checkpoint import weights_file
from zoo.files.layout import is_run, run_checkpoint, sha256_of
from zoo.rebuild import architecture_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance
    from torch import nn

S = TypeVar("S", bound="DataclassInstance")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A trained ANN that a conversion starts from.

    Attributes:
        model: what ``zoo.load`` takes (an entry, ``timm/NAME``, a checkpoint, ``local-dir:PATH``,
            ``hf-hub:OWNER/NAME``), or the folder of a run.
        model_args: its arguments.
        weights: a checkpoint, or the folder of a run.
        pretrained: False asks for random weights; otherwise there must be trained ones.
    """

    model: str
    model_args: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    pretrained: bool | None = None

    def load(self, num_classes: int | None = None, in_chans: int | None = None) -> nn.Module:
        """The network, in evaluation mode.

        >>> Source(model="qcfs_resnet20", pretrained=False).load(num_classes=5).num_classes
        5

        Args:
            num_classes: K of the data.
            in_chans: C of the data.

        Raises:
            ValueError: a contradiction, or a network that does not fit the data.
            FileNotFoundError: the weights are missing; names where they were looked for.
            zoo.UnknownModelError: no such entry.
            zoo.CheckpointError: a checkpoint that is damaged or does not fit.
        """
        name, place = self.model, _is_place(self.model)
        if place and ":" not in name:
            name = f"local-dir:{checkpoint_of(name)}"
        weights = None if self.weights is None else checkpoint_of(self.weights)
        arguments = self.model_args
        if not place and (weights is not None or self.pretrained is False):
            # what is built to size; weights that are published decide about their network themselves
            facts = {"num_classes": num_classes, "in_chans": in_chans}
            arguments = {k: v for k, v in facts.items() if v is not None} | arguments
        # a conversion of random weights is worth nothing, so they must be asked for
        pretrained = True if self.pretrained is None and weights is None else self.pretrained
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*starts from random weights.*")
            try:
                model = zoo.load(name, pretrained=pretrained, weights=weights, **arguments)
            except UserWarning as warning:
                raise ValueError(
                    f"{warning}; convert a source that was trained for these classes"
                ) from warning
        for label, wanted in (("num_classes", num_classes), ("in_chans", in_chans)):
            got = getattr(model, label, wanted)
            if wanted is not None and got != wanted:
                raise ValueError(
                    f"the source {self.model} has {label} = {got}, but the data have {label} = {wanted}"
                )
        return model

    def preprocessing(self, model: nn.Module) -> dict[str, Any]:
        """How the weights want their images, under timm's names; empty where nobody recorded it.

        Args:
            model: what `load` gave.
        """
        if self.pretrained is False:
            return {}
        place = self.weights or (self.model if _is_place(self.model) else None)
        if place is None or (":" in place and not place.startswith("local-dir:")):
            return wanted_by(model)
        return recorded_in(checkpoint_of(place.removeprefix("local-dir:")))

    def facts(self, network: Any) -> dict[str, Any]:
        """What a card says of the source: its architecture, the file of its weights, what it reached.

        Args:
            network: the source, or what it was converted to.
        """
        recipe = getattr(network, "recipe", None)
        named = (recipe["source"] or {}).get("architecture") if recipe else architecture_of(network)
        told: dict[str, Any] = {"name": named or self.model}
        given = self.weights or (self.model if _is_place(self.model) and ":" not in self.model else None)
        if given is None:
            origin = getattr(network, "origin", None) or {}
            return {
                **told,
                # what was asked for, where the network does not tell what it was loaded with
                "weights": origin.get("name") or (None if self.pretrained is False else self.model),
            }
        path = weights_file(Path(checkpoint_of(given)))
        told |= {"weights": given, "sha256": sha256_of(path)}
        return {**told, **_reached(Path(given), told["sha256"])}


def _reached(run: Path, sha256: str) -> dict[str, Any]:
    """The accuracy that the report of a run states for this checkpoint, and on what."""
    report = read_report(run)
    accuracy = (report.get("metrics") or {}).get("test/acc1")
    if accuracy is None or report.get("checkpoint_sha256") != sha256:
        return {}
    return {"accuracy": accuracy, "on": split_text(report.get("measured") or {})}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The images that a conversion measures thresholds and corrections on.

    Attributes:
        samples: how many of the training set; 0 are all.
        batch_size: that of evaluation if missing.
    """

    samples: int = 100
    batch_size: int | None = None

    def images(self, data: Any) -> Iterable[Any]:
        """Batches of the training part, seen as evaluation sees them.

        Args:
            data: the data module, set up.

        Raises:
            ValueError: a data module without such a loader.
        """
        make = getattr(data, "calibration_dataloader", None)
        if make is None:
            raise ValueError(
                f"{type(data).__name__} has no calibration_dataloader(samples, batch_size), which gives"
                " training images as evaluation sees them; derive it from datamodules.BaseDataModule"
            )
        loader: Iterable[Any] = make(self.samples, self.batch_size)
        return loader


def as_plain(label: str, kind: type[S], value: S | Mapping[str, Any]) -> S:
    """``value`` as an object of ``kind``, also if it comes as a mapping from a checkpoint or from Python.

    Raises:
        ValueError: an unknown or a missing key.
    """
    if isinstance(value, kind):
        return value
    assert isinstance(value, Mapping)
    only_known(label, value, [f.name for f in fields(kind)], "key", ValueError)
    try:
        return kind(**value)
    except TypeError as error:
        raise ValueError(f"{label}: {error}") from error


def _is_place(name: str) -> bool:
    """Whether ``name`` is a file, a folder or a repository rather than a name of the zoo or of timm."""
    if name.startswith("timm/") or zoo.is_registered(name):
        return False
    return Path(name).exists() or ":" in name or os.sep in name or name.endswith((".ckpt", ".safetensors"))


def checkpoint_of(name: str) -> str:
    """The best checkpoint of a run, if ``name`` is its folder; else ``name``."""
    folder = Path(name)
    if is_run(folder):
        return str(run_checkpoint(folder))
    if ":" not in name and not folder.exists():
        raise FileNotFoundError(
            f"no such file or folder: {name}; a run's folder appears once fulgurite fit has trained it"
        )
    return name
