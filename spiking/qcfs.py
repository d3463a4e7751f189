"""QCFS: the quantised activation whose networks convert to spiking ones (arXiv 2303.04347).

A network is trained with this clip-floor-shift activation in place of every ReLU; conversion then swaps
each site for an integrate-and-fire neuron with the trained threshold. SRP (2302.02091), COS (2302.10685)
and Parallel Conversion (2412.13610) start from the same networks.

`qcfs` is one operator with its backward written out. Composed of ``torch.clamp`` it would train other
networks than the published ones: every ``x`` in the lowest and in the highest bin lies exactly on a bound
of the clamp, whose gradient there was 1 up to torch 2.13 and is 0 since. As one operator it also stays one
node, ``fulgurite.qcfs.default(x, v_threshold, levels, order)``, in exported and compiled programs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.arguments import LARGEST, integer, shown
from spiking.kernels import HAS_LLVM

if TYPE_CHECKING:
    from collections.abc import Sequence


Order = Literal["floor_first", "clip_first"]
ORDERS: tuple[Order, ...] = ("floor_first", "clip_first")

# Of QCFS's authors, who recommend 4 or 8. It must exceed what the activations reach at first: a clipping
# value of 1 sends no gradient to most of them and was driven through zero in a user's run.
V_THRESHOLD_INIT = 8.0

KERNEL_DTYPES = (torch.float32, torch.bfloat16)


def qcfs(x: Tensor, v_threshold: Tensor, levels: int, order: Order = "clip_first") -> Tensor:
    """Quantise, clip and shift: ``theta * clip(floor(x * L / theta + 1/2) / L, 0, 1)``.

    Ties go up. The gradient passes straight through the floor (2303.04347, as in the authors' code; the
    interval and the threshold's derivative that the paper prints are, by the authors' own note, in error).
    With ``r = floor(x * L / theta + 1/2)``, ``"floor_first"`` has ::

        dy/dx     = 1                  where 0 <= r <= L, else 0
        dy/dtheta = (y - x) / theta    where 0 <= r <= L, 1 above, 0 below

    ``"clip_first"`` has the same values and derivatives, with ``0 <= x <= theta`` in place of
    ``0 <= r <= L``. Computed in float32 (float64 for a float64 ``x``).

    Args:
        x: pre-activations of any shape; floating point.
        v_threshold: theta, positive (not looked at here, as that would stall an accelerator): one
            element, or broadcastable to ``x``, such as ``[C, 1, 1]``.
        levels: L.
        order: ``"clip_first"`` as in putshua/ANN_SNN_QCFS, whose recipes the configurations follow, or
            ``"floor_first"`` as in the older putshua/SNN_conversion_QCFS.

    Returns:
        Multiples of ``theta / L`` in ``[0, theta]``, in the shape and dtype of ``x``.

    Raises:
        TypeError: if ``x`` is not floating point.
        ValueError: for an unknown order, ``levels`` below 1 or a threshold that does not fit ``x``.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be floating point, got {x.dtype}; use x.float()")
    check_settings(levels, order)
    _check_fit(x.shape, v_threshold.shape)
    y: Tensor = qcfs_op(x, v_threshold, levels, order)
    return y


class QCFS(nn.Module):
    """The activation `qcfs` with a trained threshold, one for the whole site.

    Args:
        levels: L.
        v_threshold: initial theta.
        order: see `qcfs`.

    Attributes:
        v_threshold: theta, a parameter of shape [1]. Published recipes let it decay like any weight.
    """

    def __init__(
        self, levels: int, v_threshold: float = V_THRESHOLD_INIT, order: Order = "clip_first"
    ) -> None:
        super().__init__()
        check_settings(levels, order)
        wrong = isinstance(v_threshold, bool) or not isinstance(v_threshold, int | float)
        if wrong or not 0.0 < v_threshold <= LARGEST:
            raise ValueError(f"v_threshold must be positive and finite, got {shown(v_threshold)}")
        self.levels = levels
        self.order: Order = order
        self.v_threshold = nn.Parameter(torch.tensor([float(v_threshold)]))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return qcfs(x, self.v_threshold, self.levels, self.order)

    @override
    def extra_repr(self) -> str:
        return f"levels={self.levels}, order={self.order!r}"


def check_settings(levels: int, order: str) -> None:
    """Raise an error that names a wrong L or order."""
    integer("levels", levels)
    if not isinstance(order, str) or order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {shown(order)}")


def _check_fit(shape: Sequence[int], threshold: Sequence[int]) -> None:
    if all(size == 1 for size in threshold):
        return
    tail = tuple(shape)[len(shape) - len(threshold) :]
    if len(threshold) > len(shape) or any(t not in (1, s) for t, s in zip(threshold, tail, strict=True)):
        raise ValueError(
            f"v_threshold {tuple(threshold)} does not broadcast to x {tuple(shape)};"
            " give one element, or [C, 1, 1] for [B, C, H, W]"
        )


