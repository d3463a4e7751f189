"""Spiking neuron dynamics as functions over ``[T, B, ...]``: the fast way to what `reference` defines.

Every function takes ``backend``: ``"auto"`` picks a fused kernel by device (``"cpu"``, ``"triton"``) and
falls back to ``"reference"`` where no kernel fits: float64, other devices, ``torch.export``. A backend asked
for by name that cannot run is an error that says why. All of them take and give the same things; gradients
flow through currents, states and learnt parameters.
"""

from spiking.functional import codes, multi_threshold
from spiking.functional.dispatch import check, choose
from spiking.functional.dynamic import dynamic
from spiking.functional.neurons import clif, glif, if_, klif, lif, lmh, lmht, plif, psn, sliding_psn

__all__ = [
    "check",
    "choose",
    "clif",
    "codes",
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
]
