"""Operations of a converted network, step by step, and energy by that of its source."""

from conversion.network.operation import (
    Counts,
    LayerOperations,
    Operations,
    conv_operations,
    energy_ratio,
    full_energy_ratio,
    linear_operations,
    mean_rate,
    product_operations,
)
from spiking.measure.operations import partial_products, sent_before

__all__ = [
    "Counts",
    "LayerOperations",
    "Operations",
    "conv_operations",
    "energy_ratio",
    "full_energy_ratio",
    "linear_operations",
    "mean_rate",
    "partial_products",
    "product_operations",
    "sent_before",
]
