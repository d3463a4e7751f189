"""What each operation of an exported graph means for a signal that is spread over time.

An operation is *affine* in the signal (it may run on every step alone), *nonlinear* (it must see the
represented value, the running mean over time), an *activation* (which a neuron can replace), or it
is refused. Nothing is guessed: what is not in `conversion.graph.tables` has no rule. Truth values and
positions, such as ``x > 0`` or ``argmax``, and what depends on them, are nonlinear.

Source: section 6.3 of the survey of timm's operations that ECMT (arXiv 2502.21193) and DCGS (arXiv
2503.00301) need; affine operations commute with the mean over time, nothing else does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from conversion.graph.tables import (
    ACTIVATIONS,
    ASSIGNMENTS,
    ATTENTION,
    BLENDS,
    COPIES,
    FILLED,
    LINEAR,
    MASKS,
    MATRIX_PRODUCTS,
    MULTIPLIES,
    NONLINEAR,
    PRODUCTS,
    RANDOM,
    REFUSED,
    REWRITTEN,
    SHAPE,
    SUMS,
    WEIGHTED,
)

if TYPE_CHECKING:
    from torch import fx

__all__ = [
    "ACTIVATIONS",
    "ATTENTION",
    "COPIES",
    "FILLED",
    "LINEAR",
    "MASKS",
    "MATRIX_PRODUCTS",
    "MULTIPLIES",
    "NONLINEAR",
    "PRODUCTS",
    "SHAPE",
    "SUMS",
    "WEIGHTED",
    "IsSignal",
    "Role",
    "UnsupportedOperationError",
    "filled_with",
    "has_rule",
    "is_filled",
    "is_integer",
    "module_path",
    "op_name",
    "refuse_random",
    "role",
]

Role = Literal["affine", "weighted", "nonlinear", "activation"]
IsSignal = Callable[[Any], bool]
Rule = Callable[["fx.Node", str, IsSignal], Role]


INTEGERS: frozenset[Any] = frozenset(
    {operator.mul, operator.add, operator.sub, operator.floordiv, operator.mod, operator.truediv}
)


class UnsupportedOperationError(ValueError):
    """An operation that no rule covers; the model was not converted."""


def op_name(target: Any) -> str:
    """``aten.conv2d.default`` -> ``conv2d``; operators of this project keep their namespace."""
    if isinstance(target, torch._ops.OpOverload):
        space, _, name = target._schema.name.partition("::")
        return name if space == "aten" else f"{space}.{name}"
    return getattr(target, "__name__", str(target))


def is_integer(node: fx.Node) -> bool:
    """Whether a node computes sizes rather than tensors."""
    return node.op == "call_function" and (
        node.target in INTEGERS or op_name(node.target) in ("sym_size", "sym_numel", "sym_stride")
    )


def is_filled(node: fx.Node) -> bool:
    """Whether a node is a constant of the size of the batch, on the device of the images."""
    return node.op == "call_function" and op_name(node.target) == "new_full"


def filled_with(node: fx.Node) -> Any:
    """What a node of `FILLED` holds in every place: a number or a node."""
    name = op_name(node.target)
    value = FILLED[name]
    return node.args[2 if name == "new_full" else 1] if value is None else value


def role(node: fx.Node, is_signal: IsSignal) -> Role:
    """What a call of an operator means for the signal.

    Args:
        node: a ``call_function`` with at least one operand that is a signal.
        is_signal: whether an operand, or one of a list of operands, depends on the image.

    Raises:
        UnsupportedOperationError: no rule covers the operation; names the node, the operation and the
            module that it belongs to.
    """
    name = op_name(node.target)
    rule = next((rule for names, rule in RULES if name in names), None)
    if rule is None:
        raise _unsupported(node, name)
    found = rule(node, name, is_signal)
    if name != "getitem":
        real = [_is_real(a) for a in (node, *_signals(node, is_signal))]
        if not all(real) and (name not in SHAPE or any(real)):
            return "nonlinear"
    return found


def has_rule(target: Any) -> bool:
    """Whether an operator need not be taken apart into others."""
    name = op_name(target)
    return name in FILLED or name in REWRITTEN or any(name in names for names, _ in RULES)


def refuse_random(node: fx.Node) -> None:
    """Raise an error if ``node`` draws numbers, whatever it depends on."""
    if op_name(node.target) in RANDOM:
        raise _unsupported(node, op_name(node.target))


def _affine(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return "affine"


def _nonlinear(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return "nonlinear"


def _activation(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    rectifies = name != "hardtanh" or float(_argument(node, 1, "min_val", -1.0)) == 0.0
    return "activation" if rectifies else "nonlinear"


def _weighted(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    """A layer, unless its weights depend on the image, too."""
    return "weighted" if _signals(node, is_signal) == list(node.args[:1]) else "nonlinear"


def _linear(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    if name == "batch_norm" and node.args[5]:
        raise _unsupported(node, "batch norm with the statistics of the batch at hand")
    return "affine"


def _shape(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    """Nonlinear where positions depend on the image."""
    return (
        "nonlinear" if any(is_signal(a) for a in node.args[1:]) and not _is_list(node.args[0]) else "affine"
    )


def _assignment(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    multiplies = node.kwargs.get("reduce") == "multiply"
    if name == "scatter_reduce":
        multiplies = _argument(node, 4, "reduce", "") not in ("sum", "mean")
    return "nonlinear" if multiplies else _only(node, ASSIGNMENTS[name], is_signal)


def _blend(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return _only(node, BLENDS[name], is_signal)


def _only(node: fx.Node, places: tuple[int, ...], is_signal: IsSignal) -> Role:
    """Affine if no operand but those in these places is a signal."""
    others = [a for i, a in enumerate(node.args) if i not in places]
    return "nonlinear" if any(is_signal(a) for a in others) else "affine"


def _product(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return "affine" if len(_signals(node, is_signal)) <= 1 else "nonlinear"


def _quotient(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    rounded = node.kwargs.get("rounding_mode") is not None
    return "nonlinear" if rounded or is_signal(node.args[1]) else "affine"


def _masked(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return "nonlinear" if is_signal(node.args[0] if name == "where" else node.args[1]) else "affine"


def _is_real(value: Any) -> bool:
    """Whether the values of a node can be spread over time; those of a tuple are asked one by one."""
    tensor = value.meta.get("val")
    return not isinstance(tensor, torch.Tensor) or tensor.is_floating_point()


def module_path(node: fx.Node) -> str:
    """Path of the innermost module of the source that ``node`` belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    return paths[-1] if paths else ""


