"""The scores of an image's tokens as maps, for figures and analyses."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from spiking.context import Hooks
from zoo.classifier import SpikingModel
from zoo.tokens.gather import best_tokens, token_count
from zoo.tokens.hooks import Point, Scorer, TokenReduction
from zoo.tokens.reduce import find_blocks, make_scorer

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.base import ZooModel
    from zoo.layers.token_block import TokenBlock


@dataclass(frozen=True)
class TokenImportance:
    """Maps over the tokens of one block.

    Attributes:
        scores: ``[T, B, H, W]``, higher is more important. Those of step t come from the steps up to t, as
            if the run ended there; a scorer that chooses anew at each step has one for each.
        kept: ``[B, H, W]``, which tokens stay after all T steps (the last step's, if chosen anew).
        block: path of the block in front of which they were taken.
        keep: the share that stays there.
    """

    scores: Tensor
    kept: Tensor
    block: str
    keep: float


@torch.no_grad()
def token_importance(
    model: ZooModel,
    x: Tensor,
    method: str | Scorer | None = None,
    *,
    keep: float | None = None,
    block: str | None = None,
    **settings: Any,
) -> TokenImportance:
    """Score the tokens of a batch after 1, 2 ... T steps.

    >>> import torch
    >>> import zoo
    >>> maps = zoo.token_importance(zoo.create("spikformer_nano").eval(), torch.rand(1, 1, 28, 28))
    >>> maps.scores.shape, maps.kept.sum().item()
    (torch.Size([4, 1, 7, 7]), 25)

    Args:
        model: a spiking transformer of the zoo, with reduced tokens or not.
        x: ``[B, C, H, W]`` or ``[T, B, C, H, W]``.
        method: as for `zoo.reduce_tokens`; if missing, that of a model whose tokens are reduced, else
            ``"uncert"``.
        keep: share of the tokens that counts as kept; if missing, that of the model, else one half.
        block: path of a token block; if missing, the first that the model reduces, else the last of all.
        **settings: of the method.

    Raises:
        ValueError: the model has no tokens, or the method gives no scores (``"tome"``).
    """
    chosen, share, scorer = _choose(model, method, keep, block, settings)
    assert isinstance(model, SpikingModel)
    point = Point(model, chosen)
    scorer.check(point)
    features = _features(model, x, chosen.path)
    with torch.autocast(x.device.type, enabled=False):
        if scorer.per_step:
            scores = scorer(features, point)
        else:
            scores = torch.stack([scorer(features[: t + 1], point) for t in range(len(features))])
    B, (H, W) = features.shape[1], features.shape[-2:]
    kept = torch.zeros(B, H * W, dtype=torch.bool, device=x.device)
    kept.scatter_(1, best_tokens(scores[-1], token_count(share, H * W)), True)
    return TokenImportance(scores.unflatten(-1, (H, W)), kept.view(B, H, W), chosen.path, share)


def _choose(
    model: ZooModel,
    method: str | Scorer | None,
    keep: float | None,
    block: str | None,
    settings: dict[str, Any],
) -> tuple[TokenBlock, float, Scorer]:
    """The block, the share that stays there and the scorer: as asked for, else the model's, else defaults."""
    reduction = getattr(model, "token_reduction", None)
    blocks = find_blocks(model)
    if reduction is not None:
        assert isinstance(reduction, TokenReduction)
        shares = dict(zip((p.block.path for p in reduction.points), reduction.shares, strict=True))
        first = next((path for path, share in shares.items() if share < 1.0), next(iter(shares)))
        block, keep = block or first, keep or shares.get(block or first, 0.5)
        scorer = reduction.scorer if method is None else make_scorer(method, settings)
    else:
        block, keep = block or blocks[-1].path, keep or 0.5
        scorer = make_scorer(method or "uncert", settings)
    chosen = next((b for b in blocks if b.path == block), None)
    if chosen is None:
        raise ValueError(f"no token block {block!r}; there are {', '.join(b.path for b in blocks)}")
    if hasattr(scorer, "match"):
        raise ValueError(f"{type(scorer).__name__} pairs tokens and has no scores; choose another method")
    return chosen, keep, scorer


def _features(model: SpikingModel, x: Tensor, block: str) -> Tensor:
    """What enters a block, ``[T, B, C, H, W]``, in float32 or float64."""
    seen: list[Tensor] = []
    with ExitStack() as stack:
        module = model.get_submodule(block)
        Hooks(stack).before(module, lambda _, inputs: seen.append(inputs[0]), prepend=True)
        model(x)
    return seen[0] if seen[0].dtype is torch.float64 else seen[0].float()
