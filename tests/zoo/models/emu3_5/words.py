"""A vocabulary of a few ids, and a decoder that reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Words:
    """The roles of a small vocabulary that writes sizes as text does: digits 20..29, ``*`` 30."""

    pad: int = 0
    bos: int = 1
    eos: int = 2
    image_start: int = 3
    image_end: int = 4
    image_token: int = 5
    end_of_line: int = 6
    digit_ids: tuple[int, ...] = tuple(range(20, 30))
    times_id: int = 30
    first_visual: int = 40
    visual_codes: int = 8
    size: int = 48
    sized: bool = True

    def grid_tokens(self, height, width):
        if not self.sized:
            return ()
        return tuple(30 if c == "*" else 20 + int(c) for c in f"{height}*{width}")


def decoder(vocabulary, seed=0):
    """Random weights, float64, evaluation mode."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary.size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).double().eval()
