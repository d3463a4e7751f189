"""A model into a folder that tells how to build it again."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion import ConvertedModel
from spiking.measure.finite import damaged, listed
from zoo.errors import CheckpointError
from zoo.files.description import Description, Origin, Record
from zoo.files.folder import Content, write_folder
from zoo.files.layout import SETTINGS_FILE
from zoo.files.provenance import Provenance
from zoo.files.tensors import MAX_SHARD
from zoo.rebuild import architecture_of, rebuildable, runs_over_time, unwrap
from zoo.registry import get_entry, is_registered, task_of
from zoo.timm_bridge.names import PLACES, timm_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def save(
    model: nn.Module,
    directory: str | Path,
    provenance: Provenance | None = None,
    *,
    max_shard_size: int | str = MAX_SHARD,
    compact: bool = False,
    **facts: Any,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` into a folder.

    All are written aside first, and renaming ``config.json``, which knows the hashes of the others, goes over
    to them: a full disk or a kill leaves the old network or the new one. Nothing that ``zoo.save`` did not
    write is replaced or removed, nor what was changed since. ``zoo.load("local-dir:PATH")`` and, for
    classifiers, ``timm.create_model("local-dir:PATH", pretrained=True)`` read the folder.

    Args:
        model: a model built by an entry, or one of timm's; wrappers of DDP and ``torch.compile`` are
            looked through.
        directory: target folder, made if absent.
        provenance: what is known about the weights.
        max_shard_size: weights above it go into several files with an index.
        compact: write float32 tensors that float16 holds exactly as float16, in half the space; the network
            that is loaded is float32 again. ``model.half().float()`` rounds all of them, before you measure.
        **facts: attributes of `zoo.Provenance` by keyword, such as ``licence="mit"`` or
            ``metrics={"test/acc1": 0.98}``.

    Returns:
        The folder.

    Raises:
        NotRebuildableError: if a name and plain values do not suffice to build this model again.
        CheckpointError: weights are NaN, infinite, or a negative variance.
        TypeError: a fact is none that `zoo.Provenance` has.
        FileExistsError: if a file that ``zoo.save`` did not write is in the way.
        OSError: if the disk is full or not writable; the message says whether anything has changed.
    """
    told = Provenance.of(provenance, **facts)
    model = unwrap(model)
    arguments = rebuildable(model)
    state = {k: v.detach() for k, v in model.state_dict().items()}
    if wrong := damaged(state.items(), model):
        raise CheckpointError(f"{listed(wrong)}; {type(model).__name__} is not saved")
    target = Path(directory).expanduser()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; zoo.save writes a folder")
    content = Content(
        description=_describe(model, arguments, told),
        state=state,
        figures=[Path(figure) for figure in told.figures],
        settings=told.settings,
        max_shard_size=max_shard_size,
        compact=compact,
    )
    write_folder(target, content)
    return target


def _describe(model: nn.Module, arguments: dict[str, Any], told: Provenance) -> Description:
    """What is written about a model; of its weights all but the hash."""
    classes = getattr(model, "num_classes", None)
    cfg = {**getattr(model, "pretrained_cfg", {}), **(told.pretrained_cfg or {})}
    cfg = {k: v for k, v in cfg.items() if k not in PLACES}
    if classes is not None:
        cfg["num_classes"] = classes
    labels = told.label_names or getattr(model, "label_names", None)
    if labels is not None and len(labels) != classes:
        raise ValueError(f"{len(labels)} label names for K = {classes} classes")
    return Description(
        architecture=architecture_of(model),
        num_classes=classes,
        num_features=getattr(model, "num_features", None),
        model_args=arguments,
        pretrained_cfg=cfg,
        record=_record(model, told),
        label_names=None if labels is None else list(labels),
    )


def _record(model: nn.Module, told: Provenance) -> Record:
    data = told.data()
    origin = _origin(model, told)
    steps = getattr(model, "time_steps", None)
    return Record(
        version=version_of(),
        task=task_of(model).name,
        conversion=model.report.to_dict() if isinstance(model, ConvertedModel) else None,
        time_steps=steps if runs_over_time(model) else None,
        parameters=sum(p.numel() for p in model.parameters()),
        metrics=dict(told.metrics or {}),
        measured=dict(told.measured or {}),
        training=dict(told.training or {}),
        source=_source(model, told),
        published=dict(told.published or {}),
        dataset=data["name"],
        dataset_id=data["hub_id"],
        dataset_licence=data["licence"],
        method=told.method,
        command=told.command,
        settings=SETTINGS_FILE if told.settings is not None else None,
        seed=told.seed,
        hardware=told.hardware,
        paper=_paper(model),
        licence=told.licence or (origin.licence if origin else None),
        origin=origin,
        limits=told.limits,
    )


def _origin(model: nn.Module, told: Provenance) -> Origin | None:
    """What the caller says, or what the model was loaded with."""
    if told.origin == "own":
        return None
    found: Mapping[str, Any] | None = told.origin or getattr(model, "origin", None)
    if found is None:
        found = timm_origin(model)
    return Origin.from_dict(found, "origin") if found else None


def _source(model: nn.Module, told: Provenance) -> dict[str, Any] | None:
    """What a converted network was made of."""
    if not isinstance(model, ConvertedModel):
        return None
    named = (model.recipe["source"] or {}).get("architecture")
    origin = getattr(model, "origin", None) or {}
    return dict(told.source or {"name": named, "weights": origin.get("name"), "sha256": origin.get("sha256")})


def _paper(model: nn.Module) -> str | None:
    if isinstance(model, ConvertedModel):
        return model.method.paper
    name = architecture_of(model)
    return get_entry(name).paper if is_registered(name) else None


def version_of(name: str = "fulgurite") -> str:
    """Of an installed package; ``"unknown"`` if it is not."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
