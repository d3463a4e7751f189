"""A sequence as the decoder has read it so far, with a cache or without, and the passes that it took."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


class Reader:
    """Reads tokens once and remembers them.

    Args:
        decoder: a causal language model of transformers.

    Attributes:
        length: tokens that were read.
        passes: times that the decoder ran.
    """

    def __init__(self, decoder: Any) -> None:
        from transformers import DynamicCache

        self.decoder = decoder
        self.cache = DynamicCache()
        self.length = self.passes = 0

    def read(self, tokens: Tensor) -> Tensor:
        """Go on with ``tokens [B, L]``; the logits behind the last one, ``[B, V]``."""
        self.passes += 1
        self.length += tokens.shape[1]
        made = self.decoder(input_ids=tokens, cache=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = made.logits[:, -1].float()
        return logits

    def look(self, block: Tensor, places: Tensor) -> Tensor:
        """Show a block ``[B, N]`` whose tokens all see each other, and forget it.

        Args:
            block: behind what was read.
            places: where in the block logits are wanted, ``[P]``.

        Returns:
            ``[B, P, V]``.
        """
        self.passes += 1
        rows, count = block.shape
        seen = torch.ones(rows, 1, count, self.length + count, dtype=torch.bool, device=block.device)
        made = self.decoder(
            input_ids=block, attention_mask=seen, cache=self.cache, use_cache=True, logits_to_keep=places
        )
        self.cache.crop(-count)
        logits: Tensor = made.logits
        return logits


class Rereader(Reader):
    """Remembers tokens alone and reads them all in every pass: the same logits, at the price of no cache.

    Args:
        decoder: see `Reader`.

    Raises:
        ValueError: a decoder whose attention takes no dense mask.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__(decoder)
        if getattr(decoder.config, "_attn_implementation", "") == "flex_attention":
            raise ValueError("without a cache a decoder must have attention 'sdpa', not 'flex_attention'")
        self.tokens: Tensor | None = None

    @override
    def read(self, tokens: Tensor) -> Tensor:
        self.passes += 1
        self.length += tokens.shape[1]
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], 1)
        made = self.decoder(input_ids=self.tokens, use_cache=False, logits_to_keep=1)
        logits: Tensor = made.logits[:, -1].float()
        return logits

    @override
    def look(self, block: Tensor, places: Tensor) -> Tensor:
        assert self.tokens is not None
        self.passes += 1
        together = torch.cat([self.tokens, block], 1)
        total = together.shape[1]
        seen = torch.ones(total, total, dtype=torch.bool, device=block.device).tril()
        seen[self.length :] = True
        made = self.decoder(
            input_ids=together,
            attention_mask=seen.expand(len(block), 1, -1, -1),
            use_cache=False,
            logits_to_keep=self.length + places,
        )
        logits: Tensor = made.logits
        return logits
