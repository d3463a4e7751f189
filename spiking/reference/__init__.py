"""Spiking neurons step by step, straight from the equations: the oracle for every fast kernel.

All functions take currents ``x [T, ...]`` and give spikes ``[T, ...]`` in the dtype of ``x`` and the state
after the last step. Letters as in the literature: ``h`` potential before the reset, ``v`` after it, ``s``
spikes, T time steps. Charge, fire where ``h >= v_threshold``, reset: "hard" to ``v_reset``, or, with
``v_reset=None``, "soft" by subtracting the threshold. The state lives in float32 (float64 for float64
currents). STBP 1706.02609; every function names its own source.
"""

from spiking.reference import multi_threshold
from spiking.reference.dynamic import Dynamics, dynamic
from spiking.reference.firing import SIGMOID, TRIANGLE, Firing, FiringOptions
from spiking.reference.neurons import (
    clif,
    count_levels,
    glif,
    if_,
    klif,
    lif,
    lmh,
    lmht,
    plif,
    state_dtype,
)
from spiking.reference.parallel import psn, sliding_psn

__all__ = [
    "SIGMOID",
    "TRIANGLE",
    "Dynamics",
    "Firing",
    "FiringOptions",
    "clif",
    "count_levels",
    "dynamic",
    "glif",
    "if_",
    "klif",
    "lif",
    "lmh",
    "lmht",
    "multi_threshold",
    "plif",
    "psn",
    "sliding_psn",
    "state_dtype",
]
