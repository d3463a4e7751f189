"""The one place where state lives between calls."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import nn

from spiking.layers import BNTT, TEBN
from spiking.neurons.base import Neuron, Stream, Temporal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@contextmanager
def streaming(model: nn.Module) -> Iterator[None]:
    """Keep the state of all neurons from one call to the next, so that a sequence can come in chunks.

    The model continues where its last call ended: chunks ``[T1, B, ...]``, ``[T2, B, ...]`` give what
    the whole ``[T1 + T2, B, ...]`` gives. A still image ``[B, C, H, W]`` runs ``model.time_steps`` further
    steps at each call. Entering starts from rest; leaving forgets everything, also after an exception.
    Use it under ``torch.no_grad()``, else autograd keeps the graph of all chunks.

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
        raise ValueError(f"{type(model).__name__} contains no spiking neurons, so there is no state to keep")
    _refuse(model)
    with ExitStack() as stack:
        for name, unit in units.items():
            stack.callback(unit.register_forward_pre_hook(_guard(_label(model, name))).remove)
            stack.callback(setattr, unit, "_stream", None)
            unit._stream = Stream()
        yield


def _guard(label: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """A hook that checks that a neuron goes on with the sequence it has begun."""
    shape: list[tuple[int, ...]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            raise RuntimeError(f"{label} was put into training mode inside a streaming block; leave it first")
        step = tuple(inputs[0].shape[1:])
        if not shape:
            shape.append(step)
        elif step != shape[0]:
            raise ValueError(
                f"{label} received steps [B, ...] = {step} after steps {shape[0]} in the same stream;"
                " leave the streaming block and enter it again for another batch size or map"
            )

    return look


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
            if module._stream is not None:
                raise RuntimeError(f"{what} streams already; leave the other streaming block first")
        elif isinstance(module, (TEBN, BNTT)):
            raise RuntimeError(
                f"{what} has parameters for each of its T = {module.time_steps} steps, so it cannot tell"
                " which step a chunk starts with; run the whole sequence in one call"
            )


def _label(model: nn.Module, name: str) -> str:
    return name or type(model).__name__
