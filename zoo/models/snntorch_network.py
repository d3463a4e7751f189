"""Plain networks of snnTorch, layers and ``Leaky`` neurons one after the other, whose state dicts load.

``fulgurite import theirs.pth`` builds this entry (see `zoo.interchange.from_snntorch`). Its neurons are those
of snnTorch 1.0 (Eshraghian et al., Proceedings of the IEEE 2023, arXiv 2109.12894): they fire above the
threshold, not at it, and reset one step later, by subtraction unless they were told otherwise.

Axes: T time, B batch, C channels, H W map, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.neurons import Neuron
from spiking.reference.neurons import state_dtype
from zoo.build import build_model
from zoo.errors import CheckpointError
from zoo.models.nir_network import KINDS, NIRNetwork
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESETS = ("subtract", "zero", "none")  # in the order of snnTorch's reset_mechanism_val
PARAMETERS = ("beta", "threshold", "graded_spikes_factor")


class Leaky(Neuron):
    """snnTorch's ``Leaky``, over all steps.

    With ``r(t) = [m(t-1) > theta]`` the potential is ``m(t) = beta m(t-1) + x(t) - theta r(t)``, or under a
    reset to zero ``m(t) = beta (1 - r(t)) m(t-1) + x(t)``; it fires where ``m(t) > theta``. Without delay the
    reset acts at once on what is handed on. Decay, threshold and value of a spike are buffers: they come from
    the file, and training leaves them alone.

    Args:
        shapes: of decay, threshold and value of a spike; one number each where it is missing.
        reset: ``"subtract"``, ``"zero"`` or ``"none"``.
        delay: whether the reset comes one step after the spike (snnTorch's ``reset_delay``).

    Raises:
        ValueError: an unknown reset.
    """

    beta: Tensor
    threshold: Tensor
    graded_spikes_factor: Tensor
    state_names: ClassVar[tuple[str, ...]] = ("mem",)

    def __init__(
        self, shapes: Mapping[str, Sequence[int]] | None = None, reset: str = "subtract", delay: bool = True
    ) -> None:
        super().__init__(surrogate="atan")
        if reset not in RESETS:
            raise ValueError(f"unknown reset {reset!r}; known: {', '.join(RESETS)}")
        self.reset, self.delay = reset, bool(delay)
        for name in PARAMETERS:
            self.register_buffer(name, torch.ones(tuple((shapes or {}).get(name, ()))))

    @property
    def spike_value(self) -> Tensor:
        """See `Neuron.spike_value`."""
        return self.graded_spikes_factor

    def fired(self, output: Tensor) -> Tensor:
        """See `Neuron.fired`."""
        return output / self.graded_spikes_factor

    def run(self, x: Tensor, state: Tensor | None, keep_state: bool) -> tuple[Tensor, Tensor | None]:
        """See `Neuron.run`; the state is the potential ``[B, ...]``."""
        currents = x.to(state_dtype(x))
        mem = self.initial_state(x[0]) if state is None else state
        outputs = []
        for current in currents:
            before = self._fires(mem).detach()
            mem = self._charged(mem, current, before)
            spikes = self._fires(mem)
            outputs.append(spikes * self.graded_spikes_factor)
            if not self.delay:
                mem = self._discharged(mem, spikes - before)  # once for each spike
        return torch.stack(outputs).to(x.dtype), mem if keep_state else None

    def _fires(self, mem: Tensor) -> Tensor:
        """1 above the threshold, 0 at it; the slope of a surrogate is symmetric."""
        return 1 - self.surrogate(self.threshold - mem)

    def _charged(self, mem: Tensor, current: Tensor, before: Tensor) -> Tensor:
        beta = self.beta.clamp(0, 1)
        if self.reset == "zero":
            return beta * ((1 - before) * mem) + current
        charged = beta * mem + current
        return charged - before * self.threshold if self.reset == "subtract" else charged

    def _discharged(self, mem: Tensor, spikes: Tensor) -> Tensor:
        if self.reset == "none":
            return mem
        return mem - spikes * (self.threshold if self.reset == "subtract" else mem)

    @override
    def parameters_text(self) -> list[str]:
        return [f"reset={self.reset}", f"delay={self.delay}"]


def _conv(bias: bool = True, **settings: Any) -> nn.Module:
    layer = KINDS["conv2d"](**settings)
    if not bias:
        layer.register_parameter("bias", None)
    return layer


def _max_pool2d(kernel: int, stride: int, padding: int) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, padding)


def _norm(features: int, axes: int) -> nn.Module:
    return nn.BatchNorm2d(features) if axes == 3 else nn.BatchNorm1d(features)


class SnnTorchNetwork(NIRNetwork):
    """Layers one after the other; the answer is the rate of the last neurons, as snnTorch counts it.

    Args:
        graph: as in `NIRNetwork`, with the further kinds of snnTorch's networks.
        time_steps: T for samples without a time axis; snnTorch's networks run in a loop, so no file says it.
    """

    kinds: ClassVar[Mapping[str, Callable[..., nn.Module]]] = KINDS | {
        "conv": _conv,
        "max_pool2d": _max_pool2d,
        "norm": _norm,
        "leaky": Leaky,
    }

    def __init__(self, graph: Mapping[str, Any], time_steps: int | None = None) -> None:
        super().__init__(graph, time_steps)


def modules_of(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by module, in the order of the file, which is that in which the modules were made.

    Where all are numbered, as those of an ``nn.Sequential``, the numbers count: not all files keep an order.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        path, _, leaf = key.rpartition(".")
        found.setdefault(path, {})[leaf] = value
    last = [path.rpartition(".")[2] for path in found]
    if all(name.isdigit() for name in last):
        found = dict(sorted(found.items(), key=lambda item: int(item[0].rpartition(".")[2])))
    return found


def filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of snnTorch -> ours: modules with tensors follow each other here as there.

    Raises:
        CheckpointError: other modules than the network has.
    """
    assert isinstance(model, SnnTorchNetwork)
    own = modules_of(model.state_dict())
    theirs = modules_of(state)
    if set(state) <= set(model.state_dict()):
        return state
    if len(own) != len(theirs):
        raise CheckpointError(f"the file has {len(theirs)} modules with weights, the network {len(own)}")
    renamed = {}
    for (path, held), tensors in zip(own.items(), theirs.values(), strict=True):
        leaky = isinstance(model.get_submodule(path), Leaky)
        for leaf, value in tensors.items():
            if leaf in held or not leaky:  # the mechanism of the reset is part of the description
                renamed[f"{path}.{leaf}"] = value
    return renamed


@register_model(paper="2109.12894", listed=False, checkpoint_filter_fn=filter_fn)
def snntorch_network(**kwargs: Any) -> SnnTorchNetwork:
    """A network of snnTorch, see `SnnTorchNetwork`; ``fulgurite import`` writes its arguments."""
    kwargs.pop("num_classes", None)  # a description of the zoo repeats it; here the graph says it
    return build_model(SnnTorchNetwork, "snntorch_network", {}, **kwargs)
