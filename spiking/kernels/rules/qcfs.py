"""The equations of the QCFS activation for the CPU kernels: one pass over memory in place of nine.

The kernels know neurons; this is one without state, whose only step sends a number instead of a spike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from spiking import kernels
from spiking.kernels.rules.neurons import Back, Rule, Step

if TYPE_CHECKING:
    from torch import Tensor

    from spiking.kernels.cpu.codegen import Code, Vec
    from spiking.kernels.rules.neurons import Params


@dataclass(frozen=True)
class Quantise(Rule):
    """`spiking.qcfs.qcfs`, operation by operation in the order of the authors' code.

    Attributes:
        order: which of the two gradients.
    """

    surrogate: Any = None  # the gradient passes straight through the floor
    order: str = "floor_first"

    names: ClassVar[tuple[str, ...]] = ("theta", "levels")
    n_states: ClassVar[int] = 0
    n_saved: ClassVar[int] = 2
    n_param_grads: ClassVar[int] = 1

    def rest(self, p: Params) -> tuple[Vec | float, ...]:
        """There is no state."""
        return ()

    def forward(self, c: Code, p: Params, x: Vec, states: tuple[Vec, ...]) -> Step:
        """``theta * clip(r, 0, L) / L`` with ``r = floor(u * L + 1/2)`` and ``u = x / theta``."""
        u = x / p["theta"]
        r = c.call("floor", u * p["levels"] + 0.5)
        return Step(_clip(c, r, p) / p["levels"] * p["theta"], (), (u, r))

    def backward(self, c: Code, p: Params, saved: tuple[Vec, ...], g: Vec, e: tuple[Vec, ...]) -> Back:
        """Gradients of ``x``, and of ``theta`` for this element."""
        u, r = saved
        at, top = (r, p["levels"]) if self.order == "floor_first" else (u, c.as_vec(1.0))

        def inside(a: Vec) -> Vec:
            return c.where(at < 0.0, 0.0, c.where(at > top, 0.0, a))

        # inside (y - x) / theta = r / L - u; outside the same without u, which is 1 above and 0 below
        slope = _clip(c, r, p) / p["levels"] - inside(u)
        return Back(inside(g), (), (slope * g,))


def _clip(c: Code, r: Vec, p: Params) -> Vec:
    return c.where(r < 0.0, 0.0, c.where(r > p["levels"], p["levels"], r))  # NaN stays


def runs(x: Tensor, v_threshold: Tensor) -> bool:
    """Whether the kernels take these tensors."""
    if x.device.type != "cpu" or v_threshold.numel() != 1 or x.dtype not in KERNEL_DTYPES:
        return False
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return dense and x.dim() > 0 and kernels.HAS_LLVM


KERNEL_DTYPES = (torch.float32, torch.bfloat16)


def forward(x: Tensor, v_threshold: Tensor, levels: int, order: str) -> Tensor:
    """The activation of ``x``."""
    from spiking.kernels.cpu import runtime as cpu

    params = (v_threshold.item(), float(levels))
    return cpu.forward(Quantise(order=order), params, x.unsqueeze(0), (), keep=False)[0].squeeze(0)


def backward(grad: Tensor, x: Tensor, v_threshold: Tensor, levels: int, order: str) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``v_threshold``."""
    from spiking.kernels.cpu import runtime as cpu

    params = (v_threshold.item(), float(levels))
    rule = Quantise(order=order)
    grad_x, _, (grad_v,) = cpu.backward(rule, params, x.unsqueeze(0), (), grad.unsqueeze(0), ())
    return grad_x.squeeze(0), grad_v.to(v_threshold.dtype).reshape(v_threshold.shape)
