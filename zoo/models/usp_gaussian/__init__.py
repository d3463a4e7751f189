"""USP-Gaussian (arXiv 2411.10504): images from spikes, camera motion and Gaussians, learnt together."""

from zoo.models.usp_gaussian.densify import Densification, Densifier
from zoo.models.usp_gaussian.gaussians import Gaussians
from zoo.models.usp_gaussian.projection import Intrinsics
from zoo.models.usp_gaussian.rasterizer import Cameras, Rasterizer, Rendering, Splats, TorchRasterizer
from zoo.models.usp_gaussian.recon_net import ReconNet, usp_recon_net
from zoo.models.usp_gaussian.scene import USPGaussian, usp_gaussian
from zoo.models.usp_gaussian.trajectory import Trajectory

__all__ = [
    "Cameras",
    "Densification",
    "Densifier",
    "Gaussians",
    "Intrinsics",
    "Rasterizer",
    "ReconNet",
    "Rendering",
    "Splats",
    "TorchRasterizer",
    "Trajectory",
    "USPGaussian",
    "usp_gaussian",
    "usp_recon_net",
]
