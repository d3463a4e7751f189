"""Why a scorer keeps accuracy or does not: its order of the tokens against what leaving out each one costs.

    python benchmarks/token_agreement.py [SET ...] [--samples 48] [--threads 1]

The networks are those of ``token_table.py``. Printed for each, at the middle block of the last stage: rank
correlation of every scorer with the loss of the true class's logit when a token is left out (mean over
samples), and with firing rates; and how often a token names the class by itself, alone in the rest of the
network: all tokens alike, and the one that each scorer puts first.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from token_table import SETS, Source, network, samples

from zoo.tokens.hooks import Point, Scorer, TokenReduction
from zoo.tokens.reduce import make_scorer
from zoo.tokens.uncert import leave_out_cost, rank_correlation

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.layers.token_block import TokenBlock

SCORERS: dict[str, tuple[str, dict[str, Any]]] = {
    "uncert": ("uncert", {}),
    "uncert, not centred": ("uncert", {"centre": False}),
    "uncert, lambda 0": ("uncert", {"fluctuation_weight": 0.0}),
    "uncert, lambda -1": ("uncert", {"fluctuation_weight": -1.0}),
    "uncert, entropy": ("uncert", {"kind": "entropy"}),
    "firing_rate": ("firing_rate", {}),
    "norm": ("norm", {}),
    "tp": ("tp", {}),
    "tp_code": ("tp_code", {}),
    "random": ("random", {}),
}


class Only(Scorer):
    """Keeps one token: the given one."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[B, N]``."""
        scores = x.new_zeros(x.shape[1], x.shape[-2] * x.shape[-1])
        scores[:, self.place] = 1.0
        return scores


def middle(model: Any) -> TokenBlock:
    """The middle block of the last stage, which `zoo.choose_fluctuation_weight` looks at, too."""
    blocks = model.token_blocks()
    last = [block for block in blocks if block.stage == max(b.stage for b in blocks)]
    return last[len(last) // 2]


@torch.no_grad()
def alone(model: Any, x: Tensor, y: Tensor, block: TokenBlock, tokens: int) -> Tensor:
    """Whether each token names the class by itself, ``[B, N]``."""
    operator = "remove" if block.removable else "bypass"
    hits = []
    for place in range(tokens):
        pruned = copy.deepcopy(model)
        TokenReduction(pruned, Only(place), [block], [1 / tokens], operator)
        hits.append(pruned(x).argmax(1) == y)
    return torch.stack(hits, dim=1)


@torch.no_grad()
def compare(source: Source, threads: int, count: int) -> None:
    """Print the table of one network."""
    model = network(source, threads)
    x, y = samples(source)
    axis = x.dim() - 4
    places = torch.arange(0, len(y), max(1, len(y) // count))[:count]  # of all classes
    x, y = x.index_select(axis, places), y[places]
    block = middle(model)
    seen: list[Tensor] = []
    handle = model.get_submodule(block.path).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    model(x)
    handle.remove()
    cost = leave_out_cost(model, x, y, block)
    right = alone(model, x, y, block, cost.shape[1])
    print(f"{Path(source.config).parts[0]}, {block.path}, {cost.shape[1]} tokens, {len(y)} samples;", end=" ")
    print(f"a token alone is right in {right.float().mean():.1%}")
    rate = ranks("firing_rate", {}, seen[0], model, block)
    for name, (method, settings) in SCORERS.items():
        scores = ranks(method, settings, seen[0], model, block)
        first = right.gather(1, scores.argmax(1, keepdim=True)).float().mean()
        with_cost, with_rate = (rank_correlation(scores, other).mean() for other in (cost, rate))
        print(
            f"| {name} | cost {with_cost:+.2f} | firing rate {with_rate:+.2f} | first {first:.1%} |",
            flush=True,
        )


def ranks(method: str, settings: dict[str, Any], x: Tensor, model: Any, block: TokenBlock) -> Tensor:
    """Scores ``[B, N]``; the mean over T of those that choose at every step."""
    scores: Tensor = make_scorer(method, settings)(x, Point(model, block))
    return scores.mean(dim=0) if scores.dim() == 3 else scores


def main() -> None:
    """Print one table for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help=f"some of: {', '.join(SETS)}")
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    for name in args.names:
        if name not in SETS:
            parser.error(f"unknown set {name!r}; known: {', '.join(SETS)}")
    torch.set_num_threads(args.threads)
    for name in args.names or SETS:
        for source in SETS[name]:
            print(name, end=": ")
            compare(source, args.threads, args.samples)


if __name__ == "__main__":
    main()
