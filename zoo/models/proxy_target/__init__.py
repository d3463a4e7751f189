"""Proxy Target (2505.24161): population-coded spiking actors, and what trains them."""

from zoo.models.proxy_target.actor import AnalogActor, PopulationActor
from zoo.models.proxy_target.critics import TwinCritics

__all__ = ["AnalogActor", "PopulationActor", "TwinCritics"]
