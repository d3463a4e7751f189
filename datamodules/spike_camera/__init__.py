"""Spike cameras: their files, two simulators, and scenes that they saw (USP-Gaussian, arXiv 2411.10504)."""

from datamodules.spike_camera.dat import DatFile, write_dat
from datamodules.spike_camera.module import (
    SceneDataModule,
    SpikeSceneDataModule,
    SyntheticSpikeSceneDataModule,
)
from datamodules.spike_camera.scene import SpikeScene, SpikeViews
from datamodules.spike_camera.simulate import add_noise, noise_positions, simulate_physical, simulate_simple
from datamodules.spike_camera.synthetic import Recipe

__all__ = [
    "DatFile",
    "Recipe",
    "SceneDataModule",
    "SpikeScene",
    "SpikeSceneDataModule",
    "SpikeViews",
    "SyntheticSpikeSceneDataModule",
    "add_noise",
    "noise_positions",
    "simulate_physical",
    "simulate_simple",
    "write_dat",
]
