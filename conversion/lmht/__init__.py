"""LM-HT networks as single-threshold ones, and hybrid training from QCFS networks (arXiv 2402.00411)."""

from conversion.lmht.from_qcfs import INITS, Init, from_qcfs
from conversion.lmht.reparameterise import Agreement, agreement, reparameterise, single_threshold
from conversion.lmht.windows import ReparameterisationError

__all__ = [
    "INITS",
    "Agreement",
    "Init",
    "ReparameterisationError",
    "agreement",
    "from_qcfs",
    "reparameterise",
    "single_threshold",
]
