"""Plain modules with neurons of ours: what they take and give shows when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spiking.neurons.base import Temporal
from zoo.errors import ExportError
from zoo.export.ports import Interface, Port, moving_axes, steps_of

if TYPE_CHECKING:
    from torch import Tensor, nn

COUNTS = (2, 3)  # samples of two runs: the axis that differs is theirs
SEQUENCES = (
    "of a module that takes sequences set model.time_steps and say sequence=True; one that takes images"
    " repeats them over T in its forward"
)


def has_units(model: nn.Module) -> bool:
    """Whether units over time are in a module, so that ``[T, B, ...]`` goes through them."""
    return any(isinstance(module, Temporal) for module in model.modules())


def own_interface(
    model: nn.Module, port: Port, size: tuple[int, ...], output: str, *, sequence: bool, step: bool
) -> Interface:
    """How a module with neurons is called that no class of the zoo wraps.

    Args:
        model: in evaluation mode.
        port: where single samples go in.
        size: of one sample.
        output: what comes out is called.
        sequence: it takes ``[T, B, *size]``, else ``[B, *size]`` and makes its steps itself.
        step: describe one step of a sequence, ``[B, *size]``; such a module takes sequences.

    Raises:
        ExportError: the module does not run so, or takes samples for time steps.
    """
    sequence = sequence or step
    steps = steps_of(model) if sequence else 1

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        x = torch.randn(steps, count, *size, generator=generator)
        return (x.abs(),) if sequence and not step else (x[0],)

    (few, first), (more, second) = (
        answer(model, torch.ones(steps, count, *size), sequence) for count in COUNTS
    )
    if not sequence and (first, second) == COUNTS:
        raise ExportError(
            f"{type(model).__name__} takes samples for time steps, as its neurons take [T, B, ...]:"
            f" {SEQUENCES}"
        )
    axes = moving_axes(few, more)
    if axes not in ([0], [1]):
        raise ExportError(
            f"{type(model).__name__} answers {list(few.shape)} to {COUNTS[0]} samples and {list(more.shape)}"
            f" to {COUNTS[1]}; expected [batch, ...], or [T, batch, ...] for every step"
        )
    over_time = axes == [1]
    return Interface(
        program=model,
        inputs=[Port(name="frames", batch=1) if sequence and not step else port],
        outputs=[Port(name=output, batch=axes[0])],
        draw=draw,
        steps=len(few) if over_time else None,
    )


def answer(model: nn.Module, x: Tensor, sequence: bool) -> tuple[Tensor, int]:
    """What a module gives for ``x [T, B, ...]``, or its first step alone, and how many steps its neurons saw.

    Raises:
        ExportError: it does not run, or gives no tensor.
    """
    lengths: list[int] = []
    units = [module for module in model.modules() if isinstance(module, Temporal)]
    handles = [u.register_forward_pre_hook(lambda _, given: lengths.append(len(given[0]))) for u in units]
    given = list((x if sequence else x[0]).shape)
    try:
        with torch.no_grad():
            found = model(x if sequence else x[0])
    except (RuntimeError, ValueError, IndexError) as error:
        hint = "; a form of one step needs a module that takes [T, B, ...]" if sequence else f"; {SEQUENCES}"
        raise ExportError(f"{type(model).__name__} does not take {given}: {error}{hint}") from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(found, torch.Tensor):
        raise ExportError(f"{type(model).__name__} gives a {type(found).__name__}; expected one tensor")
    return found, lengths[0] if lengths else 0
