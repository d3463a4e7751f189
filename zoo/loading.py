"""Weights and descriptions of a folder into a model that has been built."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timm.models import adapt_input_conv

from conversion import ConvertedModel
from zoo.base import ZooModel
from zoo.classifier import ImageClassifier
from zoo.errors import CheckpointError
from zoo.files.checkpoint import read_checkpoint
from zoo.files.formats.torch_file import first_line
from zoo.files.strict import load_strict
from zoo.registry import task_of
from zoo.tasks import list_tasks
from zoo.timm_bridge.names import PLACES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from zoo.files.checkpoint import Checkpoint
    from zoo.files.description import Description
    from zoo.registry import Entry


def load_weights(
    model: nn.Module,
    path: str | Path,
    entry: Entry | None,
    *,
    explicit: Mapping[str, Any] | None = None,
    sha256: str | None = None,
) -> None:
    """Load a checkpoint of any accepted form strictly; on any error the model stays as it was.

    Args:
        model: the model to fill.
        path: ``.safetensors``, a torch file with tensors only, or a folder of ``zoo.save``.
        entry: its ``checkpoint_filter_fn`` maps foreign keys.
        explicit: arguments that the caller gave; with ``num_classes`` among them, a classifier of
            another size is left fresh, with a warning.
        sha256: hash the file must have.
    """
    fill(model, read_checkpoint(Path(path), sha256=sha256), str(path), entry, explicit)


def fill(
    model: nn.Module,
    found: Checkpoint,
    source: str,
    entry: Entry | None,
    explicit: Mapping[str, Any] | None = None,
) -> None:
    """`load_weights` with a checkpoint that has been read.

    Files that we wrote come back in their own precision; those of others only if they lose nothing in that
    of the network.
    """
    state, fresh = matched(model, found, entry, explicit)
    load_strict(model, state, source=source, allow_missing=fresh, adopt=found.ours)
    if fresh:
        warnings.warn(
            f"{source} was trained for another number of classes; the classifier of"
            f" {explicit['num_classes'] if explicit else '?'} classes starts from random weights",
            stacklevel=3,
        )
    if found.preprocessing:
        _tell(model, found.preprocessing)
    name_classes(model, found.label_names)
    set_task(model, found.task)
    if isinstance(model, ZooModel) and not found.ours:
        model.after_import()
        model.origin = {"name": Path(source).name, "licence": None, "url": None}
    elif isinstance(model, ZooModel | ConvertedModel) and found.origin is not None:
        model.origin = found.origin


def matched(
    model: nn.Module, found: Checkpoint, entry: Entry | None, explicit: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors under the network's own names, and the names that stay fresh.

    Raises:
        CheckpointError: the entry's filter cannot map them.
    """
    state = found.with_parts(entry.parts if entry is not None else ())
    if entry is not None and entry.checkpoint_filter_fn is not None:
        try:
            state = entry.checkpoint_filter_fn(state, model)
        except CheckpointError:
            raise
        except Exception as error:  # written for files with the authors' names and shapes
            raise CheckpointError(
                f"these weights do not fit {entry.name}: {type(error).__name__}: {first_line(error)}"
            ) from error
    if explicit and explicit.get("in_chans") is not None:
        _adapt_channels(model, state)
    fresh: set[str] = set()
    if explicit and explicit.get("num_classes") is not None and isinstance(model, ImageClassifier):
        fresh = _drop_other_classifier(model, state)
    return state, fresh


def _adapt_channels(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Sum or repeat the first convolution over its channels, as timm does, where the input has others."""
    cfg: Any = getattr(model, "default_cfg", None) or {}
    key = f"{cfg.get('first_conv')}.weight"
    own, given = model.state_dict().get(key), state.get(key)
    if own is None or given is None or own.dim() != 4 or given.dim() != 4:
        return
    if own.shape[1] != given.shape[1] and own.shape[0] == given.shape[0] and own.shape[2:] == given.shape[2:]:
        state[key] = adapt_input_conv(own.shape[1], given, base_chans=given.shape[1])


def _drop_other_classifier(model: ImageClassifier, state: dict[str, Tensor]) -> set[str]:
    """Take a classifier of another size out of ``state``; the names that then stay fresh."""
    prefix = model.classifier_name + "."
    own = {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    other = {k for k, v in own.items() if k in state and state[k].shape != v.shape}
    if not other and all(k in state for k in own):
        return set()
    for key in [k for k in state if k.startswith(prefix)]:
        del state[key]
    return set(own)


def adopt_description(
    model: nn.Module, described: Description, given: Mapping[str, Any] | None = None
) -> None:
    """Let the model know what its folder says of it: preprocessing, and names of the classes.

    Args:
        model: built from the folder's description.
        described: that description.
        given: arguments of the caller; another input than the folder's is one of these.
    """
    recorded, given = described.model_args, given or {}
    other_input = any(
        given.get(key) is not None and given[key] != recorded.get(key) for key in ("img_size", "in_chans")
    )
    told = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in described.pretrained_cfg.items()
        if key not in (*PLACES, "architecture")  # where its own file says weights lie is not asked
        and not (other_input and key in ("input_size", "mean", "std"))
    }
    classes = getattr(model, "num_classes", None)
    if classes is not None:
        told["num_classes"] = classes
    _tell(model, told)
    name_classes(model, described.label_names)
    set_task(model, described.recorded.task)


def recall_conversion(model: nn.Module, described: Description) -> None:
    """Let a converted network know how it was converted, once it has the weights that this gave."""
    if isinstance(model, ConvertedModel) and described.recorded.conversion is not None:
        model.report.recall(described.recorded.conversion, model)


def set_task(model: Any, task: str | None) -> None:
    """Let the model know what it was trained for, where that is something else than its entry is for.

    A task that is unknown here, as one that its author registered, is left alone.
    """
    if task in list_tasks() and task_of(model).name != task:
        model.task = task


def name_classes(model: Any, labels: list[str] | None) -> None:
    """Let the model know the names of its classes, if there is one for each of them."""
    if labels is not None and len(labels) == getattr(model, "num_classes", None):
        model.label_names = labels


def _tell(model: nn.Module, told: Mapping[str, Any]) -> None:
    cfg: Any = {**getattr(model, "pretrained_cfg", {}), **told}
    if isinstance(model, ConvertedModel):
        model.default_cfg = cfg
    else:
        model.pretrained_cfg = model.default_cfg = cfg
