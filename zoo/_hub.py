"""Folders, files and repositories that hold a model: configuration, weights and card."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import nn

from zoo import _checkpoint
from zoo._base import SpikingModel
from zoo._registry import get_entry, is_registered
from zoo._weights import CONFIG_FILE, WEIGHTS_FILE, sha256_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD_FILE = "README.md"
SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin")


class NotRebuildableError(ValueError):
    """The model cannot be built again from a name and plain values, so it cannot be saved."""


def is_location(name: str) -> bool:
    """Whether ``name`` points at a folder, a file or a repository rather than at an entry."""
    if name.startswith(("local-dir:", "hf-hub:", "hf_hub:")):
        return True
    return os.sep in name or name.endswith(SUFFIXES)


def load_location(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """Rebuild the model that a folder, file or repository describes, and load its weights."""
    if name.startswith(("hf-hub:", "hf_hub:")):
        path = download(name.split(":", 1)[1])
    else:
        path = Path(name.removeprefix("local-dir:")).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    architecture, arguments, sha256 = _recipe(path)
    entry = get_entry(architecture)
    model = entry.fn(**{**arguments, **kwargs})
    if pretrained is False:
        return model
    from zoo._build import load_weights  # _build imports this module

    source = path if weights is None else Path(weights)
    load_weights(model, source, entry, explicit=kwargs, sha256=sha256 if weights is None else None)
    return model


def _recipe(path: Path) -> tuple[str, dict[str, Any], str | None]:
    """Entry name, its arguments and the recorded hash of what lies at ``path``."""
    if path.is_file() and path.suffix == ".ckpt":
        hyper = _checkpoint.read_checkpoint(path).hyper_parameters
        if not isinstance(hyper.get("model"), str):
            raise _checkpoint.CheckpointError(
                f"{path} does not name its model; use zoo.load(NAME, weights={str(path)!r})"
            )
        arguments = dict(hyper.get("model_args") or {})
        for key in ("num_classes", "in_chans"):
            if hyper.get(key) is not None:
                arguments.setdefault(key, hyper[key])
        return hyper["model"], arguments, None
    folder = path if path.is_dir() else path.parent
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise FileNotFoundError(
            f"no {CONFIG_FILE} in {folder}, so the architecture is unknown;"
            f" use zoo.load(NAME, weights={str(path)!r})"
        )
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        architecture = config["architecture"]
    except (ValueError, KeyError, TypeError) as error:
        raise _checkpoint.CheckpointError(f"{config_path} is no model description: {error!r}") from error
    arguments = dict(config.get("model_args") or {})
    arguments.setdefault("num_classes", config.get("num_classes"))
    own = config.get("fulgurite") or {}
    is_main = path.is_dir() or path.name == WEIGHTS_FILE
    return architecture, arguments, own.get("sha256") if is_main else None


def download(repository: str) -> Path:
    """Folder in the local cache with the files of ``OWNER/NAME@REV``."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repo_id, _, revision = repository.partition("@")
    folder: Path | None = None
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        try:
            file = hf_hub_download(repo_id, name, revision=revision or None)
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{name} of hf-hub:{repository} could not be fetched and is not in the local cache"
                f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''});"
                " check the name and the connection, or fetch the folder elsewhere and use"
                " 'local-dir:PATH'"
            ) from error
        folder = Path(file).parent
    assert folder is not None
    return folder


def load_timm(
    name: str, pretrained: bool | None, weights: str | Path | None, kwargs: dict[str, Any]
) -> nn.Module:
    """The model ``name`` of timm itself, under the same rules as an entry of ours."""
    import timm

    if not timm.is_model(name.split(".", 1)[0]):
        raise ValueError(f"timm has no model {name!r}; timm.list_models() lists what it has")
    if weights is not None:
        model: nn.Module = timm.create_model(name, pretrained=False, **kwargs)
        state = _checkpoint.read_checkpoint(Path(weights)).state
        _checkpoint.load_strict(model, state, source=str(weights))
        return model
    has = timm.models.is_model_pretrained(name)
    if pretrained is False or (pretrained is None and not has):
        if pretrained is None:
            warnings.warn(f"timm has no weights for {name}; this model has random ones", stacklevel=3)
        return timm.create_model(name, pretrained=False, **kwargs)  # type: ignore[no-any-return]
    if not has:
        raise FileNotFoundError(f"timm has no weights for {name!r}; give weights=PATH")
    try:
        return timm.create_model(name, pretrained=True, **kwargs)  # type: ignore[no-any-return]
    except Exception as error:
        if isinstance(error, TypeError):
            raise
        raise FileNotFoundError(
            f"the weights of timm/{name} could not be fetched ({type(error).__name__}:"
            f" {str(error).splitlines()[0] if str(error) else ''}); give a file with weights=PATH"
            " or ask for random ones with pretrained=False"
        ) from error


# -- saving ----------------------------------------------------------------------------------------


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
        _write(staging / CARD_FILE, _card(model, config, size).encode())
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
    if not isinstance(model, SpikingModel) or not name or not is_registered(name):
        raise NotRebuildableError(
            f"{type(model).__name__} was not built by an entry of the zoo, so nobody could load it"
            f" again; {way_out}"
        )
    arguments = {**model.model_args, "time_steps": model.time_steps}
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


def _card(model: Any, config: Mapping[str, Any], size: int) -> str:
    own = config["fulgurite"]
    name = config["architecture"]
    parameters = sum(p.numel() for p in model.parameters())
    header = ["---", "library_name: fulgurite", "pipeline_tag: image-classification"]
    header += [f"license: {own['licence']}"] if own["licence"] else []
    header += ["tags: [spiking-neural-network, image-classification, timm]", f"model_name: {name}"]
    if own["metrics"] and own["dataset"]:
        header += ["model-index:", f"- name: {name}", "  results:", "  - task:"]
        header += ["      type: image-classification", "    dataset:"]
        header += [f"      name: {json.dumps(own['dataset'])}"]
        header += [f"      type: {json.dumps(own['dataset'].lower().replace(' ', '-'))}"]
        header += ["    metrics:"]
        for key, value in own["metrics"].items():
            header += [f"    - type: {json.dumps(key)}", f"      value: {value}"]
    header += ["---", ""]
    input_size = config["pretrained_cfg"].get("input_size", ())
    rows = [
        ("Parameters", f"{parameters:,} ({size / 1e6:.2f} MB)"),
        ("Time steps", f"T = {own['time_steps']}"),
        ("Input", "C, H, W = " + ", ".join(map(str, input_size))),
        ("Classes", f"K = {config['num_classes']}"),
        ("Paper", f"arXiv {own['paper']}" if own["paper"] else "-"),
        ("Trained on", own["dataset"] or "-"),
        ("Measured", ", ".join(f"{k} {v:g}" for k, v in own["metrics"].items()) or "-"),
        ("Published", ", ".join(f"{k} {v:g}" for k, v in own["published"].items()) or "-"),
        ("Command", f"`{own['command']}`" if own["command"] else "-"),
        ("Seed", str(own["seed"]) if own["seed"] is not None else "-"),
        ("Licence of the weights", own["licence"] or "-"),
        ("SHA-256", f"`{own['sha256']}`"),
    ]
    body = [f"# {name}", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows), ""]
    body += ["```python", "import zoo", "", 'model = zoo.load("local-dir:PATH")', "```", ""]
    return "\n".join(header + body)
