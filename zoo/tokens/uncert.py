"""Uncert: token importance from the class evidence of every token.

"Uncertainty-Aware Token Importance Estimation in Spiking Transformers", arXiv 2605.09276, of which only the
abstract could be read: evidence by token and step as a Dirichlet distribution, the mean and the fluctuation
of its uncertainty over the steps, no training. **The formulas are our reading**, the sign with which the
fluctuation counts in particular; `choose_fluctuation_weight` finds it out on labelled images.

The evidence comes from the model's own classifier applied to single tokens: head and pooling are linear, so
the logits of the model are the mean of the token logits behind the last block (where a neuron precedes
the classifier, the real value in front of it is taken). Cross-entropy leaves a common shift of all logits
free, but evidence grows with it: on trained networks the shift, and not the class, decided which tokens
looked certain (background did). So logits are centred over the classes first, unless ``centre=False``.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, K classes.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F
from typing_extensions import override

from spiking.context import Hooks
from spiking.layers import SpikeMatmul
from zoo.layers.token_block import TokenBlock
from zoo.tokens.hooks import Point, Scorer, TokenReduction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.classifier import SpikingModel

Evidence = Literal["softplus", "relu", "exp"]
Kind = Literal["vacuity", "entropy"]
Fluctuation = Literal["deviation", "change"]
EXP_LIMIT = 10.0  # logits are clamped here before the exponential


def uncertainty(logits: Tensor, evidence: Evidence = "softplus", kind: Kind = "vacuity") -> Tensor:
    """Uncertainty in (0, 1] of Dirichlet distributions with ``alpha = evidence(logits) + 1``.

    Args:
        logits: ``[..., K]``, K at least 2.
        evidence: a function to non-negative values.
        kind: ``"vacuity"``: ``K / sum(alpha)``, which falls with any evidence. ``"entropy"``: of the expected
            distribution ``alpha / sum(alpha)``, over ``ln K``; evidence for one class alone lowers it.

    Returns:
        ``[...]``.
    """
    if evidence == "softplus":
        e = F.softplus(logits)
    elif evidence == "relu":
        e = logits * (logits > 0)
    elif evidence == "exp":
        e = torch.minimum(logits, logits.new_tensor(EXP_LIMIT)).exp()
    else:
        raise ValueError(f"evidence must be 'softplus', 'relu' or 'exp', got {evidence!r}")
    alpha = e + 1.0
    total = alpha.sum(dim=-1)
    if kind == "vacuity":
        return logits.shape[-1] / total
    if kind == "entropy":
        share = alpha / total.unsqueeze(-1)
        return -(share * share.log()).sum(dim=-1) / math.log(logits.shape[-1])
    raise ValueError(f"kind must be 'vacuity' or 'entropy', got {kind!r}")


def importance(u: Tensor, fluctuation_weight: float = 1.0, fluctuation: Fluctuation = "deviation") -> Tensor:
    """``(1 - mean) + lambda * fluctuation``, both brought to 0..1 over the tokens of an image.

    A background token stays uncertain and steady. One that carries evidence ends certain, and often gets
    there over the steps, while membranes fill.

    Args:
        u: uncertainty ``[T, B, N]``.
        fluctuation_weight: lambda, of either sign.
        fluctuation: ``"deviation"``, the standard deviation over T, or ``"change"``, the mean absolute step.

    Returns:
        ``[B, N]``.
    """
    if fluctuation == "deviation":
        moved = u.std(dim=0, unbiased=False)
    elif fluctuation == "change":
        moved = u.diff(dim=0).abs().mean(dim=0) if len(u) > 1 else torch.zeros_like(u[0])
    else:
        raise ValueError(f"fluctuation must be 'deviation' or 'change', got {fluctuation!r}")
    return (1.0 - to_unit(u.mean(dim=0))) + fluctuation_weight * to_unit(moved)


def to_unit(x: Tensor) -> Tensor:
    """``x [..., N]`` shifted and scaled to 0..1 along N; zeros where it is constant."""
    low = x.amin(dim=-1, keepdim=True)
    span = x.amax(dim=-1, keepdim=True) - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, torch.ones_like(span)), 0.0)


class Uncert(Scorer):
    """Scores of `importance`, see the head of this file.

    The evidence costs T N C K products, which `spiking.profile_energy` counts under
    ``token_reduction.scorer.evidence``.

    Args:
        fluctuation_weight: lambda.
        evidence: see `uncertainty`.
        kind: see `uncertainty`.
        fluctuation: see `importance`.
        classes: K, those with the largest logits of the pooled tokens, image by image; 0 takes all.
        centre: take the mean over all classes from the logits of each token.
    """

    def __init__(
        self,
        fluctuation_weight: float = 1.0,
        evidence: Evidence = "softplus",
        kind: Kind = "vacuity",
        fluctuation: Fluctuation = "deviation",
        classes: int = 50,
        centre: bool = True,
    ) -> None:
        super().__init__()
        uncertainty(torch.zeros(2), evidence, kind)  # refuses unknown names
        importance(torch.zeros(1, 1, 1), fluctuation_weight, fluctuation)
        if classes < 0 or classes == 1:
            raise ValueError(f"classes must be 0 for all or at least 2, got {classes}")
        self.fluctuation_weight = float(fluctuation_weight)
        self.kind: Kind = kind
        self.function: Evidence = evidence
        self.fluctuation: Fluctuation = fluctuation
        self.classes = classes
        self.centre = centre
        self.evidence = SpikeMatmul(spike_operand="a")

    def check(self, point: Point) -> None:
        """The classifier must be linear, and have at least two classes."""
        head = point.model.get_classifier()
        if not isinstance(head, nn.Linear) or head.out_features < 2:
            label = point.model.architecture or "this model"
            raise ValueError(f"uncert needs a linear classifier of at least 2 classes, {label} has {head}")

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        return importance(self.token_uncertainty(x, point), self.fluctuation_weight, self.fluctuation)

    def token_uncertainty(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> uncertainty ``[T, B, N]``."""
        head = point.model.get_classifier()
        assert isinstance(head, nn.Linear)
        if x.shape[2] != head.in_features:
            raise ValueError(
                f"uncert reads tokens of {point.block.path} with the classifier, which takes"
                f" {head.in_features} channels, but they have {x.shape[2]}; choose blocks of the last stage"
            )
        weight = head.weight.to(x.dtype)  # [K, C]
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.to(x.dtype)
        if self.centre:  # of the weights instead of the logits: costs nothing
            weight, bias = weight - weight.mean(dim=0), bias - bias.mean()
        B = x.shape[1]
        if 0 < self.classes < len(weight):
            pooled = head(x.mean(dim=(0, 3, 4)).to(head.weight.dtype))
            best = pooled.topk(self.classes, dim=-1).indices  # [B, K]
            weight, bias = weight[best], bias[best].unsqueeze(1)
        else:
            weight, bias = weight.expand(B, -1, -1), bias.expand(B, 1, -1)
        tokens = x.flatten(3).transpose(2, 3)  # [T, B, N, C]
        logits = self.evidence(tokens, weight.transpose(1, 2)) + bias
        return uncertainty(logits, self.function, self.kind)

    @override
    def extra_repr(self) -> str:
        return (
            f"fluctuation_weight={self.fluctuation_weight:g}, evidence={self.function!r}, kind={self.kind!r},"
            f" fluctuation={self.fluctuation!r}, classes={self.classes}, centre={self.centre}"
        )


