"""Spiking neurons as modules, and the names under which configurations know them."""

from __future__ import annotations

from typing import Any, TypeVar

from spiking.arguments import nearest, only_known
from spiking.neurons.base import Neuron
from spiking.neurons.clif import CLIF
from spiking.neurons.differential import Differential, Tracking
from spiking.neurons.expg import ExpGCode, ExpGIF, ExpGQuant
from spiking.neurons.glif import GLIF
from spiking.neurons.leaky import IF, KLIF, LIF, PLIF
from spiking.neurons.lmht import LMH, LMHT
from spiking.neurons.multi_threshold import LevelledNeuron, MultiThreshold
from spiking.neurons.psn import PSN, MaskedPSN, SlidingPSN
from spiking.neurons.stream import Stream
from spiking.neurons.written import StepNeuron
from spiking.own import accepted_arguments, is_path, own_class

N = TypeVar("N", bound=Neuron)
# Those that a network can be trained with; neurons with levels need thresholds from a calibration.
NEURONS: dict[str, type[Neuron]] = {
    cls.__name__.lower(): cls
    for cls in (IF, LIF, PLIF, KLIF, CLIF, GLIF, LMH, LMHT, PSN, MaskedPSN, SlidingPSN)
}


def list_neurons() -> list[str]:
    """Names of all neurons, sorted."""
    return sorted(NEURONS)


def find_neuron(name: str) -> type[Neuron]:
    """The class of a name, as `get_neuron` takes it.

    Raises:
        ValueError: there is none.
    """
    if is_path(name):
        return own_class(name, Neuron)
    key = _key(name)
    if key not in NEURONS:
        near = nearest(key, NEURONS, cutoff=0.5)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(list_neurons())}"
        raise ValueError(f"unknown neuron {name!r}; {hint}")
    return NEURONS[key]


def _key(name: str) -> str:
    return str(name).lower().replace("_", "").replace("-", "")


def register_neuron(cls: type[N]) -> type[N]:
    """Let configurations and networks know a neuron by the name of its class; use as a decorator.

    Args:
        cls: a subclass of `Neuron`.

    Returns:
        The class, unchanged.

    Raises:
        TypeError: it is none.
        ValueError: the name is taken by another class.
    """
    if not (isinstance(cls, type) and issubclass(cls, Neuron)):
        raise TypeError(f"{cls!r} must derive from spiking.Neuron")
    taken = NEURONS.setdefault(_key(cls.__name__), cls)
    if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"the name {cls.__name__!r} is taken by {taken.__module__}; choose another")
    NEURONS[_key(cls.__name__)] = cls  # the newer one, where a notebook defines it again
    return cls


def get_neuron(name: str, **arguments: Any) -> Neuron:
    """Build a neuron by name, ``get_neuron("lif", tau=2.0)``.

    Args:
        name: class name in any case, with or without ``_`` and ``-``; or the path of a class of yours,
            ``my_net.Noisy``.
        arguments: of the class.

    Raises:
        ValueError: unknown name, or a value that the neuron refuses.
        TypeError: an argument that the neuron does not take.
    """
    cls = find_neuron(name)
    only_known(cls.__name__, arguments, accepted_arguments(cls))
    return cls(**arguments)


__all__ = [
    "CLIF",
    "GLIF",
    "IF",
    "KLIF",
    "LIF",
    "LMH",
    "LMHT",
    "PLIF",
    "PSN",
    "Differential",
    "ExpGCode",
    "ExpGIF",
    "ExpGQuant",
    "LevelledNeuron",
    "MaskedPSN",
    "MultiThreshold",
    "Neuron",
    "SlidingPSN",
    "StepNeuron",
    "Stream",
    "Tracking",
    "find_neuron",
    "get_neuron",
    "list_neurons",
    "register_neuron",
]