# ---------------------------------------------------------------- the operator


def _normalised(x: Tensor, v_threshold: Tensor) -> Tensor:
    """``x / theta``, a new tensor in the precision of the computation."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    theta = v_threshold.to(dtype)
    return x.to(dtype) / (theta.reshape(()) if theta.numel() == 1 else theta)


def fits_kernel(x: Tensor, v_threshold: Tensor) -> bool:
    """Whether the CPU kernels take these tensors."""
    if x.device.type != "cpu" or v_threshold.numel() != 1 or x.dtype not in KERNEL_DTYPES:
        return False
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return dense and x.dim() > 0 and HAS_LLVM


def _run_kernel(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    from spiking.kernels.cpu import passes  # loads the compiler, so not before it is wanted
    from spiking.kernels.rules.qcfs import Quantise

    values = {"theta": v_threshold.item(), "levels": float(levels)}
    y, _ = passes.forward(Quantise(order=order), values, x.unsqueeze(0), keep=False)
    return y.squeeze(0)


def _run_kernel_back(
    grad: Tensor, x: Tensor, v_threshold: Tensor, levels: int, order: str
) -> tuple[Tensor, Tensor]:
    from spiking.kernels.cpu import passes
    from spiking.kernels.rules.qcfs import Quantise

    values = {"theta": v_threshold.item(), "levels": float(levels)}
    rule = Quantise(order=order)
    grad_x, _, found = passes.backward(rule, values, x.unsqueeze(0), g=grad.unsqueeze(0))
    grad_v = found.scalars["theta"].to(v_threshold.dtype)
    return grad_x.squeeze(0), grad_v.reshape(v_threshold.shape)


@torch.library.custom_op("fulgurite::qcfs", mutates_args=())
def qcfs_op(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    """See `qcfs`."""
    if fits_kernel(x, v_threshold):
        return _run_kernel(x, v_threshold, levels, order)
    y = _normalised(x, v_threshold)  # everything that follows works in place
    y.mul_(levels).add_(0.5).floor_().clamp_(0, levels).div_(levels)
    y.mul_(v_threshold.reshape(()) if v_threshold.numel() == 1 else v_threshold)
    return y.to(x.dtype)


def composed_qcfs(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    """The values of `qcfs` by PyTorch's own operators, for programs that run without this package.

    It is for inference: derivatives by these operators are not those of `qcfs`.
    """
    y = (_normalised(x, v_threshold) * levels + 0.5).floor().clamp(0, levels) / levels
    return (y * (v_threshold.reshape(()) if v_threshold.numel() == 1 else v_threshold)).to(x.dtype)


@qcfs_op.register_fake
def _(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("fulgurite::qcfs_backward", mutates_args=())
def qcfs_backward_op(
    grad: Tensor, x: Tensor, v_threshold: Tensor, levels: int, order: str
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``v_threshold``."""
    if fits_kernel(x, v_threshold):
        return _run_kernel_back(grad, x, v_threshold, levels, order)
    u = _normalised(x, v_threshold)
    grad = grad.to(u.dtype)
    r = (u * levels).add_(0.5).floor_()
    # Passes what lies strictly between two numbers: for whole r, from 0 to L with both ends. Comparing and
    # filling by masks takes six times as long on a CPU.
    if order == "floor_first":
        grad_x = torch.ops.aten.hardtanh_backward(grad, r, -0.5, levels + 0.5)
    else:
        limits = torch.finfo(u.dtype)
        grad_x = torch.ops.aten.hardtanh_backward(grad, u, -limits.tiny, 1.0 + limits.eps)
    # inside (y - x) / theta = r / L - u; outside the same without u, which is 1 above and 0 below
    slope = r.clamp_(0, levels).div_(levels).mul_(grad).addcmul_(u, grad_x, value=-1.0)
    grad_v = slope.sum_to_size(v_threshold.shape) if v_threshold.numel() > 1 else slope.sum()
    grad_v = grad_v.reshape(v_threshold.shape).to(v_threshold.dtype)
    return grad_x.to(x.dtype), grad_v


@qcfs_backward_op.register_fake
def _(grad: Tensor, x: Tensor, v_threshold: Tensor, levels: int, order: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(v_threshold)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, v_threshold, ctx.levels, ctx.order = inputs
    ctx.save_for_backward(x, v_threshold)


def _derive(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    grad_x, grad_v = qcfs_backward_op(grad, *ctx.saved_tensors, ctx.levels, ctx.order)
    return grad_x, grad_v, None, None


qcfs_op.register_autograd(_derive, setup_context=_setup)
