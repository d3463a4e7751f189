"""The one place where state lives between calls."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import nn

from spiking.context import Hooks
from spiking.layers import BNTT, TEBN
from spiking.neurons.base import Neuron, Temporal
from spiking.neurons.stream import Session, Stream, sessions

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def streaming(model: nn.Module) -> Iterator[None]:
    """Keep the state of all neurons from one call to the next, so that a sequence can come in chunks.

    The model continues where its last call ended: chunks ``[T1, B, ...]``, ``[T2, B, ...]`` give what
    the whole ``[T1 + T2, B, ...]`` gives. A still image ``[B, C, H, W]`` runs ``model.time_steps`` further
    steps at each call. Entering starts from rest; leaving forgets everything, also after an exception. A call
    of the model that raises an error inside the block has not happened: the next one goes on from before it.
    Use it under ``torch.no_grad()``, else autograd keeps the graph of all chunks.

    The block belongs to the thread that entered it, or to the task of `asyncio` and the tasks that this one
    starts: calls from elsewhere start from rest and disturb nothing, and another thread may stream the same
    model for itself. Copies of the model do not stream. Blocks nest if they share no unit.

    >>> import torch
    >>> from spiking.neurons import IF
    >>> neuron = IF().eval()
    >>> with streaming(neuron):
    ...     [neuron(torch.full((1, 1), 0.5)).item() for step in range(4)]
    [0.0, 1.0, 0.0, 1.0]

    Args:
        model: a model in evaluation mode.

    Raises:
        RuntimeError: the model is in training mode, streams already, or holds a neuron or layer that
            cannot be cut in time; the message names it.
        ValueError: the model contains no neurons.
    """
    units = {name: module for name, module in model.named_modules() if isinstance(module, Temporal)}
    if not any(isinstance(unit, Neuron) for unit in units.values()):
        raise ValueError(f"{model._get_name()} contains no spiking neurons, so there is no state to keep")
    _refuse(model)
    session = Session(streams={unit: Stream(label=_label(model, name)) for name, unit in units.items()})
    with ExitStack() as stack:
        stack.enter_context(session.held())
        hooks = Hooks(stack)
        hooks.before(model, session.begin)
        hooks.after(model, session.end)
        yield


@contextmanager
def as_one(model: nn.Module) -> Iterator[None]:
    """Within the block all calls of ``model`` are one: where one raises an error, none has happened."""
    found = [s for s in sessions(model.modules()) if not s.whole]
    for session in found:
        session.begin()
        session.whole = True
    try:
        yield
    finally:
        for session in found:
            session.whole = False
    for session in found:
        session.end()


def _refuse(model: nn.Module) -> None:
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        raise RuntimeError(
            f"streaming needs evaluation mode, but {_label(model, training[0])} is in training mode;"
            " call model.eval() first"
        )
    for name, module in model.named_modules():
        what = f"{_label(model, name)} ({type(module).__name__})"
        if isinstance(module, Temporal):
            if not module.causal:
                raise RuntimeError(
                    f"{what} is not causal: its steps depend on later ones, so a sequence cannot come in"
                    " chunks; run the whole sequence in one call, or build the model with a causal neuron"
                )
            if module.stream is not None:
                raise RuntimeError(f"{what} streams already; leave the other streaming block first")
        elif isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise RuntimeError(
                f"{what} runs copies of the model that live for one call; stream the model inside it,"
                " model.module"
            )
        elif isinstance(module, (TEBN, BNTT)):
            raise RuntimeError(
                f"{what} has parameters for each of its T = {module.time_steps} steps, so it cannot tell"
                " which step a chunk starts with; run the whole sequence in one call"
            )


def _label(model: nn.Module, name: str) -> str:
    return name or type(model).__name__
