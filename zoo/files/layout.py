"""Names of the files in a folder of `zoo.save`, and their hashes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

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
