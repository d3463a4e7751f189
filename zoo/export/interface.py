"""What goes into an exported network and what comes out: the function that is traced, and inputs for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion import ConvertedModel
from conversion.inputs import TOKENS, tokens
from zoo.errors import ExportError
from zoo.rebuild import runs_over_time
from zoo.registry import task_of
from zoo.tasks import CLASSIFICATION, CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output.

    Attributes:
        name: in the file.
        batch: the axis of the batch; None for one that no sample has for itself.
        factor: entries along it that one sample has.
    """

    name: str
    batch: int | None = 0
    factor: int = 1

    def axes(self, x: Tensor) -> str:
        """``[batch, 10]`` of a value of it."""
        samples = "batch" if self.factor == 1 else f"{self.factor}*batch"
        sizes = [samples if axis == self.batch else str(size) for axis, size in enumerate(x.shape)]
        return f"[{', '.join(sizes)}]"


@dataclass(frozen=True, kw_only=True)
class Interface:
    """A network as a plain function of tensors.

    Attributes:
        program: the function; in eager mode it is the network itself.
        inputs: in order.
        outputs: in order.
        draw: random inputs for so many samples, from a generator.
        steps: T, of a network whose outputs are those of single steps.
    """

    program: nn.Module
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    draw: Callable[[int, torch.Generator], tuple[Tensor, ...]]
    steps: int | None = None

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the network itself gives."""
        found = self.program(*inputs)
        return (found,) if isinstance(found, Tensor) else tuple(found)


class AllSteps(nn.Module):
    """Logits of every step: images ``[B, ...]``, or frames ``[T, B, ...]``, -> ``[T, B, K]``.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, K]``."""
        logits: Tensor = self.model(x, steps=True)
        return logits


def interface_of(model: nn.Module, sequence: bool = False) -> Interface:
    """How a network is called in a file that holds all its steps.

    Raises:
        ExportError: its inputs and outputs are no plain tensors; says what to do.
    """
    task = task_of(model)
    if task.name == CONTROL.name:
        _refuse_sequence(sequence, "an agent takes observations")
        return _plain(model, "observations", (sample_size(model),), "actions")
    if task.name != CLASSIFICATION.name:
        raise ExportError(
            f"{type(model).__name__} is {task.noun_phrase}, whose inputs and outputs no single call has;"
            " zoo.export writes image classifiers, converted networks and agents. Export the part that you"
            " need yourself: torch.export.export(model.PART, (inputs,))"
        )
    size = input_size(model)
    name = "images" if len(size) == 3 else "inputs"
    if not runs_over_time(model):
        _refuse_sequence(sequence, f"{type(model).__name__} has no time steps")
        return _plain(model, name, size, "logits")
    if sequence and isinstance(model, ConvertedModel):
        raise ExportError("a converted network makes its own steps from still images; leave the sequence out")
    if isinstance(model, ConvertedModel) and model.recipe.get("input_dtype") == TOKENS:
        return _with_steps(model, Port(name="tokens"), lambda count, _: some_tokens(model, size, count))
    steps = steps_of(model)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        if sequence:  # counts of events are no less than zero
            return torch.randn(steps, count, *size, generator=generator).abs()
        return torch.randn(count, *size, generator=generator)

    return _with_steps(model, Port(name="frames", batch=1) if sequence else Port(name=name), draw)


def steps_of(model: nn.Module) -> int:
    """T of a file that holds all steps.

    Raises:
        ExportError: nobody said it, as in the file of another library.
    """
    steps = getattr(model, "time_steps", 1)
    if steps is None:
        raise ExportError(
            f"{type(model).__name__} does not say T, which the file fixes: --time-steps T, or set"
            " model.time_steps"
        )
    return int(steps)


def input_size(model: nn.Module) -> tuple[int, ...]:
    """The size of one sample that ``model`` takes, such as ``(C, H, W)``.

    Raises:
        ExportError: it does not say.
    """
    if isinstance(model, ConvertedModel):
        return tuple(int(size) for size in model.recipe["input_size"])
    cfg: Any = getattr(model, "pretrained_cfg", None)
    size: Any = getattr(model, "input_shape", None)  # of networks that take more than images
    if not size:
        size = cfg.get("input_size") if isinstance(cfg, dict) else None
    if not size:
        raise ExportError(
            f"{type(model).__name__} does not say which images it takes; set"
            ' model.pretrained_cfg = {"input_size": (C, H, W)}'
        )
    return tuple(int(side) for side in size)


def sample_size(agent: Any) -> int:
    """Numbers in an observation.

    Raises:
        ExportError: the agent does not say.
    """
    if not isinstance(getattr(agent, "obs_dim", None), int):
        raise ExportError(f"{type(agent).__name__} does not say how long its observations are: set obs_dim")
    return int(agent.obs_dim)


def some_tokens(model: nn.Module, size: tuple[int, ...], count: int) -> Tensor:
    """Numbers of tokens ``[count, *size]`` that the network knows."""
    pair = tokens(model, size)
    return pair.repeat(-(-count // 2), *(1 for _ in size))[:count]


def _plain(model: nn.Module, name: str, size: tuple[int, ...], output: str) -> Interface:
    return Interface(
        program=model,
        inputs=[Port(name=name)],
        outputs=[Port(name=output)],
        draw=lambda count, generator: (torch.randn(count, *size, generator=generator),),
    )


def _with_steps(model: nn.Module, port: Port, draw: Callable[[int, torch.Generator], Tensor]) -> Interface:
    return Interface(
        program=AllSteps(model),
        inputs=[port],
        outputs=[Port(name="logits", batch=1)],
        draw=lambda count, generator: (draw(count, generator),),
        steps=steps_of(model),
    )


def _refuse_sequence(sequence: bool, why: str) -> None:
    if sequence:
        raise ExportError(f"sequence=True is for networks that take frames [T, B, C, H, W]; {why}")
