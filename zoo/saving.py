"""A model into a folder: weights, description and card, whole or not at all."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from conversion import ConvertedModel
from zoo.classifier import SpikingModel
from zoo.files.card import write_card
from zoo.files.layout import (
    CARD_FILE,
    CONFIG_FILE,
    FIGURES,
    INDEX_FILE,
    SETTINGS_FILE,
    WEIGHTS_FILE,
    sha256_of,
)
from zoo.rebuild import architecture_of, rebuildable, unwrap
from zoo.registry import get_entry, is_registered
from zoo.timm_bridge.names import PLACES, timm_origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_SHARD = "5GB"  # above it the Hub advises several files; 10^9 bytes each


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    metrics: Mapping[str, float] | None = None,
    published: Mapping[str, float] | None = None,
    dataset: str | Mapping[str, str | None] | None = None,
    method: str | None = None,
    command: str | None = None,
    settings: str | None = None,
    seed: int | None = None,
    hardware: str | None = None,
    origin: Mapping[str, Any] | Literal["own"] | None = None,
    licence: str | None = None,
    limits: str | None = None,
    figures: Iterable[str | Path] = (),
    label_names: list[str] | None = None,
    pretrained_cfg: Mapping[str, Any] | None = None,
    max_shard_size: int | str = MAX_SHARD,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` into a folder.

    All are written next to the target first and moved into place when they are whole, so a full disk
    or a kill leaves what was there before as it was. ``zoo.load("local-dir:PATH")`` and
    ``timm.create_model("local-dir:PATH", pretrained=True)`` read the folder.

    Args:
        model: a model built by an entry, or one of timm's; wrappers of DDP and ``torch.compile`` are
            looked through.
        directory: target folder, made if absent.
        metrics: what the weights reach, e.g. ``{"test/acc1": 0.982, "test/acc1_t1": 0.91}``.
        published: the paper's figures for comparison.
        dataset: what they were trained on: a name, or a mapping with ``name``, ``hub_id``, ``licence``.
        method: how they came about: "STBP, cross-entropy of the mean logits".
        command: the command that trained them.
        settings: all its settings, as text; becomes ``training.yaml`` beside the weights.
        seed: its seed.
        hardware: what it ran on.
        origin: ``name``, ``licence`` and ``url`` of the weights that these derive from; missing: what the
            model was loaded with, for a network of timm what its configuration names; ``"own"``: none.
        licence: licence of the weights; missing: that of their origin.
        limits: what a user must know beyond what the card says by itself.
        figures: PNG files for the card.
        label_names: class names in the order of the logits; missing: those the model was loaded with.
        pretrained_cfg: corrections to preprocessing (mean, std, input_size, crop_pct).
        max_shard_size: weights above it go into several files with an index.

    Returns:
        The folder.

    Raises:
        NotRebuildableError: if a name and plain values do not suffice to build this model again.
        OSError: if the disk is full or not writable; nothing in the folder has changed then.
    """
    model = unwrap(model)
    arguments = rebuildable(model)
    target = Path(directory).expanduser()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file; zoo.save writes a folder")
    name = architecture_of(model)
    images = [Path(figure) for figure in figures]
    if origin is None:
        origin = getattr(model, "origin", None) or timm_origin(model)
    elif origin == "own":
        origin = None
    record: dict[str, Any] = {
        "version": _version(),
        "conversion": model.report.to_dict() if isinstance(model, ConvertedModel) else None,
        "time_steps": model.time_steps if isinstance(model, SpikingModel | ConvertedModel) else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "sha256": None,
        "metrics": dict(metrics or {}),
        "published": dict(published or {}),
        **_dataset(dataset),
        "method": method,
        "command": command,
        "settings": SETTINGS_FILE if settings is not None else None,
        "seed": seed,
        "hardware": hardware,
        "paper": _paper(model, name),
        "licence": licence or (origin or {}).get("licence"),
        "origin": None if origin is None else dict(origin),
        "limits": limits,
    }
    cfg = {**getattr(model, "pretrained_cfg", {}), **(pretrained_cfg or {})}
    config: dict[str, Any] = {
        "architecture": name,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "model_args": arguments,
        "pretrained_cfg": {
            **{k: v for k, v in cfg.items() if k not in PLACES},
            "num_classes": model.num_classes,
        },
        "fulgurite": record,
    }
    labels = label_names or getattr(model, "label_names", None)
    if labels is not None:
        if len(labels) != model.num_classes:
            raise ValueError(f"{len(labels)} label names for K = {model.num_classes} classes")
        config["label_names"] = list(labels)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        main = _write_weights(staging, model, name, max_shard_size)
        record["sha256"] = sha256_of(staging / main)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        _write(staging / CONFIG_FILE, text.encode())
        for image in images:
            (staging / FIGURES).mkdir(exist_ok=True)
            _write(staging / FIGURES / image.name, image.read_bytes())
        size = sum(p.stat().st_size for p in staging.glob("*.safetensors"))
        card = write_card(config, size=size, figures=sorted(p.name for p in images))
        _write(staging / CARD_FILE, card.encode())
        if settings is not None:
            _write(staging / SETTINGS_FILE, settings.encode())
        _move_into_place(staging, target, main)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise OSError(
            error.errno, f"could not save to {target}: {reason}; what was there is unchanged"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _paper(model: nn.Module, name: str) -> str | None:
    if isinstance(model, ConvertedModel):
        return model.method.paper
    return get_entry(name).paper if is_registered(name) else None


def _dataset(dataset: str | Mapping[str, str | None] | None) -> dict[str, str | None]:
    given: dict[str, str | None] = {"name": dataset} if isinstance(dataset, str) else dict(dataset or {})
    if unknown := sorted(set(given) - {"name", "hub_id", "licence"}):
        raise TypeError(f"dataset has no {unknown[0]!r}; accepted: name, hub_id, licence")
    return {
        "dataset": given.get("name"),
        "dataset_id": given.get("hub_id"),
        "dataset_licence": given.get("licence"),
    }


def _move_into_place(staging: Path, target: Path, main: str) -> None:
    """Weights before their description, whose hash tells a mixture; then what is left of older ones."""
    target.mkdir(exist_ok=True)
    shards = sorted(p.name for p in staging.glob("*.safetensors"))
    for name in [*shards, *([main] if main == INDEX_FILE else []), CONFIG_FILE, CARD_FILE]:
        os.replace(staging / name, target / name)
    for path in [*target.glob("model-*-of-*.safetensors"), target / WEIGHTS_FILE, target / INDEX_FILE]:
        if path.name not in (*shards, main):
            path.unlink(missing_ok=True)
    (target / SETTINGS_FILE).unlink(missing_ok=True)
    if (staging / SETTINGS_FILE).is_file():
        os.replace(staging / SETTINGS_FILE, target / SETTINGS_FILE)
    if (target / FIGURES).is_dir():
        shutil.rmtree(target / FIGURES)
    if (staging / FIGURES).is_dir():
        os.replace(staging / FIGURES, target / FIGURES)


def _write_weights(folder: Path, model: nn.Module, name: str, max_shard_size: int | str) -> str:
    """Write the tensors; the name of the file that leads to all of them."""
    from huggingface_hub import split_torch_state_dict_into_shards

    metadata = {"format": "pt", "fulgurite": name}
    state = {k: v.detach() for k, v in model.state_dict().items()}
    plan = split_torch_state_dict_into_shards(state, max_shard_size=max_shard_size)
    hashes = {}
    for file, keys in plan.filename_to_tensors.items():
        # copies of one shard at a time; tied tensors are untied, which the format demands
        part = {k: state[k].cpu().contiguous().clone() for k in keys}
        _write_tensors(folder / file, part, metadata)
        hashes[file] = sha256_of(folder / file)
    if not plan.is_sharded:
        return WEIGHTS_FILE
    total = sum(v.numel() * v.element_size() for v in state.values())
    index = {
        "metadata": {"total_size": total, "sha256": hashes},
        "weight_map": plan.tensor_to_filename,
    }
    _write(folder / INDEX_FILE, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode())
    return INDEX_FILE


def _write_tensors(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(errno.EIO, str(error), str(path)) from error
    with path.open("rb+") as file:
        _order_metadata(file)
        file.flush()
        os.fsync(file.fileno())


def _order_metadata(file: IO[bytes]) -> None:
    """Sort the metadata, which the library writes in a random order: equal weights, equal hash."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
    if len(text) == length:
        file.seek(8)
        file.write(text)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a full disk must show before anything is replaced


def _version() -> str:
    try:
        return importlib.metadata.version("fulgurite")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
