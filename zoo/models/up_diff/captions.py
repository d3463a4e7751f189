"""The text that the UNet looks at: two captions that never change, or learned tokens.

Axes: N images, L tokens, D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from zoo.models.up_diff.extra import require

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

CAPTION = "A remote sensing photo."
EMPTY = ""


class CaptionBuffer(nn.Module):
    """The embeddings of `CAPTION` and of the empty caption, zeros until they are made.

    Args:
        length: L.
        channels: D.
    """

    embedded: Tensor

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("embedded", torch.zeros(2, length, channels))

    def forward(self, count: int, empty: bool = False) -> Tensor:
        """``[count, L, D]``."""
        return self.embedded[int(empty)].expand(count, -1, -1)


class LearnedCaption(nn.Module):
    """Learned tokens in the place of any caption, the empty one too.

    Args:
        length: L.
        channels: D.
    """

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(length, channels))
        nn.init.normal_(self.tokens)

    def forward(self, count: int, empty: bool = False) -> Tensor:
        """``[count, L, D]``."""
        return self.tokens.expand(count, -1, -1)


@torch.no_grad()
def embed(folder: str | Path, length: int, channels: int) -> Tensor:
    """Embeddings ``[2, L, D]`` of `CAPTION` and of the empty caption, by the text encoder of CLIP.

    Args:
        folder: of Stable Diffusion 1 in the layout of diffusers, with ``text_encoder`` and ``tokenizer`` in
            it, or of a CLIP model that has both.
        length: L.
        channels: D.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no text encoder, or one of other sizes.
    """
    from pathlib import Path

    require("transformers")
    from transformers import CLIPTextModel, CLIPTokenizer

    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder of a text encoder: {root}")
    encoder_at, tokenizer_at = (
        root / name if (root / name).is_dir() else root for name in ("text_encoder", "tokenizer")
    )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer_at), local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(str(encoder_at), local_files_only=True).eval()
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{root} holds no text encoder of CLIP with its tokenizer: {reason}") from error
    words = tokenizer(
        [CAPTION, EMPTY], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    made: Tensor = encoder(words["input_ids"]).last_hidden_state
    if made.shape != (2, length, channels):
        raise ValueError(f"{root} embeds captions as {tuple(made.shape[1:])}, expected {(length, channels)}")
    return made
