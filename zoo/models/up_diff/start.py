"""Weights of Stable Diffusion 1, in the layout of diffusers, as the start of UP-Diff."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zoo.errors import CheckpointError
from zoo.files.checkpoint import read_checkpoint
from zoo.files.strict import load_strict

if TYPE_CHECKING:
    from torch import Tensor, nn

FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
FIRST = "conv_in.weight"
ADDED = re.compile(r"\.fuser\.|\.proj_sem\.|^position_net\.")
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read(path: str | Path, part: str) -> dict[str, Tensor]:
    """Tensors of a network: from a file, from its folder, or from the folder of the pipeline above it.

    Args:
        path: where it lies.
        part: its folder in a pipeline.

    Raises:
        FileNotFoundError: nothing lies there.
        CheckpointError: what lies there cannot be read.
    """
    place = Path(path).expanduser()
    choices = (
        [place / folder / name for folder in ("", part) for name in FILES] if place.is_dir() else [place]
    )
    found = next((choice for choice in choices if choice.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{place} holds no {FILES[0]}, nor does a folder {part} in it")
    return read_checkpoint(found).state


def renamed_attention(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of an autoencoder whose attention may have the names of before diffusers 0.17."""
    made = {}
    for name, value in state.items():
        for old, new in OLD_ATTENTION.items():
            name = re.sub(rf"(mid_block\.attentions\.\d+)\.{old}\.", rf"\1.{new}.", name)
        made[name] = value
    return made


def widened(state: dict[str, Tensor], unet: nn.Module, source: str | Path) -> dict[str, Tensor]:
    """The state of a UNet of Stable Diffusion as one of this network.

    Raises:
        CheckpointError: the first convolution does not have the channels of the latent.
    """
    own = unet.state_dict()
    named = {re.sub(r"\.proj_out\.(weight|bias)$", r".proj_out.proj.\1", k): v for k, v in state.items()}
    first, wide = named.get(FIRST), own[FIRST]
    latent = own["conv_out.bias"].shape[0]
    expected = (wide.shape[0], latent, *wide.shape[2:])
    if first is None or first.shape != expected:
        got = "none" if first is None else tuple(first.shape)
        raise CheckpointError(
            f"{source} is no UNet of Stable Diffusion of this size, nothing was loaded: expected a first"
            f" convolution {expected}, got {got}"
        )
    added = torch.zeros(wide.shape[0], wide.shape[1] - latent, *wide.shape[2:], dtype=first.dtype)
    named[FIRST] = torch.cat([first, added], 1)
    return {**{k: v for k, v in own.items() if ADDED.search(k)}, **named}


def fill(network: nn.Module, state: dict[str, Tensor], source: str | Path) -> None:
    """Load every tensor or none.

    Raises:
        CheckpointError: names, shapes or values are wrong.
    """
    load_strict(network, state, source=str(source))
