"""One time step as a function: input and states in, logits and states out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion import ConvertedModel
from spiking.neurons.base import Temporal
from spiking.neurons.stream import STREAMS, Stream
from spiking.streaming import streaming
from zoo.base import ZooModel
from zoo.errors import ExportError
from zoo.export.ports import Interface, Port, moving_axes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zoo.export.ports import Run

STEPS_DONE = "steps_done"
FEWEST, MOST = 3, 6  # steps over which a file is compared with the network


@dataclass(frozen=True, kw_only=True)
class Part:
    """One tensor that a unit carries from step to step.

    Attributes:
        name: such as ``layer1.0.neuron.v``.
        batch: the axis of the batch.
        factor: entries along it that one sample has.
        shape: for one sample.
        rest: its value before the first step: a number, or a tensor of one sample.
    """

    name: str
    batch: int
    factor: int
    shape: tuple[int, ...]
    rest: float | Tensor
    dtype: torch.dtype

    def empty(self, count: int) -> Tensor:
        """Zeros for so many samples."""
        sizes = [size * count if axis == self.batch else size for axis, size in enumerate(self.shape)]
        return torch.zeros(sizes, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a unit carries from step to step.

    Attributes:
        unit: its path.
        parts: tensors.
        counts: whether the number of steps comes before them.
        alone: whether the state is a tensor, and no tuple.
    """

    unit: str
    parts: tuple[Part, ...]
    counts: bool
    alone: bool

    def state(self, done: Tensor, values: Sequence[Tensor]) -> Any:
        """The state of the unit from its parts."""
        return values[0] if self.alone else ((done, *values) if self.counts else tuple(values))

    def tensors(self, state: Any) -> list[Tensor]:
        """The parts of a state."""
        return [state] if self.alone else list(state[1:] if self.counts else state)


