"""Find the first layer that hands NaN or infinity to a neuron."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from spiking.context import Hooks
from spiking.neurons import Neuron

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


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
