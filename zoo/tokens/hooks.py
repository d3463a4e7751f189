"""The machinery of token reduction: where tokens are, how some of them leave, how they come back.

Nothing here knows a scoring method or an architecture: a model lists its `TokenBlock` entries, a `Scorer`
ranks tokens, and `TokenReduction` runs blocks on the best of them, through hooks, so that parameters keep
their names and checkpoints stay interchangeable.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, K kept tokens, h heads, d head width.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import nn
from typing_extensions import override

from spiking.neurons import Neuron
from zoo.tokens.gather import best_tokens, gather_tokens, merge_tokens, nearest_kept, put_tokens, token_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.classifier import SpikingModel
    from zoo.layers.token_block import TokenBlock

Operator = Literal["remove", "bypass", "merge"]
OPERATORS: tuple[Operator, ...] = ("remove", "bypass", "merge")


@dataclass(frozen=True)
class Point:
    """A place where tokens are scored: the model and one of its blocks."""

    model: SpikingModel
    block: TokenBlock

    def part(self, path: str | None) -> nn.Module | None:
        """A submodule of the block."""
        if path is None:
            return None
        return self.model.get_submodule(f"{self.block.path}.{path}" if path else self.block.path)

    def spikes(self, x: Tensor) -> Tensor:
        """What the neuron in front makes of ``x``, unseen by monitors; ``x`` where there is none."""
        entry = self.part(self.block.entry)
        if entry is None:
            return x
        assert isinstance(entry, Neuron)
        return entry.run(x, None, False)[0]


class Scorer(nn.Module):
    """Ranks tokens: higher scores stay. Subclasses write `forward`; they own no parameters.

    Attributes:
        needs_grid: whether neighbours on the map matter, so that tokens must keep their places.
        per_step: whether scores differ from step to step, ``[T, B, N]`` instead of ``[B, N]``.
    """

    needs_grid: bool = False
    per_step: bool = False

    def check(self, point: Point) -> None:
        """Raise an error that names the block if it cannot be scored."""

    def forward(self, x: Tensor, point: Point) -> Tensor:
        """Scores ``[B, N]``, or ``[T, B, N]``, of tokens ``[T, B, C, H, W]`` (float32 or float64)."""
        raise NotImplementedError


class Call:
    """What the hooks of one forward pass through ``blocks`` blocks hand to each other."""

    def __init__(self, blocks: int) -> None:
        self.total = 0  # N of the first block
        self.kept: list[Any] = [None] * blocks
        self.sizes: list[Tensor | None] = [None] * (blocks + 1)  # tokens in each token, before a block


class _Calls(threading.local):
    def __init__(self) -> None:
        self.by_reduction: WeakKeyDictionary[TokenReduction, Call] = WeakKeyDictionary()


_CALLS = _Calls()


class TokenReduction(nn.Module):
    """Runs token blocks on part of their tokens; made by `zoo.reduce_tokens`, child ``token_reduction``.

    Args:
        model: the model to attach to.
        scorer: ranks tokens.
        blocks: where, in the order in which they run.
        shares: of the tokens that each block sees.
        operator: what becomes of the others, see `zoo.reduce_tokens`.
        rescale_pool: divide the pooling behind the last block by the number of all tokens.
        rescale_attention: multiply sums over tokens by N / K.
    """

    def __init__(
        self,
        model: SpikingModel,
        scorer: Scorer,
        blocks: Sequence[TokenBlock],
        shares: Sequence[float],
        operator: Operator,
        rescale_pool: bool = False,
        rescale_attention: bool = False,
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.operator, self.shares = operator, tuple(shares)
        self.rescale_pool, self.rescale_attention = rescale_pool, rescale_attention
        self.points = [Point(model, block) for block in blocks]  # a list: the model is no child of ours
        self._traced = Call(len(blocks))
        for i, point in enumerate(self.points):
            self._attach(i, point)

    def _attach(self, i: int, point: Point) -> None:
        block = point.part("")
        assert block is not None
        block.register_forward_pre_hook(functools.partial(self._enter, i))
        if self.operator == "bypass" and not point.block.inner:
            block.register_forward_hook(functools.partial(self._leave, i))
        for path in point.block.inner:
            part = point.part(path)
            assert part is not None
            part.register_forward_pre_hook(functools.partial(self._enter_part, i))
            part.register_forward_hook(functools.partial(self._leave_part, i))
        if self.operator == "merge" or self.rescale_attention:
            mixer = point.part(point.block.mixer)
            if mixer is None:
                raise ValueError(
                    f"{point.block.path} has no sum over tokens that could be rescaled; merging and"
                    " rescale_attention need one"
                )
            mixer.register_forward_pre_hook(functools.partial(self._mix, i))
        if self.rescale_pool and i == len(self.points) - 1:
            block.register_forward_hook(self._pool)

    @property
    def call(self) -> Call:
        """What the hooks of the running forward pass hand to each other; every thread has its own."""
        if torch.compiler.is_compiling():  # values of a trace, which later calls do not read
            return self._traced
        calls = _CALLS.by_reduction
        if self not in calls:
            calls[self] = Call(len(self.points))
        return calls[self]

    # -- hooks ---------------------------------------------------------------------------------

    def _enter(self, i: int, block: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        (x,) = inputs
        if not torch.compiler.is_compiling():
            refuse_streaming(self.points[i].block.path, block)
        N, call = x.shape[-2] * x.shape[-1], self.call
        if i == 0:
            call.total = N
            call.sizes[0] = None
        call.kept[i] = None
        call.sizes[i + 1] = call.sizes[i]
        count = token_count(self.shares[i], N if self.operator == "bypass" else call.total)
        if count >= N:
            return None  # nothing leaves: the very same tensor goes on
        index, target = self.choose(x, self.points[i], count)
        if self.points[i].block.inner:
            call.kept[i] = (index, tuple(x.shape[-2:]))
            return None
        if self.operator == "merge":
            size = call.sizes[i]
            size = x.new_ones(x.shape[1], N) if size is None else size
            y, call.sizes[i + 1] = merge_tokens(x, size, index[0], target)
            return (y,)
        if self.operator == "bypass":
            call.kept[i] = (index, x)
        return (gather_tokens(x, index),)

    @torch.no_grad()
    def choose(self, x: Tensor, point: Point, count: int) -> tuple[Tensor, Tensor]:
        """The kept places ``[T or 1, B, K]``, rising, and where each token goes ``[B, N]`` (in 0 ... K - 1).

        Half-precision features are scored in float32, autocast or not.
        """
        features = x.detach() if x.dtype is torch.float64 else x.detach().float()
        with torch.autocast(x.device.type, enabled=False):
            matching = getattr(self.scorer, "match", None)
            if matching is not None:
                index, target = matching(features, point, count)
                return index.unsqueeze(0), target
            scores = self.scorer(features, point)
        index = best_tokens(scores, count).sort(dim=-1).values
        index = index if scores.dim() == 3 else index.unsqueeze(0)
        target = nearest_kept(features, index[0]) if self.operator == "merge" else index
        return index, target

    def _leave(self, i: int, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        call = self.call
        kept, call.kept[i] = call.kept[i], None
        if kept is None:
            return None
        index, x = kept
        return put_tokens(x, index, output)

    def _enter_part(self, i: int, part: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        kept = self.call.kept[i]
        return None if kept is None else (gather_tokens(inputs[0], kept[0]),)

    def _leave_part(self, i: int, part: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        kept = self.call.kept[i]
        if kept is None:
            return None
        index, (H, W) = kept
        T, B, C = output.shape[:3]
        return put_tokens(output.new_zeros(T, B, C, H, W), index, output)

    def _mix(self, i: int, mixer: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
        a, b = inputs  # a: [T, B, h, d, N]
        call = self.call
        size = call.sizes[i + 1]
        if size is not None:
            a = a * size.to(a.dtype).view(1, a.shape[1], 1, 1, -1)
        if self.rescale_attention and call.total != a.shape[-1]:
            a = a * (call.total / a.shape[-1])
        return a, b

    def _pool(self, block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor | None:
        count = output.shape[-2] * output.shape[-1]
        total = self.call.total
        return None if count == total else output * (count / total)

    @override
    def extra_repr(self) -> str:
        shares = ", ".join(f"{p.block.path}: {s:.3g}" for p, s in zip(self.points, self.shares, strict=True))
        return f"operator={self.operator!r}, keep=[{shares}]"


def refuse_streaming(path: str, block: nn.Module) -> None:
    """Raise an error if the neurons of a block carry their state from call to call."""
    if any(isinstance(m, Neuron) and m.stream is not None for m in block.modules()):
        raise RuntimeError(
            f"{path} reduces its tokens, which takes all steps at once: membranes belong to tokens, so the"
            " choice must not change from chunk to chunk; stream the model without reduction"
        )