class LeaveOut(Scorer):
    """Drops one token: the last of all by score."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``, zeros but for -1 at the place."""
        scores = x.new_zeros(x.shape[1], x.shape[-2] * x.shape[-1])
        scores[:, self.place] = -1.0
        return scores


@torch.no_grad()
def leave_out_cost(model: SpikingModel, images: Tensor, labels: Tensor, block: TokenBlock) -> Tensor:
    """What the true class's logit loses when a block runs without a token, for every token: ``[B, N]``.

    Args:
        model: in evaluation mode.
        images: a batch, ``[B, C, H, W]`` or ``[T, B, C, H, W]``.
        labels: classes ``[B]``.
        block: one of the model's token blocks.
    """
    sizes: list[tuple[int, int]] = []
    with ExitStack() as stack:
        Hooks(stack).before(
            model.get_submodule(block.path), lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:]))
        )
        whole = model(images)
    N = math.prod(sizes[0])
    drops = []
    for place in range(N):
        pruned = copy.deepcopy(model)
        operator: Literal["remove", "bypass"] = "remove" if block.removable else "bypass"
        TokenReduction(pruned, LeaveOut(place), [block], [(N - 1) / N], operator)
        drops.append((whole - pruned(images)).gather(1, labels.view(-1, 1)).squeeze(1))
    return torch.stack(drops, dim=1)


@dataclass(frozen=True)
class FluctuationChoice:
    """What `choose_fluctuation_weight` found.

    Attributes:
        weight: the lambda with the highest correlation.
        correlations: mean rank correlation by lambda.
        block: where it was measured.
        images: over how many images.
    """

    weight: float
    correlations: dict[float, float] = field(default_factory=dict)
    block: str = ""
    images: int = 0


@torch.no_grad()
def choose_fluctuation_weight(
    model: SpikingModel,
    images: Tensor,
    labels: Tensor,
    *,
    block: str | None = None,
    weights: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    scorer: Uncert | None = None,
) -> FluctuationChoice:
    """The sign and weight of the fluctuation that agree best with what leaving out a token costs.

    `leave_out_cost` is compared by rank with the importance under every weight (Spearman, mean over images).

    Args:
        model: a trained model, in evaluation mode.
        images: a batch, ``[B, C, H, W]`` or ``[T, B, C, H, W]``.
        labels: classes ``[B]``.
        block: path of a token block; the middle one of the last stage if missing.
        weights: values of lambda to compare.
        scorer: other settings of `Uncert`.
    """
    blocks = model.token_blocks()
    last = [b for b in blocks if b.stage == max(b.stage for b in blocks)]
    chosen = last[len(last) // 2] if block is None else next((b for b in blocks if b.path == block), None)
    if chosen is None:
        raise ValueError(f"no token block {block!r}; there are {', '.join(b.path for b in blocks)}")
    scorer = scorer or Uncert()
    seen: list[Tensor] = []
    with ExitStack() as stack:
        Hooks(stack).before(model.get_submodule(chosen.path), lambda _, inputs: seen.append(inputs[0]))
        model(images)
    u = scorer.token_uncertainty(seen[0], Point(model, chosen))
    cost = leave_out_cost(model, images, labels, chosen)
    correlations = {
        w: float(rank_correlation(importance(u, w, scorer.fluctuation), cost).mean()) for w in weights
    }
    best = max(correlations, key=lambda w: correlations[w])
    return FluctuationChoice(best, correlations, chosen.path, len(labels))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's coefficient ``[B]`` of ``a`` and ``b [B, N]``; ties share the mean of their ranks."""
    ranks = [
        (((x[:, None] < x[..., None]).sum(-1) + (x[:, None] <= x[..., None]).sum(-1)) / 2) for x in (a, b)
    ]
    x, y = (r.double() - r.double().mean(dim=1, keepdim=True) for r in ranks)
    norm = (x.square().sum(1) * y.square().sum(1)).sqrt()
    return torch.where(norm > 0, (x * y).sum(1) / torch.where(norm > 0, norm, 1.0), 0.0)
