"""USP-Gaussian (arXiv 2411.10504): images from spikes, camera motion and Gaussians, learnt together."""

from zoo.models.usp_gaussian.recon_net import ReconNet, usp_recon_net
from zoo.models.usp_gaussian.trajectory import Trajectory

__all__ = ["ReconNet", "Trajectory", "usp_recon_net"]
