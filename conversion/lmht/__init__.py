"""LM-HT networks as single-threshold ones, and hybrid training from QCFS networks (arXiv 2402.00411)."""

from conversion.lmht.reparameterise import (
    INITS,
    Agreement,
    Init,
    agreement,
    from_qcfs,
    reparameterise,
    single_threshold,
)
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
