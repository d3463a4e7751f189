"""Arithmetic in which two ways to write one network agree to many digits: float64, and without jumps.

In float32 a right conversion differs from its source: rounding adds up over depth, and where it carries a
value over the edge of a quantiser's bin, a whole level comes of it. In float64 the first is far below what a
wrong rule changes; the second is not, however rare it becomes, so that within `exact` every function with
jumps is one without, of the same arguments.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from typing_extensions import override

from conversion.graph.ops import op_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def exact(noise: float = 0.0) -> Iterator[None]:
    """Within the block modules compute in float64, whatever their parameters are, and without jumps.

    Nothing is copied or cast for longer than a call of an operator: memory beyond that of the activations is
    that of the largest weight. Tensors that were made outside and are changed in place keep their dtype.

    Args:
        noise: relative error that weights and images are given, normally distributed; the same in every
            block of the same calls.
    """
    make: Any = _Operators  # torch leaves the constructor untyped
    calls, operators = _Calls(), make()
    calls.widen = operators.widen = _Widen(noise)
    with calls, operators:
        yield


_ATTRIBUTE: Any = Tensor.dtype
DTYPE = _ATTRIBUTE.__get__  # what asking a tensor for its dtype calls; a new object each time


class _Widen:
    """A tensor in float64. Only what is stored, weights and images, comes in less.

    Attributes:
        stored: the dtype in which it came, None before any did.
    """

    stored: torch.dtype | None = None

    def __init__(self, noise: float) -> None:
        self.noise, self.generator = noise, torch.Generator().manual_seed(0)

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == torch.float64:
            return value
        self.stored = self.stored or value.dtype
        if not self.noise:
            return value.double()
        error = torch.randn(value.shape, generator=self.generator, dtype=torch.float64)
        return value.double() * (1 + self.noise * error.to(value.device))

    def told(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype that a module is told, so that ``torch.finfo`` gives it the numbers of its export."""
        return self.stored if dtype == torch.float64 and self.stored is not None else dtype


class _Calls(TorchFunctionMode):
    """Operands in float64 before anything looks at their dtypes."""

    widen: _Widen

    @override
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == DTYPE:
            return self.widen.told(func(*args))
        if _name(func).endswith("_") or _name(func).startswith("__i"):  # attributes, and changes in place
            return func(*args, **kwargs)
        args, kwargs = tree_map(self.widen, (args, kwargs))
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """Results in float64 of every operator that a call comes down to, and no jumps."""

    widen: _Widen

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {k: _wide_dtype(v) for k, v in (kwargs or {}).items()}
        if func._schema.is_mutable:
            return _in_place(func, args, kwargs, self.widen)
        args, kwargs = tree_map(self.widen, (args, kwargs))
        args = tuple(_wide_dtype(a) for a in args)
        smooth = SMOOTH.get(op_name(func))
        return tree_map(self.widen, func(*args, **kwargs) if smooth is None else smooth(*args, **kwargs))


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", ""))


def _in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], widen: _Widen) -> Any:
    """A call that changes its operands: they stay as they are, and jumps are smoothed, too."""
    smooth = SMOOTH.get(op_name(func).removesuffix("_"))
    if smooth is None:
        return func(*args, **kwargs)
    return args[0].copy_(smooth(*map(widen, args), **kwargs))


def _wide_dtype(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


# -- functions without jumps, one in the place of each that has some ---------------------------------------


def stairs(x: Tensor) -> Tensor:
    """As ``round``, of slopes between a half and three halves: what is not it differs visibly from it."""
    return x + (2 * math.pi * x).sin() / (4 * math.pi)


def smooth_qcfs(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    """As `spiking.qcfs.qcfs`, by `stairs`."""
    theta = v_threshold.reshape(()) if v_threshold.numel() == 1 else v_threshold
    return stairs(x * levels / theta).clamp(0, levels) * theta / levels


def _quotient(a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    quotient: Tensor = a / b
    return quotient if rounding_mode is None else stairs(quotient - 0.5)


def _rest(a: Any, b: Any) -> Tensor:
    rest: Tensor = a - b * stairs(a / b - 0.5)
    return rest


SMOOTH: dict[str, Callable[..., Tensor]] = {
    "fulgurite.qcfs": smooth_qcfs,
    "round": lambda x, **_: stairs(x),
    "floor": lambda x: stairs(x - 0.5),
    "ceil": lambda x: stairs(x + 0.5),
    "trunc": stairs,
    "fix": stairs,
    "frac": lambda x: x - stairs(x),
    "sign": torch.tanh,
    "sgn": torch.tanh,
    "heaviside": lambda x, _: (1 + x.tanh()) / 2,
    "div": _quotient,
    "divide": _quotient,
    "floor_divide": lambda a, b: _quotient(a, b, rounding_mode="floor"),
    "remainder": _rest,
    "fmod": _rest,
}
