"""Checkpoints of authors: which entry they are weights of, and a folder of ours made of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.classifier import ImageClassifier
from zoo.errors import CheckpointError
from zoo.files.checkpoint import Checkpoint, read_checkpoint
from zoo.files.layout import sha256_of
from zoo.interchange import from_snntorch
from zoo.loading import fill
from zoo.registry import Entry, get_entry, list_entries
from zoo.saving import save

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


SHOWN = 4  # keys of each kind, and entries, in a message


class UnrecognizedError(CheckpointError):
    """No entry, or more than one, fits the checkpoint; the message lists what does not."""


@dataclass(frozen=True)
class Fit:
    """How the tensors of a checkpoint fit an entry.

    Attributes:
        name: of the entry.
        arguments: with which it fits best: the user's, and K and C as the shapes tell them.
        missing: names that the network has and the file has not.
        unexpected: names that the file has and the network has not.
        misshapen: names of both with other shapes, and these.
        refusal: why the entry takes no such file at all; empty if it says nothing.
    """

    name: str
    arguments: dict[str, Any]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    refusal: str = ""

    @property
    def faults(self) -> int:
        """How many tensors do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshapen) + bool(self.refusal)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("misshapen", self.misshapen))
        parts = [
            f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
            for kind, keys in kinds
            if keys
        ]
        if self.refusal:
            return f"{self.name}: {self.refusal}"
        return f"{self.name}: {'; '.join(parts) or 'fits'}"


def fit(
    found: Mapping[str, Tensor] | Checkpoint, entry: Entry, arguments: Mapping[str, Any] | None = None
) -> Fit:
    """Compare a checkpoint with an entry, which is built on the meta device; its filter maps the keys.

    Args:
        found: tensors by name, or the file that was read, which may hold further parts of the network.
        entry: the entry.
        arguments: of the entry; ``num_classes`` and ``in_chans`` are read off the shapes unless given.
    """
    given = dict(arguments or {})
    state = found.with_parts(entry.parts) if isinstance(found, Checkpoint) else found
    model = _on_meta(entry, given)
    try:
        theirs = _mapped(state, entry, model)
    except CheckpointError as error:
        return replace(_compare(state, entry.name, model, given), refusal=str(error))
    first = _compare(theirs, entry.name, model, given)
    if "neuron" not in given and _hold_time_constants(first, theirs):
        return _with_neuron(found, entry, given, first)
    told = {k: v for k, v in _told_by_shapes(theirs, entry, model).items() if k not in given}
    if first.misshapen and told:
        model = _on_meta(entry, {**given, **told})
        better = _compare(_mapped(state, entry, model), entry.name, model, {**given, **told})
        return min(first, better, key=lambda one: one.faults)
    return first


def _hold_time_constants(one: Fit, state: Mapping[str, Tensor]) -> bool:
    """Whether all that is too much is ``w`` of PLIF neurons, one number each, as in SpikingJelly, too."""
    return bool(one.unexpected) and all(k.endswith(".w") and not state[k].dim() for k in one.unexpected)


def _with_neuron(
    found: Mapping[str, Tensor] | Checkpoint, entry: Entry, given: dict[str, Any], otherwise: Fit
) -> Fit:
    """The fit with PLIF neurons, or the one without where the entry takes no others."""
    try:
        better = fit(found, entry, {**given, "neuron": "plif"})
    except (TypeError, ValueError):
        return otherwise
    return min(otherwise, better, key=lambda one: one.faults)


