"""The graph of a converted network with its clock, below the method that made it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from torch import fx, nn

from conversion.network.chunks import check_chunk, in_chunks
from conversion.network.count import count

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from torch import Tensor

    from conversion.network.annotation import Annotation
    from conversion.network.clock import Clock
    from conversion.network.operation import Operations


class Network(fx.GraphModule):
    """A graph over time and its clock; ``[B, C, H, W]`` -> ``[B, K]``.

    ``network(x)`` gives the mean over T, ``network(x, steps=True)`` all steps, ``[T, B, K]``. It is an
    ordinary module: it trains, copies, pickles, moves and saves.

    Args:
        root: modules and parameters.
        graph: ``(x, steps=False) -> logits``.
        annotation: clock, traits of the method, and what the calls of the graph are to a counter.
    """

    annotation: Annotation
    _chunk: int | None
    _kept: tuple[str, ...] = ("annotation", "_chunk")  # attributes that graph modules would lose in a copy

    def __init__(self, root: nn.Module, graph: fx.Graph, annotation: Annotation) -> None:
        super().__init__(root, graph, _written_class(self).__name__)
        self.annotation = annotation
        self._chunk = None

    @property
    def clock(self) -> Clock:
        """The number of steps that all units share."""
        return self.annotation.clock

    @property
    def time_steps(self) -> int:
        """T."""
        return self.clock.time_steps

    @property
    def chunk(self) -> int | None:
        """How many of the T steps run at a time in evaluation; None, the default: all of them.

        Memory grows with the steps that run at once, so this bounds it; the outputs do not change. What is
        the same at every step, such as a first layer in front of all neurons, runs anew for each chunk. Not
        kept in files.
        """
        return self._chunk

    @chunk.setter
    def chunk(self, value: int | None) -> None:
        self._chunk = check_chunk(value, self.annotation)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The generated forward, over all steps at once or `chunk` of them at a time."""
        chunk = self.chunk
        if chunk is None or self.training or chunk >= self.time_steps:
            return super().__call__(*args, **kwargs)
        return in_chunks(self, self.clock, *args, chunk=chunk, **kwargs)

    def count_operations(self, x: Tensor) -> Operations:
        """The operations of one pass over the images ``x [B, C, H, W]``, step by step; changes nothing.

        What `spiking.profile_energy` asks for, too.
        """
        return count(self, self.annotation, x)

    def __reduce__(self) -> Any:
        make, arguments = super().__reduce__()
        kept = {name: getattr(self, name) for name in self._kept}
        return _restored, (_written_class(self), make, arguments, kept, _modes(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = cast("Self", super().__deepcopy__(memo))
        for name in self._kept:
            setattr(twin, name, copy.deepcopy(getattr(self, name), memo))
        type(twin).__name__ = type(self).__name__
        _set_modes(twin, _modes(self))
        return twin


def _written_class(network: Network) -> type[Network]:
    """The class that is defined in a file; torch gives every graph module a subclass of its own."""
    return next(c for c in type(network).__mro__ if not c.__qualname__.endswith("GraphModuleImpl"))


def _restored(
    cls: type[Network],
    make: Callable[..., fx.GraphModule],
    arguments: tuple[Any, ...],
    kept: dict[str, Any],
    modes: dict[str, bool],
) -> Network:
    """The network that `Network.__reduce__` took apart."""
    plain = make(*arguments)
    network = cls.__new__(cls)
    fx.GraphModule.__init__(network, plain, plain.graph, cls.__name__)
    for name, value in kept.items():
        setattr(network, name, value)
    # units were pickled apart from the annotation: they take the one clock that it holds
    units: list[Any] = [m for m in network.modules() if hasattr(m, "clock") and m is not network]
    for unit in units:
        unit.clock = network.clock
    _set_modes(network, modes)
    return network


def _modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def _set_modes(network: nn.Module, modes: dict[str, bool]) -> None:
    """Put back what is lost where a graph module makes the modules between its layers anew."""
    for name, module in network.named_modules():
        module.training = modes[name]
