"""What makes a network add up: its calls in order, and whether sums over windows pass through unchanged.

A network of L levels and T steps becomes one of a single level and L T steps, in which step t is the window
of steps ``L t ... L t + L - 1``. That works where everything between two neurons commutes with the sum over
a window. `check_sums` tries it, whatever the layers are.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from spiking import LMHT, Neuron
from spiking.context import Hooks
from spiking.layers import BNTT, TEBN, SpikeMatmul

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOLERANCE = 1e-6  # of sums in float64, in units of the largest current
SAMPLES = 4  # of the batch, enough to see whether layers add up
AFFINE = (_ConvNd, nn.Linear, _BatchNorm)

POOLING = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
)  # fmt: skip
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softmax,
)
REASONS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (POOLING, "the largest of some sums is not the sum of the largest; train with average pooling"),
    ((SpikeMatmul, nn.MultiheadAttention), "the product of two sums is not the sum of products"),
    ((TEBN, BNTT), "it has parameters for each of the T steps"),
    (
        (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm),
        "it divides by a statistic of each step",
    ),
    (ACTIVATIONS, "it is not affine"),
)


class ReparameterisationError(ValueError):
    """The network has no single-threshold form; the message names the layer and the reason."""


@dataclass(frozen=True)
class Call:
    """A module that ran, by its path, in the order of first calls."""

    name: str
    module: nn.Module


def run(model: nn.Module, x: Tensor) -> Tensor:
    """Mean output over time, in evaluation mode: models of the zoo take it themselves, others give steps."""
    with torch.no_grad():
        y: Tensor = model(x)
    return y if hasattr(model, "time_steps") else y.mean(0)


def windows(model: nn.Module, x: Tensor, levels: int) -> Tensor:
    """The input of the single-threshold network: images as they are, of a sequence every step L times."""
    still = hasattr(model, "time_steps") and x.dim() == 4
    return x if still else x.repeat_interleave(levels, 0)


def calls(model: nn.Module, x: Tensor) -> list[Call]:
    """All modules in the order in which they are first called."""
    found: dict[str, Call] = {}
    with ExitStack() as stack:
        hooks = Hooks(stack)
        for name, module in model.named_modules():

            def hook(m: nn.Module, _: Any, name: str = name) -> None:
                found.setdefault(name, Call(name, m))

            hooks.before(module, hook)
        run(model, x)
    return list(found.values())


def refuse(order: list[Call]) -> None:
    """Raise an error for what is known not to add up; before the first neuron everything is real-valued."""
    first = next(i for i, call in enumerate(order) if isinstance(call.module, Neuron))
    for call in order[first:]:
        module, label = call.module, f"{call.name!r} ({type(call.module).__name__})"
        if isinstance(module, Neuron) and not isinstance(module, LMHT):
            raise ReparameterisationError(f"{label} is no LM-HT neuron; all neurons must be")
        if isinstance(module, _NormBase) and not (
            isinstance(module, _BatchNorm) and module.running_mean is not None
        ):
            raise ReparameterisationError(
                f"{label} has no window form: it divides by a statistic of each step"
            )
        for kinds, reason in REASONS:
            if isinstance(module, kinds):
                raise ReparameterisationError(f"{label} has no window form: {reason}")


def check_sums(model: nn.Module, single: nn.Module, x: Tensor, levels: int, order: list[Call]) -> None:
    """Try whether what lies between neurons commutes with the sum over a window.

    The outputs of the network's neurons are spread over the steps of their windows at random, in shares that
    differ everywhere. Whatever comes in between, the currents of the next neurons must add up.

    Args:
        model: the network of L levels.
        single: the network of one level.
        x: input of ``model``.
        levels: L.
        order: the calls of ``model``.

    Raises:
        ReparameterisationError: names the first neuron whose currents do not add up.
    """
    model, single, x = copy.deepcopy(model).double(), copy.deepcopy(single).double(), x.double()
    check = _Sums(levels, order, torch.Generator(device=x.device).manual_seed(0))
    with hooked(model, check.record):
        want = run(model, x)
    with hooked(single, check.spread):
        got = run(single, windows(model, x, levels))
    if not close(got, want):
        last = next(call.name for call in reversed(order) if isinstance(call.module, Neuron))
        raise ReparameterisationError(f"the output does not add up over windows, behind {last!r}")


class _Sums:
    """Currents and outputs of the neurons of a network, and the hooks that compare with them."""

    def __init__(self, levels: int, order: list[Call], generator: torch.Generator) -> None:
        self.levels, self.order, self.generator = levels, order, generator
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def record(self, name: str) -> Callable[..., None]:
        """A hook that keeps what a neuron of the network takes and gives."""
        return lambda m, inputs, y: self.seen.setdefault(name, []).append((inputs[0], y))

    def spread(self, name: str) -> Callable[..., Tensor]:
        """A hook that checks the currents of a single-threshold neuron, and spreads what was recorded."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            want, y = self.seen[name].pop(0)
            if not close(window_sums(inputs[0], self.levels), want):
                raise ReparameterisationError(
                    f"the currents of {name!r} do not add up over a window: {between(self.order, name)}"
                )
            size = (self.levels, *y.shape)
            shares = torch.rand(*size, generator=self.generator, dtype=y.dtype, device=y.device)
            parts = shares / shares.sum(0) * y
            return parts.transpose(0, 1).reshape(output.shape)

        return hook


def window_sums(x: Tensor, levels: int) -> Tensor:
    """``[L T, ...]`` -> ``[T, ...]``."""
    return x.reshape(-1, levels, *x.shape[1:]).sum(1)


def close(got: Tensor, want: Tensor) -> bool:
    """Equal up to rounding."""
    if got.shape != want.shape:
        return False
    return bool((got - want).abs().max() <= TOLERANCE * want.abs().max().clamp(min=1e-3))


def between(order: list[Call], name: str) -> str:
    """Words for what ran between a neuron and the ones before it."""
    at = next(i for i, call in enumerate(order) if call.name == name)
    start = next((i for i in range(at - 1, -1, -1) if isinstance(order[i].module, Neuron)), -1)
    parts = [f"{c.name} ({type(c.module).__name__})" for c in order[start + 1 : at] if c.name]
    return f"something among {', '.join(parts) or 'the operations before it'} is not affine"


def hooked(model: nn.Module, make: Callable[[str], Callable[..., Any]]) -> ExitStack:
    """A context in which every LM-HT neuron has the forward hook ``make(path)``."""
    stack = ExitStack()
    hooks = Hooks(stack)
    for name, neuron in neurons(model):
        hooks.after(neuron, make(name))
    return stack


def neurons(model: nn.Module) -> Iterator[tuple[str, LMHT]]:
    """LM-HT neurons by path."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, LMHT))


def levels_and_steps(model: nn.Module) -> tuple[int, int]:
    """L and T of all neurons.

    Raises:
        ReparameterisationError: there are no LM-HT neurons, or they differ.
    """
    sizes = {(neuron.levels, neuron.time_steps) for _, neuron in neurons(model)}
    if not sizes:
        raise ReparameterisationError(f"{type(model).__name__} has no LM-HT neurons")
    if len(sizes) > 1:
        raise ReparameterisationError(f"the neurons differ in their levels and steps (L, T): {sorted(sizes)}")
    return sizes.pop()


def divide_shift(layer: nn.Module, by: float) -> None:
    """Let an affine layer see a part of what it saw, and give that part of what it gave."""
    for name in ("bias", "running_mean"):
        value = getattr(layer, name, None)
        if value is not None:
            value.div_(by)