def _on_meta(entry: Entry, arguments: Mapping[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return entry.fn(**arguments)


def _mapped(state: Mapping[str, Tensor], entry: Entry, model: nn.Module) -> dict[str, Tensor]:
    """The state in the entry's own names; as it is where the filter cannot read it."""
    if entry.checkpoint_filter_fn is None:
        return dict(state)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of matters when the weights are loaded
            return entry.checkpoint_filter_fn(dict(state), model)
    except CheckpointError:  # it can read the file, and will not have it
        raise
    except (KeyError, ValueError, RuntimeError, IndexError, TypeError):  # written for other files
        return dict(state)


def _compare(state: Mapping[str, Tensor], name: str, model: nn.Module, arguments: dict[str, Any]) -> Fit:
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in state.items()}
    return Fit(
        name=name,
        arguments=arguments,
        missing=tuple(k for k in own if k not in theirs),
        unexpected=tuple(k for k in theirs if k not in own),
        misshapen=tuple(
            f"{k}: {_shape(theirs[k])} for {_shape(own[k])}"
            for k in own
            if k in theirs and own[k] != theirs[k]
        ),
    )


def _told_by_shapes(state: Mapping[str, Tensor], entry: Entry, model: nn.Module) -> dict[str, int]:
    """K from the last weight of the classifier, C from the first convolution, where they are others."""
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    told: dict[str, int] = {}
    if not isinstance(model, ImageClassifier):
        return told
    head = [k for k in own if k.startswith(f"{model.classifier_name}.") and k.endswith("weight")]
    first = f"{entry.cfg.get('first_conv')}.weight"
    for label, key, axis in (("num_classes", head[-1] if head else "", 0), ("in_chans", first, 1)):
        if key in own and key in state and state[key].dim() == len(own[key]) > axis:
            size = int(state[key].shape[axis])
            if size != own[key][axis]:
                told[label] = size
    return told


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def recognize(
    found: Mapping[str, Tensor] | Checkpoint, arguments: Mapping[str, Any] | None = None
) -> list[Fit]:
    """How well every entry fits, the best first; those without faults can be loaded strictly.

    Args:
        found: what ``zoo.read_checkpoint(PATH)`` read, or tensors by name.
        arguments: of the entry, where the shapes do not tell them; entries that do not take them are left
            out.
    """
    fits = []
    for name in list_entries():
        try:
            fits.append(fit(found, get_entry(name), arguments))
        except (TypeError, ValueError):  # it has no such argument, or not such a value
            continue
        except ModuleNotFoundError:  # of a library that is not installed nothing can be compared
            continue
    return sorted(fits, key=lambda one: (one.faults, one.name))


def import_checkpoint(
    path: str | Path,
    directory: str | Path,
    name: str | None = None,
    *,
    licence: str | None = None,
    url: str | None = None,
    **arguments: Any,
) -> Path:
    """Turn a checkpoint file of authors into a folder of ours, whose card names its origin.

    Args:
        path: the file; nothing in it is run.
        directory: folder to write.
        name: the entry; missing: the one that the names and shapes of the tensors fit.
        licence: of the weights.
        url: where the file was published.
        **arguments: of the entry; K and C are read off the shapes unless given.

    Returns:
        The folder.

    Raises:
        UnrecognizedError: no entry fits, or several do; the message lists what does not fit.
        CheckpointError: the file cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; import takes a file, and zoo.load reads folders")
    found = read_checkpoint(path)
    if name in (None, from_snntorch.ENTRY) and from_snntorch.is_snntorch(found.state):
        name, arguments = from_snntorch.ENTRY, from_snntorch.arguments_of(found.state, arguments)
    chosen = _choose(path, found, name, arguments)
    entry = get_entry(chosen.name)
    model = entry.fn(**chosen.arguments)
    fill(model, found, str(path), entry)
    origin = {"name": path.name, "licence": licence, "url": url, "sha256": sha256_of(path)}
    return save(
        model.eval(),
        directory,
        method="weights of the authors' file, taken over by fulgurite import; nothing was trained here",
        origin=origin,
        licence=licence,
        limits="Nothing was measured with this copy; the file's own T may differ from the one above."
        + (
            ""
            if getattr(model, "levels_given", True)
            else f" Nor does it tell with how many levels L it was trained; L = {model.levels} was taken."
        ),
    )


def _choose(path: Path, read: Checkpoint, name: str | None, arguments: Mapping[str, Any]) -> Fit:
    if name is not None:
        found = fit(read, get_entry(name), arguments)
        if found.faults:
            fits = recognize(read, arguments)
            better = f"; it fits {fits[0].name}" if fits and not fits[0].faults else ""
            raise UnrecognizedError(f"{path} does not fit {found}{better}")
        return found
    fits = recognize(read, arguments)
    exact = [one for one in fits if not one.faults]
    if len(exact) == 1:
        return exact[0]
    if exact:
        raise UnrecognizedError(
            f"{path} fits {', '.join(one.name for one in exact)} alike: the tensors do not tell them apart;"
            f" name the right one: --as {exact[0].name}"
        )
    near = [*fits[:SHOWN], *[one for one in fits[SHOWN:] if one.refusal][:1]]
    lines = "\n".join(f"  {one}" for one in near)
    first = ", ".join(list(read.state)[:SHOWN])
    raise UnrecognizedError(
        f"{path} ({len(read.state)} tensors, the first are {first}) fits no entry; the nearest are\n{lines}\n"
        "If one of them is right, name it with --as and its arguments"
    )
