"""The folder of the published language model: ``config.json`` and sharded safetensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from zoo.errors import CheckpointError
from zoo.models.emu3_5.ibq import IBQ, load_ibq
from zoo.models.emu3_5.model import Emu35
from zoo.models.emu3_5.text import FILE, BytePairs
from zoo.models.emu3_5.vocabulary import emu3_5_vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
# names of the authors' configuration and ours
NAMES = {
    "num_hidden_layers": "layers", "hidden_size": "width", "intermediate_size": "ffn",
    "num_attention_heads": "heads", "num_key_value_heads": "kv_heads", "head_dim": "head_dim",
    "max_position_embeddings": "context", "rope_theta": "rope_theta", "rms_norm_eps": "eps",
}  # fmt: skip
# what the published file says of ids, by our names
ROLES = {
    "img_token_id": "image_token", "boi_token_id": "image_start", "eoi_token_id": "image_end",
    "eol_token_id": "end_of_line",
}  # fmt: skip
SHOWN = 4  # names in a message


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Emu35` from the authors' ``config.json``; nothing is guessed.

    Raises:
        CheckpointError: another model, the older Emu3, or a value is missing.
    """
    if config.get("model_type") != "Emu3":
        raise CheckpointError(
            f"config.json is of a model of type {config.get('model_type')!r}; Emu3.5's type is 'Emu3'"
        )
    missing = [key for key in ("vocab_size", *NAMES) if config.get(key) is None]
    first = emu3_5_vocabulary().first_visual
    if ("vocab_size" in config and not config["vocab_size"] > first) or "head_dim" in missing:
        raise CheckpointError(
            f"config.json is of the older Emu3 (vocab_size {config.get('vocab_size')}, head_dim "
            f"{config.get('head_dim')}); Emu3.5 states a head_dim and has {first:,} ids below its image codes"
        )
    if missing:
        raise CheckpointError(f"config.json of Emu3.5 lacks {', '.join(missing)}")
    known = emu3_5_vocabulary(int(config["vocab_size"]) - first)
    for theirs, role in ROLES.items():
        if config.get(theirs) not in (None, getattr(known, role)):
            raise CheckpointError(
                f"config.json says {theirs} {config[theirs]}, Emu3.5's vocabulary has {getattr(known, role)};"
                " it is the file of another model, such as the older Emu3"
            )
    made = {ours: config[theirs] for theirs, ours in NAMES.items()}
    return {**made, "vocabulary": "emu3_5", "visual_codes": known.visual_codes}


def is_published(place: Path) -> bool:
    """Whether a place is a folder in the layout of BAAI/Emu3.5, so far as its ``config.json`` tells."""
    return (place / CONFIG).is_file() and _json(place / CONFIG).get("model_type") == "Emu3"


def check_files(folder: Path) -> None:
    """See to it that a folder holds every file that its index names.

    Raises:
        CheckpointError: one is missing.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; give the folder of a downloaded Emu3.5")
    if (folder / SINGLE).is_file() and not (folder / INDEX).is_file():
        return
    if not (folder / INDEX).is_file():
        raise CheckpointError(f"{folder} has neither {SINGLE} nor {INDEX}")
    names = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        more = ", ..." if len(lacking) > SHOWN else ""
        raise CheckpointError(
            f"{folder} lacks {len(lacking)} of {len(names)} shards: {', '.join(lacking[:SHOWN])}{more}; "
            "download them again"
        )


def load_emu3_5(
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device_map: str | dict[str, Any] | None = None,
    attention: str = "sdpa",
    text: str | Path | None = None,
    tokenizer: str | Path | IBQ | None = None,
) -> Emu35:
    """The language model of a folder in the layout of BAAI/Emu3.5, in evaluation mode.

    It is built without memory first, then filled shard by shard: about 68 GB in bfloat16.

    Args:
        folder: with ``config.json`` and safetensors; nothing in it is run.
        dtype: of the weights in memory.
        device_map: of transformers: ``"auto"`` spreads the layers over all devices.
        attention: see `Emu35`.
        text: ``emu3.tiktoken``, or the folder that holds it; missing: taken from ``folder`` if it is there,
            otherwise the model reads and writes ids only.
        tokenizer: of its images, or what `load_ibq` reads; missing: the model draws codes only.

    Raises:
        CheckpointError: a file is missing, is another model's, or does not fit.
        ImportError: transformers is missing.
    """
    folder = Path(folder).expanduser()
    check_files(folder)
    arguments = arguments_of(_json(folder / CONFIG))
    if text is None and (folder / FILE).is_file():
        text = folder
    pairs = None if text is None else BytePairs.read(text, emu3_5_vocabulary().pad)
    with torch.device("meta"):
        model = Emu35(**arguments, attention=attention)
    decoder, told = type(model.decoder).from_pretrained(
        folder,
        config=model.decoder.config,
        dtype=dtype,
        device_map=device_map,
        attn_implementation=attention,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
    )
    faults = {
        kind: sorted(map(str, told.get(f"{kind}_keys") or ()))
        for kind in ("missing", "unexpected", "mismatched")
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(v)} {kind} ({', '.join(v[:SHOWN])})" for kind, v in faults.items() if v)
        raise CheckpointError(f"the tensors in {folder} do not fit its {CONFIG}: {listed}")
    model.decoder = decoder
    model.vocabulary = replace(model.vocabulary, text=pairs)
    model.architecture, model.model_args = "emu3_5", arguments
    if tokenizer is not None:  # which `take` adds to the arguments
        model.take(tokenizer if isinstance(tokenizer, IBQ) else load_ibq(tokenizer))
    return model.eval()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no keys")
    return found
