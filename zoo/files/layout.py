"""Names of the files in a folder of `zoo.save`, and their hashes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from zoo.errors import CheckpointError
from zoo.files.formats.json_file import read_json

PACKAGED = Path(__file__).parents[1] / "weights"  # NAME.TAG/{model.safetensors,config.json}, in the wheel
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # where weights are in several files: which tensor is where
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
SETTINGS_FILE = "training.yaml"
FIGURES = "figures"
RUNS = "runs"  # where `fulgurite fit` keeps its runs
RUN_CHECKPOINTS = "checkpoints"  # in the folder of a run
RUN_WEIGHTS = ("best.ckpt", "last.ckpt")  # in it, the one that counts first
SAVING = ".saving"  # what is being written, or was when a process was killed
PART = "fulgurite"  # of the description: what timm does not know
UNKNOWN = (None, "", "None", "unknown", "other")  # licences that say nothing
FOLDER_VARIABLE = "FULGURITE_WEIGHTS"
MOST_SHARDS = 100_000
SHARD = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def names_in(folder: str | Path) -> list[str]:
    """What lies in a folder, by name; nothing where there is no such folder."""
    return sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []


def runs() -> list[str]:
    """Runs in the working directory that have checkpoints, by name."""
    return [name for name in names_in(RUNS) if is_run(Path(RUNS) / name)]


def is_run(folder: Path) -> bool:
    """Whether ``fulgurite fit`` wrote this folder."""
    return (folder / RUN_CHECKPOINTS).is_dir()


def run_checkpoint(folder: Path) -> Path:
    """The best checkpoint of a run, else its last one.

    Raises:
        FileNotFoundError: the run has neither.
    """
    inside = folder / RUN_CHECKPOINTS
    found = [inside / name for name in RUN_WEIGHTS if (inside / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{inside} holds neither {' nor '.join(RUN_WEIGHTS)}")
    return found[0]


def pending(name: str, sha256: str) -> str:
    """Where a file waits while its folder goes over to a new description, which alone knows its hash.

    >>> pending("model.safetensors", "0123456789abcdef0123")
    'model.0123456789abcdef.safetensors'
    """
    path = Path(name)
    return path.with_name(f"{path.stem}.{sha256[:16]}{path.suffix}").as_posix()


def located(folder: Path, name: str, sha256: str | None) -> Path:
    """The file that a description, or an index, means by a name and a hash.

    Under its own name there may still be an older one, if a save was killed at its very end.
    """
    if sha256 is not None and re.fullmatch("[0-9a-f]{16,}", sha256):
        waiting = folder / pending(name, sha256)
        if waiting.is_file():
            return waiting
    return folder / name


def check_shard_names(index: Path) -> dict[str, str]:
    """Files that an index of weights names, and their SHA-256, in order (empty where it states none).

    Raises:
        CheckpointError: if it is no index, or a name leads out of its folder.
    """
    content = read_json(index, "index of weights")
    try:
        names = sorted({str(name) for name in content["weight_map"].values()})
        hashes = dict((content.get("metadata") or {}).get("sha256") or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is no index of weights: {error!r}") from error
    if len(names) > MOST_SHARDS:
        raise CheckpointError(f"{index} names {len(names):,} files; no index of weights needs so many")
    for name in names:
        if not SHARD.fullmatch(name):
            raise CheckpointError(
                f"{index} names the file {name[:200]!r}, which is no plain name of a .safetensors file"
                " beside it; it is refused"
            )
    return {name: str(hashes.get(name, "")) for name in names}
