"""What goes into an exported network and what comes out: the function that is traced, and inputs for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion import ConvertedModel
from conversion.inputs import TOKENS, tokens
from zoo.base import ZooModel
from zoo.errors import ExportError
from zoo.export.own import has_units, own_interface
from zoo.export.ports import Interface, Port, steps_of
from zoo.rebuild import runs_over_time
from zoo.registry import task_of
from zoo.tasks import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.tasks import Task

ANSWERS = {  # what an output is called, by task; others have no single call
    "classification": "logits",
    "multi-label": "logits",
    "segmentation": "logits",
    "regression": "values",
    "control": "actions",
}


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


def interface_of(model: nn.Module, sequence: bool = False, step: bool = False) -> Interface:
    """How a network is called in a file that holds all its steps.

    Args:
        model: in evaluation mode.
        sequence: frames of every step go in.
        step: the file is to hold one step of it; only plain modules are called differently then.

    Raises:
        ExportError: its inputs and outputs are no plain tensors; says what to do.
    """
    task = task_of(model)
    check_task(task, type(model).__name__)
    if task.name == CONTROL.name:
        _refuse_sequence(sequence, "an agent takes observations")
        return _plain(model, "observations", (sample_size(model),), ANSWERS[task.name])
    output = ANSWERS[task.name]
    size = input_size(model)
    name = "images" if len(size) == 3 else "inputs"
    if not runs_over_time(model):
        if not isinstance(model, ZooModel) and has_units(model):
            return own_interface(model, Port(name=name), size, output, sequence=sequence, step=step)
        _refuse_sequence(sequence, f"{type(model).__name__} has no time steps")
        return _plain(model, name, size, output)
    if sequence and isinstance(model, ConvertedModel):
        raise ExportError("a converted network makes its own steps from still images; leave the sequence out")
    if isinstance(model, ConvertedModel) and model.recipe.get("input_dtype") == TOKENS:
        return _with_steps(
            model, Port(name="tokens"), output, lambda count, _: some_tokens(model, size, count)
        )
    steps = steps_of(model)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        if sequence:  # counts of events are no less than zero
            return torch.randn(steps, count, *size, generator=generator).abs()
        return torch.randn(count, *size, generator=generator)

    return _with_steps(model, Port(name="frames", batch=1) if sequence else Port(name=name), output, draw)


def check_task(task: Task, name: str) -> None:
    """Refuse what a single call cannot do.

    Args:
        task: of the network.
        name: of the network, for the message.

    Raises:
        ExportError: says what to do.
    """
    if task.name not in ANSWERS:
        raise ExportError(
            f"{name} is {task.noun_phrase}, whose inputs and outputs no single call has; zoo.export writes"
            " networks that take images, converted networks and agents. Export the part that you need"
            " yourself: torch.export.export(model.PART, (inputs,))"
        )


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


def _with_steps(
    model: nn.Module, port: Port, output: str, draw: Callable[[int, torch.Generator], Tensor]
) -> Interface:
    return Interface(
        program=AllSteps(model),
        inputs=[port],
        outputs=[Port(name=output, batch=1)],
        draw=lambda count, generator: (draw(count, generator),),
        steps=steps_of(model),
    )


def _refuse_sequence(sequence: bool, why: str) -> None:
    if sequence:
        raise ExportError(f"sequence=True is for networks that take frames [T, B, C, H, W]; {why}")