class OneStep(nn.Module):
    """``(x, steps done, states...)`` -> ``(logits [B, K], steps done, states...)``.

    Before the first step, where no steps are done, the states that come in are not looked at: units start
    from rest.

    Args:
        model: the network.
        memories: of its units; their parts, in this order, are the states.
    """

    def __init__(self, model: nn.Module, memories: Sequence[Memory]) -> None:
        super().__init__()
        self.model, self.memories = model, tuple(memories)
        self._rest: dict[str, float | str] = {}
        for index, part in enumerate(part for memory in memories for part in memory.parts):
            if isinstance(part.rest, Tensor):
                self.register_buffer(f"rest_{index}", part.rest)
                self._rest[part.name] = f"rest_{index}"
            else:
                self._rest[part.name] = part.rest

    def forward(self, x: Tensor, done: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """One step on ``x [B, ...]`` after ``done []`` steps."""
        given = iter(states)
        streams = {}
        for memory in self.memories:
            values = [torch.where(done == 0, self._at_rest(part), next(given)) for part in memory.parts]
            streams[memory.unit] = Stream(label=memory.unit, state=memory.state(done, values))
        with STREAMS.given({self.model.get_submodule(name): stream for name, stream in streams.items()}):
            logits = next_step(self.model, x)
        after = [t.clone() for m in self.memories for t in m.tensors(streams[m.unit].state)]
        return logits, done + 1, *after

    def _at_rest(self, part: Part) -> float | Tensor:
        rest = self._rest[part.name]
        return self.get_buffer(rest) if isinstance(rest, str) else rest


class Streamed(nn.Module):
    """The network itself, step by step: ``[T, B, ...]`` -> logits ``[T, B, K]``.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """All steps, each with an input of its own."""
        with streaming(self.model):
            return torch.stack([next_step(self.model, now) for now in x])


def next_step(model: nn.Module, x: Tensor) -> Tensor:
    """The next step of a network that streams: ``x [B, ...]`` -> logits ``[B, K]``."""
    if isinstance(model, ConvertedModel):
        with model.clock.running(1):
            logits: Tensor = model(x, steps=True)
    elif isinstance(model, ZooModel):
        logits = model(x.unsqueeze(0), steps=True)
    else:
        logits = model(x.unsqueeze(0))
    return logits[0]


def one_step(model: nn.Module, whole: Interface) -> tuple[Interface, Interface]:
    """A network of one step, and what it is compared with: the network over several steps.

    Args:
        model: the network.
        whole: its form of all steps.

    Raises:
        ExportError: it cannot be cut in time, or a state has no place among inputs; names it.
    """
    if whole.steps is None:
        raise ExportError(
            f"{type(model).__name__} gives one answer after all its time steps, so there is no single step to"
            " export; leave step=True out"
        )
    if getattr(model, "mean_frame", False):
        raise ExportError("the network averages the frames of a sequence, so it cannot take one at a time")
    drawn, answer = whole.draw, whole.outputs[0].name
    memories = memories_of(model, drawn)
    parts = [part for memory in memories for part in memory.parts]
    states = [Port(name=f"state.{p.name}", batch=p.batch, factor=p.factor) for p in parts]
    counter = Port(name=STEPS_DONE, batch=None)

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return *drawn(count, generator), torch.tensor(0), *(part.empty(count) for part in parts)

    def draw_several(count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        steps = min(max(whole.steps or 1, FEWEST), MOST)
        return (torch.stack([drawn(count, generator)[0] for _ in range(steps)]),)

    traced = Interface(
        program=OneStep(model, memories),
        inputs=[*whole.inputs, counter, *states],
        outputs=[
            Port(name=answer),
            Port(name=f"next.{STEPS_DONE}", batch=None),
            *(Port(name=f"next.{p.name}", batch=p.batch, factor=p.factor) for p in parts),
        ],
        draw=draw,
    )
    compared = Interface(
        program=Streamed(model),
        inputs=[Port(name=whole.inputs[0].name, batch=1)],
        outputs=[Port(name=answer, batch=1)],
        draw=draw_several,
    )
    return traced, compared


def driven(traced: Interface, run: Run) -> Run:
    """``run``, one step, as a function over several: ``[T, B, ...]`` -> ``[T, B, K]``."""

    def through(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (x,) = inputs
        _, done, *states = traced.draw(x.shape[1], torch.Generator())
        answers = []
        for now in x:
            logits, done, *states = run((now, done, *states))
            answers.append(logits)
        return (torch.stack(answers),)

    return through


def memories_of(model: nn.Module, draw: Any) -> list[Memory]:
    """What each unit over time carries from step to step, in the order of execution."""
    few, more = observed(model, draw, 2), observed(model, draw, 3)
    memories = []
    for name, (unit, x, after) in few.items():
        larger = more[name][1]
        try:
            rest = unit.initial_state(torch.zeros(x.shape, dtype=x.dtype))
            wider = unit.initial_state(torch.zeros(larger.shape, dtype=x.dtype))
        except NotImplementedError:
            rest = None
        if rest is None:
            raise ExportError(f"{name} ({type(unit).__name__}) has no state at rest to begin with")
        memories.append(memory_of(name, unit, rest, wider, after))
    return memories


def memory_of(name: str, unit: Temporal, rest: Any, wider: Any, after: Any) -> Memory:
    """The memory of one unit.

    Args:
        name: its path.
        unit: the unit.
        rest: its state at rest for two samples.
        wider: for three.
        after: its state after a step of two samples.
    """
    alone = isinstance(rest, Tensor)
    pairs = [(rest, wider, after)] if alone else list(zip(rest, wider, after, strict=True))
    counts = not alone and not isinstance(rest[0], Tensor)
    parts = []
    for index, (now, wide, then) in enumerate(pairs):
        if counts and index == 0:
            continue
        label = unit.state_names[index] if index < len(unit.state_names) else str(index)
        if now.shape != then.shape:
            raise ExportError(
                f"the state of {name} ({type(unit).__name__}) grows from step to step, from {list(now.shape)}"
                f" to {list(then.shape)}, which no input of fixed shape can hold"
            )
        parts.append(part_of(f"{name}.{label}", now, wide))
    return Memory(unit=name, parts=tuple(parts), counts=counts, alone=alone)


def part_of(name: str, two: Tensor, three: Tensor) -> Part:
    """A tensor of a state, from its values at rest for two and for three samples."""
    axes = moving_axes(two, three)
    if len(axes) != 1 or two.shape[axes[0]] % 2:
        raise ExportError(f"the state {name} has no axis of samples: {list(two.shape)} for two of them")
    axis, factor = axes[0], two.shape[axes[0]] // 2
    one = two.narrow(axis, 0, factor)
    constant = bool((one == one.flatten()[0]).all())
    return Part(
        name=name,
        batch=axis,
        factor=factor,
        shape=tuple(one.shape),
        rest=float(one.flatten()[0]) if constant else one.clone(),
        dtype=two.dtype,
    )


def observed(model: nn.Module, draw: Any, count: int) -> dict[str, tuple[Temporal, Tensor, Any]]:
    """Units that one step of a network runs: what a step of their input is like, and their state after it."""
    units = {module: name for name, module in model.named_modules() if isinstance(module, Temporal)}
    inputs: dict[nn.Module, Tensor] = {}

    def look(unit: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[unit] = arguments[0][0]

    handles = [unit.register_forward_pre_hook(look) for unit in units]
    try:
        with streaming(model):
            next_step(model, *draw(count, torch.Generator().manual_seed(0)))
            return {units[u]: (u, x, u.stream.state) for u, x in _kept(inputs)}
    except (RuntimeError, ValueError) as error:  # what streaming refuses
        raise ExportError(f"the network has no form of one step: {error}") from error
    finally:
        for handle in handles:
            handle.remove()


def _kept(inputs: dict[nn.Module, Tensor]) -> Iterator[tuple[Any, Tensor]]:
    """Units that have a state."""
    for unit, x in inputs.items():
        stream = STREAMS.get(unit)
        if stream is not None and stream.state is not None:
            yield unit, x
