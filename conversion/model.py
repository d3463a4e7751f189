"""The converted network: a graph module with the entry points of the zoo's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.network.chunks import check_chunk, in_chunks
from conversion.network.count import count
from conversion.network.site import sites

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from conversion.methods.base import Method
    from conversion.network.count import Operation
    from conversion.network.operation import Operations
    from conversion.network.units import Clock
    from conversion.report import Report

META = "fulgurite"  # where a graph module's meta holds what is known about the conversion


class ConvertedModel(fx.GraphModule):
    """A spiking network that was converted from an ANN; ``[B, C, H, W]`` -> ``[B, K]``.

    ``model(x)`` gives the mean over T, ``model(x, steps=True)`` all steps, ``[T, B, K]``; where the source
    gives logits of N positions, ``[B, N, K]`` and ``[T, B, N, K]``. Memory grows with T unless `chunk` bounds
    it. Parameters keep the names of the source. It is an ordinary module: it trains, copies, pickles, moves
    and saves.

    Attributes:
        num_classes: K.
        architecture: ``"converted"``, the zoo's entry that rebuilds it.
    """

    architecture = "converted"

    @property
    def recipe(self) -> dict[str, Any]:
        """Plain values that rebuild this network: source, method, its settings, T and the input."""
        return self.meta[META]["recipe"]  # type: ignore[no-any-return]

    @property
    def method(self) -> Method:
        """The method and its settings."""
        return self.meta[META]["method"]  # type: ignore[no-any-return]

    @property
    def report(self) -> Report:
        """What was converted and how; ``print`` it."""
        return self.meta[META]["report"]  # type: ignore[no-any-return]

    @property
    def clock(self) -> Clock:
        """The number of steps that all units share."""
        return self.meta[META]["clock"]  # type: ignore[no-any-return]

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of the entry ``converted``."""
        return {**self.recipe, "time_steps": self.time_steps}

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.meta[META]["num_classes"])

    @property
    def num_features(self) -> int:
        """Inputs of the last layer with weights."""
        return int(self.meta[META]["num_features"])

    @property
    def in_chans(self) -> int:
        """C of the input."""
        return int(self.recipe["input_size"][0])

    @property
    def default_cfg(self) -> dict[str, Any]:
        """Preprocessing of the source, in timm's words."""
        return dict(self.meta[META]["pretrained_cfg"])

    @default_cfg.setter
    def default_cfg(self, value: dict[str, Any]) -> None:
        self.meta[META]["pretrained_cfg"] = dict(value)

    pretrained_cfg = default_cfg

    @property
    def origin(self) -> dict[str, Any] | None:
        """Name, licence and address of the weights that the source was loaded with, if it knows."""
        return self.meta[META].get("origin")  # type: ignore[no-any-return]

    @origin.setter
    def origin(self, value: dict[str, Any] | None) -> None:
        self.meta[META]["origin"] = value

    @property
    def time_steps(self) -> int:
        """T. Can be set where the method allows it."""
        return self.clock.time_steps

    @time_steps.setter
    def time_steps(self, value: int) -> None:
        self.method.check_time_steps(value, self)
        set_time_steps(self, value)
        self.method.follow(self)

    @property
    def chunk(self) -> int | None:
        """How many of the T steps run at a time in evaluation; None, the default: all of them.

        Memory grows with the steps that run at once, so this bounds it; the outputs do not change. What is
        the same at every step, such as a first layer in front of all neurons, runs anew for each chunk. Not
        kept in files.
        """
        return self.meta[META].get("chunk")  # type: ignore[no-any-return]

    @chunk.setter
    def chunk(self, value: int | None) -> None:
        self.meta[META]["chunk"] = check_chunk(value, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The generated forward, over all steps at once or `chunk` of them at a time."""
        chunk = self.chunk
        if chunk is None or self.training or chunk >= self.time_steps:
            return super().__call__(*args, **kwargs)
        return in_chunks(self, *args, chunk=chunk, **kwargs)

    @property
    def operations(self) -> tuple[Operation | None, ...]:
        """What has to be counted of each call in the graph."""
        return self.meta[META]["operations"]  # type: ignore[no-any-return]

    def count_operations(self, x: Tensor) -> Operations:
        """The operations of one pass over the images ``x [B, C, H, W]``, step by step; changes nothing.

        What `spiking.profile_energy` asks for, too.
        """
        return count(self, x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Refused: the head is part of a fixed graph."""
        raise RuntimeError(
            "the head of a converted network is part of its graph and cannot be replaced; give the source"
            f" another head (source.reset_classifier({num_classes})), train it, and convert again"
        )

    def __reduce__(self) -> Any:
        make, arguments = super().__reduce__()
        return _restored, (make, arguments, self.meta[META], _modes(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvertedModel:
        twin = super().__deepcopy__(memo)
        assert isinstance(twin, ConvertedModel)
        type(twin).__name__ = type(self).__name__  # every graph module has a class of its own
        _set_modes(twin, _modes(self))
        return twin


def set_time_steps(model: ConvertedModel, time_steps: int) -> None:
    """Change T of all units, without asking the method."""
    method = model.method
    model.clock.set(time_steps, method.window(time_steps), method.first(time_steps))


def assemble(root: nn.Module, graph: fx.Graph, about: dict[str, Any]) -> ConvertedModel:
    """The model, in evaluation mode."""
    model = ConvertedModel(root, graph, ConvertedModel.__name__)
    model.meta[META] = about
    set_time_steps(model, about["recipe"]["time_steps"])
    return model.eval()


def _restored(
    make: Callable[..., fx.GraphModule],
    arguments: tuple[Any, ...],
    about: dict[str, Any],
    modes: dict[str, bool],
) -> ConvertedModel:
    plain = make(*arguments)
    model = ConvertedModel(plain, plain.graph, ConvertedModel.__name__)
    # units were pickled apart from the description: they take the one clock that it holds
    model.meta[META] = about
    for module in model.modules():
        if hasattr(module, "clock") and not isinstance(module, fx.GraphModule):
            module.clock = about["clock"]
    _set_modes(model, modes)
    return model


def _modes(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def _set_modes(model: nn.Module, modes: dict[str, bool]) -> None:
    """Put back what is lost where a graph module makes the modules between its layers anew."""
    for name, module in model.named_modules():
        module.training = modes[name]


__all__ = ["META", "ConvertedModel", "assemble", "set_time_steps", "sites"]
