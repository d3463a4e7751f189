"""A model into a folder: weights, description and card, whole or not at all."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from zoo._base import ZooModel
from zoo._card import write_card
from zoo._registry import get_entry, is_registered
from zoo._weights import CONFIG_FILE, WEIGHTS_FILE, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD_FILE = "README.md"


class NotRebuildableError(ValueError):
    """The model cannot be built again from a name and plain values, so it cannot be saved."""


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
    command: str | None = None,
    seed: int | None = None,
    licence: str | None = None,
    published: Mapping[str, float] | None = None,
    label_names: list[str] | None = None,
    pretrained_cfg: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` into a folder.

    All three are written next to the target first and moved into place when they are whole, so a
    full disk or a kill leaves what was there before as it was. ``zoo.load("local-dir:PATH")`` and
    ``timm.create_model("local-dir:PATH", pretrained=True)`` read the folder.

    Args:
        model: a model built by an entry; wrappers of DDP and ``torch.compile`` are looked through.
        directory: target folder, made if absent.
        metrics: what the weights reach, e.g. ``{"test/acc1": 0.982}``.
        dataset: what they were trained on.
        command: the command that trained them.
        seed: its seed.
        licence: licence of the weights.
        published: the paper's figures for comparison.
        label_names: class names in the order of the logits.
        pretrained_cfg: corrections to preprocessing (mean, std, input_size, crop_pct).

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
    entry = get_entry(str(model.architecture))
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {"format": "pt", "fulgurite": str(model.architecture)}
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _write(staging / WEIGHTS_FILE, safetensors_bytes(state, metadata=metadata))
        size = (staging / WEIGHTS_FILE).stat().st_size
        own = {
            "version": _version(),
            "conversion": None,
            "time_steps": model.time_steps,
            "sha256": sha256_of(staging / WEIGHTS_FILE),
            "metrics": dict(metrics or {}),
            "published": dict(published or {}),
            "dataset": dataset,
            "command": command,
            "seed": seed,
            "paper": entry.paper,
            "licence": licence,
        }
        cfg = {**getattr(model, "pretrained_cfg", {}), **(pretrained_cfg or {})}
        config: dict[str, Any] = {
            "architecture": model.architecture,
            "num_classes": model.num_classes,
            "num_features": model.num_features,
            "model_args": arguments,
            "pretrained_cfg": {**cfg, "num_classes": model.num_classes},
            "fulgurite": own,
        }
        if label_names is not None:
            config["label_names"] = list(label_names)
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        _write(staging / CONFIG_FILE, text.encode())
        _write(staging / CARD_FILE, write_card(model, config, size).encode())
        target.mkdir(exist_ok=True)
        for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
            os.replace(staging / name, target / name)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise OSError(
            error.errno, f"could not save to {target}: {reason}; what was there is unchanged"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def unwrap(model: nn.Module) -> Any:
    """The model inside DDP and ``torch.compile`` wrappers."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def rebuildable(model: nn.Module) -> dict[str, Any]:
    """The plain arguments from which the entry builds ``model`` again; checked by doing it."""
    way_out = (
        "register a function that builds it from plain values with zoo.register_model, build it"
        " through zoo.create, and save that"
    )
    name = getattr(model, "architecture", "")
    if not isinstance(model, ZooModel) or not name or not is_registered(name):
        raise NotRebuildableError(
            f"{type(model).__name__} was not built by an entry of the zoo, so nobody could load it"
            f" again; {way_out}"
        )
    arguments = dict(model.model_args)
    if "time_steps" in arguments:  # may have been changed since
        arguments["time_steps"] = model.time_steps
    for key, value in arguments.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise NotRebuildableError(
                f"argument {key}={value!r} of {name} is no plain value; {way_out}"
            ) from error
    arguments = json.loads(json.dumps(arguments))
    with torch.device("meta"):
        twin = get_entry(name).fn(**arguments)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    twin_shapes = {k: tuple(v.shape) for k, v in twin.state_dict().items()}
    differing = sorted(k for k in {*shapes, *twin_shapes} if shapes.get(k) != twin_shapes.get(k))
    lines, twin_lines = repr(model).splitlines(), repr(twin).splitlines()
    if lines != twin_lines:
        differing += [
            f"{new.strip()!r} instead of {old.strip()!r}"
            for new, old in zip(lines, twin_lines, strict=False)
            if new != old
        ][:3]
    if differing:
        raise NotRebuildableError(
            f"this {name} was changed after it was built and would come back different"
            f" ({'; '.join(differing[:3])}); {way_out}"
        )
    return dict(arguments)


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
