"""Spiking neurons as modules, and the names under which configurations know them."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

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

# Those that a network can be trained with; neurons with levels need thresholds from a calibration.
NEURONS: dict[str, type[Neuron]] = {
    cls.__name__.lower(): cls
    for cls in (IF, LIF, PLIF, KLIF, CLIF, GLIF, LMH, LMHT, PSN, MaskedPSN, SlidingPSN)
}


def list_neurons() -> list[str]:
    """Names of all neurons, sorted."""
    return sorted(NEURONS)


def get_neuron(name: str, **arguments: Any) -> Neuron:
    """Build a neuron by name, ``get_neuron("lif", tau=2.0)``.

    Args:
        name: class name in any case, with or without ``_`` and ``-``.
        arguments: of the class.

    Raises:
        ValueError: unknown name, or a value that the neuron refuses.
        TypeError: an argument that the neuron does not take.
    """
    key = str(name).lower().replace("_", "").replace("-", "")
    if key not in NEURONS:
        near = difflib.get_close_matches(key, NEURONS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(list_neurons())}"
        raise ValueError(f"unknown neuron {name!r}; {hint}")
    cls = NEURONS[key]
    known = list(inspect.signature(cls).parameters)
    for argument in arguments:
        if argument not in known:
            raise TypeError(f"{cls.__name__} has no argument {argument!r}; it takes {', '.join(known)}")
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
    "Stream",
    "Tracking",
    "get_neuron",
    "list_neurons",
]