def _unsupported(node: fx.Node, what: str) -> UnsupportedOperationError:
    why = REFUSED.get(what)
    return UnsupportedOperationError(
        f"no conversion rule covers {what!r} (node {node.name!r}, operation {node.target}, module"
        f" {module_path(node) or 'top level'!r})"
        + (f": it {why};" if why else ";")
        + " replace it in the source network by an operation that has a rule, or convert the part of the"
        " network before it"
    )


def _signals(node: fx.Node, is_signal: IsSignal) -> list[Any]:
    return [a for a in _flat(node.args) if is_signal(a)]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _flat(values: Any) -> list[Any]:
    return [v for value in values for v in (_flat(value) if _is_list(value) else [value])]


def _argument(node: fx.Node, index: int, key: str, default: Any) -> Any:
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(key, default)


# the groups of operations, each with the function that gives the role of one; the first group counts
RULES: tuple[tuple[frozenset[str], Rule], ...] = (
    (frozenset({"getitem"}), _affine),
    (ACTIVATIONS, _activation),
    (NONLINEAR, _nonlinear),
    (WEIGHTED, _weighted),
    (SUMS, _affine),
    (frozenset(ASSIGNMENTS), _assignment),
    (frozenset(BLENDS), _blend),
    (LINEAR, _linear),
    (SHAPE, _shape),
    (PRODUCTS, _product),
    (frozenset({"div"}), _quotient),
    (MASKS, _masked),
)
