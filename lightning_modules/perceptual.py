"""Distances of images by trained networks: LPIPS (arXiv 1801.03924) and FID (arXiv 1706.08500).

Both of torchmetrics, where the backbone is on this machine. Nothing is downloaded here: torchvision and
torch-fidelity keep weights in a folder of torch, and who wants them fetches them once.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from torch import nn

Backbone = Literal["vgg", "alex"]
MODELS = {"vgg": "vgg16", "alex": "alexnet"}  # of torchvision
SMALLEST = {"vgg": 32, "alex": 64}  # pixels a side that survive the pooling of each
INCEPTION = "torch_fidelity.feature_extractor_inceptionv3"  # the port of the network that FID is defined by


def backbone_file(net: Backbone = "vgg") -> Path:
    """Where torchvision keeps the weights of a backbone once they have been downloaded."""
    from torchvision.models import get_model_weights

    url: str = get_model_weights(MODELS[net])["IMAGENET1K_V1"].url
    return _kept(url)


@cache
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


def frechet_distance() -> Any:
    """The metric of torchmetrics for FID; ``update`` takes images ``[N, 3, H, W]`` of bytes.

    Raises:
        FileNotFoundError: the weights of Inception are not on this machine; says how they are fetched.
        ModuleNotFoundError: torch-fidelity is missing.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    if importlib.util.find_spec("torch_fidelity") is None:
        raise ModuleNotFoundError(
            "FID needs torch-fidelity: pip install torch-fidelity", name="torch_fidelity"
        )
    file = _kept(importlib.import_module(INCEPTION).URL_INCEPTION_V3)
    if not file.is_file():
        raise FileNotFoundError(
            f'FID needs the weights of Inception in {file}: fetch them once, with\n  python -c "import torch,'
            f' {INCEPTION} as fidelity; torch.hub.load_state_dict_from_url(fidelity.URL_INCEPTION_V3)"'
        )
    return FrechetInceptionDistance(feature_extractor_weights_path=str(file))


def _kept(url: str) -> Path:
    """Where torch keeps what it downloads from an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
