"""Token reduction for every spiking transformer of the zoo: a plug-in, without training.

`reduce_tokens` gives a copy of a model whose blocks run on the tokens that a method thinks important. The
methods: ``uncert`` (`zoo.tokens.uncert`), ``tp`` and ``tp_code`` (`zoo.tokens.tp_spikformer`), ``tome``
(`zoo.tokens.tome`), and the plain ones of `zoo.tokens.baselines`.

Axes: T time, B batch, C channels, H W map, N = H * W tokens.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Sequence
from typing import Any, Literal

from spiking.arguments import only_known
from zoo.base import ZooModel
from zoo.classifier import SpikingModel
from zoo.layers.token_block import TokenBlock
from zoo.tokens.baselines import FeatureNorm, FiringRate, Random
from zoo.tokens.hooks import OPERATORS, Operator, Point, Scorer, TokenReduction
from zoo.tokens.tome import ToMe
from zoo.tokens.tp_spikformer import TPCode, TPPaper
from zoo.tokens.uncert import Uncert

METHODS: dict[str, type[Scorer]] = {
    "uncert": Uncert,
    "tp": TPPaper,
    "tp_code": TPCode,
    "tome": ToMe,
    "firing_rate": FiringRate,
    "norm": FeatureNorm,
    "random": Random,
}


def reduce_tokens(
    model: ZooModel,
    method: str | Scorer = "uncert",
    *,
    keep: float | Sequence[float] = 0.7,
    operator: Operator | Literal["auto"] = "auto",
    blocks: str | Sequence[str] = "last",
    rescale_pool: bool = False,
    rescale_attention: bool = False,
    **settings: Any,
) -> SpikingModel:
    """A copy of a model that runs its blocks on part of their tokens; ``keep=1`` changes nothing.

    The copy has the same parameters under the same names, so that checkpoints fit both. It can be trained
    further. It cannot stream, because the choice of tokens takes all steps at once.

    >>> import zoo
    >>> fast = zoo.reduce_tokens(zoo.create("spikformer_nano").eval(), "uncert", keep=0.5)

    Args:
        model: a spiking transformer of the zoo; stays as it is.
        method: ``"uncert"`` (2605.09276), ``"tp"`` (TP-Spikformer as printed, 2603.00527), ``"tp_code"`` (as
            released), ``"tome"`` (2210.09461), ``"firing_rate"``, ``"norm"``, ``"random"``, or a scorer.
        keep: share of the tokens at the end, reached in three equal factors before the blocks at a quarter,
            a half and three quarters of the depth; or the share that each block sees, one number a block.
        operator: ``"remove"``: left-out tokens go for good, for blocks behind which nothing needs the grid.
            ``"bypass"``: they skip the block with their value and place. ``"merge"``: each is averaged into
            the kept token that it is most like. ``"auto"`` takes the first that fits.
        blocks: ``"last"``, the token blocks of the last stage; ``"all"``; or their paths. Without
            alternative where a method reads tokens with the classifier.
        rescale_pool: with ``"remove"``, divide the last pooling by the number of all tokens.
        rescale_attention: multiply sums over tokens by the share that is missing.
        **settings: of the method, see its class.

    Raises:
        ValueError: the model has no such blocks, or method and operator do not fit; the message says why.
    """
    scorer = make_scorer(method, settings)
    chosen = _blocks(model, blocks)
    assert isinstance(model, SpikingModel)  # others have no blocks
    shares = spread(keep, len(chosen)) if isinstance(keep, int | float) else _listed(keep, chosen)
    operator = _operator(operator, scorer, chosen)
    if operator != "bypass" and any(b > a for a, b in itertools.pairwise(shares)):
        raise ValueError(
            f"with operator {operator!r} tokens cannot come back, but keep rises: {list(shares)}"
        )
    if rescale_pool and operator != "remove":
        raise ValueError(f"rescale_pool is for operator 'remove', got {operator!r}")
    reduced = copy.deepcopy(model)
    for block in chosen:
        scorer.check(Point(reduced, block))
    reduced.token_reduction = TokenReduction(
        reduced, scorer, chosen, shares, operator, rescale_pool, rescale_attention
    )
    return reduced.train(model.training)


def spread(keep: float, depth: int) -> tuple[float, ...]:
    """Shares of ``depth`` blocks: ``keep`` at the end, in three equal factors.

    >>> [round(share, 2) for share in spread(0.5, 8)]
    [1.0, 1.0, 0.79, 0.79, 0.63, 0.63, 0.5, 0.5]
    """
    _check_share(keep)
    steps = [depth * quarter // 4 for quarter in (1, 2, 3)]
    return tuple(float(keep) ** (sum(step <= i for step in steps) / 3) for i in range(depth))


def _listed(keep: Sequence[float], chosen: Sequence[TokenBlock]) -> tuple[float, ...]:
    if len(keep) != len(chosen):
        raise ValueError(
            f"keep needs one share a block, got {len(keep)} for {len(chosen)} blocks:"
            f" {', '.join(b.path for b in chosen)}"
        )
    for share in keep:
        _check_share(share)
    return tuple(float(share) for share in keep)


def _check_share(share: float) -> None:
    if not 0.0 < share <= 1.0:
        raise ValueError(f"keep is a share of the tokens, above 0 and up to 1, got {share!r}")


def make_scorer(method: str | Scorer, settings: dict[str, Any]) -> Scorer:
    """A scorer by name and settings, or the one given."""
    if isinstance(method, Scorer):
        if settings:
            raise TypeError(f"a scorer brings its own settings, got {', '.join(settings)} as well")
        return method
    if method not in METHODS:
        raise ValueError(f"unknown token reduction {method!r}; known: {', '.join(METHODS)}")
    only_known(method, settings, inspect.signature(METHODS[method]).parameters, "setting")
    return METHODS[method](**settings)


def find_blocks(model: ZooModel) -> list[TokenBlock]:
    """The token blocks of a model; an error if it has none."""
    listed = getattr(model, "token_blocks", None)
    found: list[TokenBlock] = list(listed()) if callable(listed) else []
    if not found:
        raise ValueError(
            f"{_label(model)} has no blocks that could run on part of their tokens; the spiking transformers"
            " have"
        )
    return found


def _label(model: ZooModel) -> str:
    return getattr(model, "architecture", "") or type(model).__name__


def _blocks(model: ZooModel, blocks: str | Sequence[str]) -> list[TokenBlock]:
    found = find_blocks(model)
    label = _label(model)
    if hasattr(model, "token_reduction"):
        raise ValueError(
            f"the tokens of this {label} are reduced already; reduce the model that it came from"
        )
    if blocks == "all":
        return found
    if blocks == "last":
        last = max(block.stage for block in found)
        return [block for block in found if block.stage == last]
    wanted = [blocks] if isinstance(blocks, str) else list(blocks)
    known = {block.path for block in found}
    for path in wanted:
        if path not in known:
            raise ValueError(
                f"{label} has no token block {path!r}; it has {', '.join(b.path for b in found)}"
            )
    return [block for block in found if block.path in wanted]


def _operator(operator: str, scorer: Scorer, chosen: Sequence[TokenBlock]) -> Operator:
    matching = hasattr(scorer, "match")
    stuck = [block.path for block in chosen if not block.removable]
    if operator == "auto":
        operator = "merge" if matching else "bypass" if stuck or scorer.needs_grid else "remove"
    if operator not in OPERATORS:
        raise ValueError(f"operator must be one of {', '.join(OPERATORS)} or 'auto', got {operator!r}")
    name = type(scorer).__name__
    if operator != "bypass" and stuck:
        raise ValueError(
            f"operator {operator!r} takes tokens away for good, but {stuck[0]} or what follows it needs the"
            " whole grid; use operator='bypass', or blocks behind which nothing does"
        )
    if operator != "bypass" and (scorer.needs_grid or scorer.per_step):
        raise ValueError(
            f"{name} compares neighbours on the grid or chooses anew at each step, so tokens must keep their"
            " places; use operator='bypass'"
        )
    if matching and operator != "merge":
        raise ValueError(f"{name} merges pairs; use operator='merge', got {operator!r}")
    return operator
