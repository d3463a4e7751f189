"""The functional graph of a source network, which the stages of a conversion hand on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from conversion.graph.layouts import LayoutError, Layouts

if TYPE_CHECKING:
    from conversion.network.layout import Layout


class ConversionError(RuntimeError):
    """A model cannot be converted; the message says why and what to do. The model is unchanged."""


@dataclass
class Program:
    """A functional graph over ``[B, ...]`` and the copy of the model whose parameters it names.

    Attributes:
        root: the copy; parameters and layers keep their paths.
        graph: one placeholder, one output, calls in between; nodes carry example values in ``meta["val"]``.
        input_shape: shape of one sample, ``(C, H, W)`` of an image.
        layouts: where the tensors hold the batch.
    """

    root: nn.Module
    graph: fx.Graph
    input_shape: tuple[int, ...]
    layouts: Layouts = field(default_factory=Layouts, repr=False)

    @property
    def image(self) -> fx.Node:
        """The node of the images."""
        node: fx.Node = next(n for n in self.graph.nodes if n.op == "placeholder")
        return node

    @property
    def output(self) -> fx.Node:
        """The node of the logits ``[B, K]``, or ``[B, N, K]`` of N positions."""
        last = next(iter(reversed(self.graph.nodes)))
        value = last.args[0]
        while isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        if not isinstance(value, fx.Node) or value.meta["val"].dim() not in (2, 3):
            raise ConversionError(
                "the source must return logits [B, K], or [B, N, K] for N positions of an image; convert the"
                " part of the network that makes them"
            )
        return value

    def layout(self, node: fx.Node) -> Layout:
        """Where ``node`` holds the batch.

        Raises:
            ConversionError: it is in no axis, in several, or not in one piece.
        """
        try:
            return self.layouts.of(node)
        except LayoutError as error:
            raise ConversionError(str(error)) from None

    def joins_images(self, node: fx.Node) -> bool:
        """Whether ``node`` takes or gives values in which the images of a batch cannot be told apart."""
        return any(not self.layouts.are_known(a) for a in (node, *node.all_input_nodes))

    def sample_shape(self, node: fx.Node) -> tuple[int, ...]:
        """Shape of ``node`` for one image, as a neuron sees it behind ``[T, B]``."""
        axis, outer = self.layout(node)
        sizes = [outer if i == axis else int(s) for i, s in enumerate(node.meta["val"].shape)]
        return tuple(s for i, s in enumerate(sizes) if i != axis or outer > 1)


def is_boundary(node: fx.Node) -> bool:
    """Whether ``node`` must stay in a graph that nothing uses it in: only inputs and outputs have effects."""
    return node.op in ("placeholder", "output")


def attribute(root: nn.Module, path: str) -> Any:
    """The attribute at ``path``, None if there is none."""
    value: Any = root
    for name in path.split("."):
        if not hasattr(value, name):
            return None
        value = getattr(value, name)
    return value


def place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path``, making the modules above it where they are missing."""
    *parents, name = path.split(".")
    at = root
    for parent in parents:
        if not isinstance(getattr(at, parent, None), nn.Module):
            at.add_module(parent, nn.Module())
        at = at.get_submodule(parent)
    if name in at._modules:
        del at._modules[name]
    at.add_module(name, module)
