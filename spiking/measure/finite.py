"""Numbers that cannot be right: a neuron turns them into silence, so they are looked for where they arise."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from spiking.context import Hooks
from spiking.neurons import Neuron

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")  # of norms
SHOWN = 3  # names in an error


NOT_FINITE, NEGATIVE = "NaN or infinite values", "negative variances"


def damaged(tensors: Iterable[tuple[str, Tensor]], model: nn.Module) -> dict[str, str]:
    """What is wrong with each tensor that holds impossible numbers, in their order.

    Infinity is no damage in buffers other than running statistics: masks of attention and bounds hold it.

    Args:
        tensors: weights and buffers by name, as of ``model.state_dict().items()``.
        model: whose they are.
    """
    constants = {name for name, _ in model.named_buffers() if not name.endswith(STATISTICS)}
    found = {}
    for name, tensor in tensors:
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta:
            continue
        value = tensor.detach()
        value = value.float() if value.element_size() == 1 else value  # float8 knows no isfinite
        right = ~value.isnan() if name in constants else value.isfinite()
        if not bool(right.all()):
            found[name] = NOT_FINITE
        elif name.endswith("running_var") and bool((value < 0).any()):
            found[name] = NEGATIVE
    return found


def listed(wrong: Mapping[str, str]) -> str:
    """What `damaged` has found, in one line."""
    parts = [f"{name} holds {what}" for name, what in list(wrong.items())[:SHOWN]]
    more = len(wrong) - SHOWN
    return ", ".join(parts) + (f", and {more} more are damaged" if more > 0 else "")


def weight_norm(model: nn.Module) -> Tensor:
    """The norm of all parameters and running statistics, 0-d on their device; NaN or infinite if one is.

    One pass over the weights and no look at the result, so that nothing waits for a GPU. A sum of squares can
    overflow where every number is finite, so `damaged` has the last word.
    """
    statistics = (b for name, b in model.named_buffers() if name.endswith(STATISTICS))
    values = [t.detach() for t in (*model.parameters(), *statistics) if t.is_floating_point()]
    total = torch.nn.utils.get_total_norm(values)
    whole: Tensor = total.full_tensor() if hasattr(total, "full_tensor") else total  # of FSDP's shards
    return whole


@contextmanager
def check_finite(model: nn.Module) -> Iterator[None]:
    """Within the block, a neuron that receives NaN or infinity raises an error with its module path.

    A comparison turns NaN into "no spike", so that a broken network looks merely silent. Costs one pass
    over every current; meant for debugging.

    Raises:
        FloatingPointError: at the first neuron, in the order of execution, whose currents are not finite.
    """

    def hook(path: str) -> Any:
        def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            bad = int((~args[0].detach().isfinite()).sum())
            if bad:
                raise FloatingPointError(
                    f"{path or type(module).__name__} receives {bad} values of {args[0].numel()} that are"
                    " NaN or infinite; look at the layer before it, the learning rate and the input"
                )

        return look

    with ExitStack() as stack:
        hooks = Hooks(stack)
        for path, module in model.named_modules():
            if isinstance(module, Neuron):
                hooks.before(module, hook(path))
        yield
