"""Learned perceptual distances (LPIPS, arXiv 1801.03924), where their backbones are on this machine.

Nothing is downloaded here: torchvision keeps weights in a folder, and who wants them fetches them once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch import nn

Backbone = Literal["vgg", "alex"]
MODELS = {"vgg": "vgg16", "alex": "alexnet"}  # of torchvision


def backbone_file(net: Backbone = "vgg") -> Path:
    """Where torchvision keeps the weights of a backbone once they have been downloaded."""
    from torchvision.models import get_model_weights

    url: str = get_model_weights(MODELS[net])["IMAGENET1K_V1"].url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def perceptual_network(net: Backbone = "vgg") -> nn.Module:
    """The frozen network of torchmetrics: two batches of images in [-1, 1] -> a distance for each pair.

    Raises:
        FileNotFoundError: its backbone is not on this machine; says how it is fetched.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    if not (file := backbone_file(net)).is_file():
        name = MODELS[net]
        raise FileNotFoundError(
            f"LPIPS needs the weights of {name} in {file}: fetch them once, with\n  python -c"
            f" \"import torchvision; torchvision.models.{name}(weights='IMAGENET1K_V1')\""
        )
    metric: Any = LearnedPerceptualImagePatchSimilarity(net_type=net)
    network: nn.Module = metric.net
    return network.requires_grad_(False)
