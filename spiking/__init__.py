"""Spiking neurons over time, and what is measured on them.

>>> import torch, spiking
>>> spiking.LIF(tau=2.0)(torch.full((4, 1), 1.5)).flatten().tolist()
[0.0, 1.0, 0.0, 1.0]
"""

from spiking import camera, encode, layers
from spiking.compression import compress_spikes
from spiking.functional import codes, multi_threshold
from spiking.kernels.cpu.memory import keep_memory
from spiking.levels import Levels
from spiking.measure.counter import OperationCounter, profile_energy
from spiking.measure.energy import EnergyReport
from spiking.measure.finite import check_finite
from spiking.measure.monitor import FiringRateMonitor
from spiking.neurons import (
    CLIF,
    GLIF,
    IF,
    KLIF,
    LIF,
    LMH,
    LMHT,
    PLIF,
    PSN,
    Differential,
    ExpGCode,
    ExpGIF,
    ExpGQuant,
    MaskedPSN,
    MultiThreshold,
    Neuron,
    SlidingPSN,
    StepNeuron,
    Tracking,
    get_neuron,
    list_neurons,
    register_neuron,
)
from spiking.streaming import streaming
from spiking.surrogate import get_surrogate, list_surrogates

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
    "EnergyReport",
    "ExpGCode",
    "ExpGIF",
    "ExpGQuant",
    "FiringRateMonitor",
    "Levels",
    "MaskedPSN",
    "MultiThreshold",
    "Neuron",
    "OperationCounter",
    "SlidingPSN",
    "StepNeuron",
    "Tracking",
    "camera",
    "check_finite",
    "codes",
    "compress_spikes",
    "encode",
    "get_neuron",
    "get_surrogate",
    "keep_memory",
    "layers",
    "list_neurons",
    "list_surrogates",
    "multi_threshold",
    "profile_energy",
    "register_neuron",
    "streaming",
]
