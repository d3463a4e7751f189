"""The rules of Emu3.5's sequences as transformers takes them; needs the extra ``multimodal``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

if TYPE_CHECKING:
    from zoo.models.emu3_5.decoding.grammar import Grammar


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a token is drawn.

    Attributes:
        temperature: of the softmax; below 1 favours likely tokens.
        top_k: only so many likeliest tokens; 0 are all.
        top_p: only the likeliest tokens that together reach this share; 1 are all.

    Raises:
        ValueError: a value that makes no sense, named.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (all) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")

    def filtered(self, scores: Tensor) -> Tensor:
        """Scores ``[B, V]`` with those that are not to be drawn at minus infinity."""
        ids = torch.empty(len(scores), 0, dtype=torch.long, device=scores.device)
        if self.temperature != 1.0:
            scores = TemperatureLogitsWarper(float(self.temperature))(ids, scores)
        if self.top_k:
            scores = TopKLogitsWarper(min(self.top_k, scores.shape[-1]))(ids, scores)
        if self.top_p < 1.0:
            scores = TopPLogitsWarper(self.top_p)(ids, scores)
        return scores


class ImageRules(LogitsProcessor):
    """Lets only tokens through that keep every image readable; ``generate`` of transformers takes it, too.

    Args:
        grammar: the rules.
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[B, V]`` behind the sequences ``[B, L]``, minus infinity where a token may not follow."""
        allowed = torch.stack([self.grammar.allowed(row) for row in input_ids])
        return scores.masked_fill(~allowed, -torch.inf)


class ChoiceByKind(LogitsProcessor):
    """Draws text and image codes each in its own way.

    Args:
        grammar: tells which of the two comes next.
        text: how text is drawn.
        image: how image codes are drawn.
    """

    def __init__(self, grammar: Grammar, text: Choice, image: Choice) -> None:
        self.grammar, self.text, self.image = grammar, text, image

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores ``[B, V]`` behind the sequences ``[B, L]``, filtered."""
        inside = [self.grammar.state(row).phase == "codes" for row in input_ids]
        kind = torch.tensor(inside, device=scores.device).unsqueeze(-1)
        return torch.where(kind, self.image.filtered(scores), self.text.filtered(scores))


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance of logits ``[B, V]``: ``u + scale (c - u)`` of log-probabilities."""
    c, u = conditional.log_softmax(-1), unconditional.log_softmax(-1)
    return u + scale * (c - u)
