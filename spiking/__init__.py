"""Spiking neurons over time, and what is measured on them.

>>> import torch, spiking
>>> spiking.LIF(tau=2.0)(torch.full((4, 1), 1.5)).flatten().tolist()
[0.0, 1.0, 0.0, 1.0]
"""

from spiking.finite import check_finite
from spiking.neurons import (
    CLIF,
    GLIF,
    IF,
    KLIF,
    LIF,
    PLIF,
    PSN,
    MaskedPSN,
    Neuron,
    SlidingPSN,
    get_neuron,
    list_neurons,
)
from spiking.surrogate import get_surrogate, list_surrogates

__all__ = [
    "CLIF",
    "GLIF",
    "IF",
    "KLIF",
    "LIF",
    "PLIF",
    "PSN",
    "MaskedPSN",
    "Neuron",
    "SlidingPSN",
    "check_finite",
    "get_neuron",
    "get_surrogate",
    "list_neurons",
    "list_surrogates",
]
