"""What each operation of an exported graph means for a signal that is spread over time.

An operation is *affine* in the signal (it may run on every step alone), *nonlinear* (it must see the
represented value, the running mean over time), an *activation* (which a neuron can replace), or it
is refused. Nothing is guessed: what is not in these tables has no rule.

Source: section 6.3 of the survey of timm's operations that ECMT (arXiv 2502.21193) and DCGS (arXiv
2503.00301) need; affine operations commute with the mean over time, nothing else does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch import fx

Role = Literal["affine", "weighted", "nonlinear", "activation"]
IsSignal = Callable[[Any], bool]
Rule = Callable[["fx.Node", str, IsSignal], Role]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# affine whatever the other operands are, as long as only one kind of operand is the signal
SHAPE = _names(
    """
    view reshape _unsafe_view permute transpose t unsqueeze squeeze expand clone contiguous slice select
    unbind split split_with_sizes chunk cat stack roll flatten unflatten alias detach _to_copy to
    repeat flip index_select index gather pixel_shuffle pixel_unshuffle constant_pad_nd pad im2col
    unfold narrow movedim lift_fresh_copy channel_shuffle native_channel_shuffle repeat_interleave
    swapaxes upsample_nearest2d upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d
    _upsample_bicubic2d_aa reflection_pad2d replication_pad2d rot90 moveaxis tile view_as expand_as
    reshape_as squeeze_ unsqueeze_
    """
)
LINEAR = _names(
    """
    neg mean sum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
    _adaptive_avg_pool2d adaptive_avg_pool3d cumsum batch_norm _native_batch_norm_legit_no_training
    """
)
SUMS = _names("add sub rsub slice_scatter select_scatter copy")  # affine in every operand
WEIGHTED = _names("conv1d conv2d conv3d convolution conv_transpose2d linear")
PRODUCTS = _names("mul matmul bmm mm einsum linalg_vecdot dot mv baddbmm addmm addbmm addcmul")
MASKS = _names("where masked_fill")  # affine if the mask does not depend on the image
NONLINEAR = _names(
    """
    gelu silu sigmoid tanh hardswish hardsigmoid softmax _softmax _safe_softmax log_softmax layer_norm
    native_layer_norm group_norm native_group_norm instance_norm rms_norm leaky_relu elu celu selu mish
    softplus prelu max_pool1d max_pool2d max_pool3d max_pool2d_with_indices adaptive_max_pool2d clamp
    clamp_min clamp_max pow sqrt rsqrt exp expm1 log log1p log2 abs amax amin reciprocal
    linalg_vector_norm norm erf sin cos var std var_mean square scaled_dot_product_attention minimum
    maximum atan hardshrink softshrink threshold logit rrelu logsumexp sign floor ceil round sinh cosh
    exp2 sinc glu logaddexp
    """
)
ACTIVATIONS = frozenset({"relu", "hardtanh", "relu6", "fulgurite.qcfs"})
INTEGERS: frozenset[Any] = frozenset(
    {operator.mul, operator.add, operator.sub, operator.floordiv, operator.mod, operator.truediv}
)

# (multiplications of) these have weights: a neuron in front of them turns products into sums
MATRIX_PRODUCTS = _names("matmul bmm mm einsum")
ATTENTION = "scaled_dot_product_attention"
# sums of products, whether their operands get neurons or not
MULTIPLIES = PRODUCTS - _names("mul addcmul") | {ATTENTION}


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
    rule = next((rule for names, rule in _rules() if name in names), None)
    if rule is None:
        raise _unsupported(node, name)
    found = rule(node, name, is_signal)
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and not value.is_floating_point():
        raise _unsupported(node, f"{name} to {value.dtype}")
    return found


def _rules() -> tuple[tuple[frozenset[str], Rule], ...]:
    """The groups of operations, each with the function that gives the role of one; the first group counts."""
    return (
        (frozenset({"getitem"}), _affine),
        (ACTIVATIONS, _activation),
        (NONLINEAR, _nonlinear),
        (WEIGHTED, _weighted),
        (SUMS, _affine),
        (LINEAR, _linear),
        (SHAPE, _shape),
        (PRODUCTS, _product),
        (frozenset({"div"}), _quotient),
        (MASKS, _masked),
    )


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
    if any(is_signal(a) for a in node.args[1:]) and not _is_list(node.args[0]):
        raise _unsupported(node, f"{name} with positions that depend on the image")
    return "affine"


def _product(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    return "affine" if len(_signals(node, is_signal)) <= 1 else "nonlinear"


def _quotient(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    rounded = node.kwargs.get("rounding_mode") is not None
    return "nonlinear" if rounded or is_signal(node.args[1]) else "affine"


def _masked(node: fx.Node, name: str, is_signal: IsSignal) -> Role:
    if is_signal(node.args[0] if name == "where" else node.args[1]):
        raise _unsupported(node, f"{name} with a mask that depends on the image")
    return "affine"


def module_path(node: fx.Node) -> str:
    """Path of the innermost module of the source that ``node`` belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(entry[0]) for entry in stack.values()]
    return paths[-1] if paths else ""


def _unsupported(node: fx.Node, what: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"no conversion rule covers {what!r} (node {node.name!r}, operation {node.target}, module"
        f" {module_path(node) or 'top level'!r}); replace it in the source network by an operation that has"
        " a rule, or convert the part of the network before it"
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
