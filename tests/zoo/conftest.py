"""Small members of every family: the same code as the entries, a hundredth of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 32
TINY: dict[str, dict[str, Any]] = {
    "spiking_cnn_nano": {"channels": (8, 8, 16)},
    "spiking_vgg11": {"plan": ((8,), (8, 8), (16,)), "hidden": 64},
    "spiking_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "spiking_resnet19": {"layers": (1, 1), "planes": (8, 16), "hidden": 64},
    "spiking_resnet34": {"layers": (2, 1), "planes": (8, 16)},
    "sew_resnet18": {"layers": (1, 1), "planes": (8, 16), "stem": "3x3"},
    "sew_resnet50": {"layers": (2, 1), "planes": (4, 8)},
    "ms_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "ms_resnet104": {"layers": (2, 1), "planes": (8, 16), "drop_rate": 0.0},
    "spikformer_nano": {"dim": 16, "num_heads": 2},
    "sdt_nano": {"dim": 16, "num_heads": 2},
    "qkformer_nano": {"dims": (16, 16, 32), "num_heads": 2},
    "metaspikformer_15m": {"dims": (8, 8, 64, 64), "depths": (1, 1, 1, 1, 1), "num_heads": 1},
    "spikingresformer_nano": {"planes": (8, 16, 16), "num_heads": (1, 2, 2), "group_size": 8},
}
TINY_ANALOG: dict[str, dict[str, Any]] = {
    "ge2mst_nano": {"dims": (8, 16, 16, 32), "group_size": 8, "num_heads": (2, 4)},
    "qcfs_vgg16": {"plan": ((8,), (8, 8), (16,)), "hidden": 64, "v_threshold": 2.0},
    "qcfs_resnet18": {"layers": (1, 1), "planes": (8, 16), "v_threshold": 2.0},
    "qcfs_resnet20": {"layers": (2, 1), "planes": (8, 16), "activation": "relu"},
}
CASES = sorted({**TINY, **TINY_ANALOG})


def build_tiny(name: str, **kwargs: Any) -> zoo.ZooModel:
    """A small member with weights that let spikes reach the head, in training mode."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 5, "in_chans": 3}
    settings |= TINY_ANALOG[name] if name in TINY_ANALOG else {"time_steps": 2, **TINY.get(name, {})}
    model = zoo.create(name, **{**settings, **kwargs})
    assert isinstance(model, zoo.AnalogModel if name in TINY_ANALOG else zoo.SpikingModel)
    lively(model)
    return model


def lively(model: zoo.ZooModel) -> None:
    """Norms with gain and shift that fire many neurons, and statistics of one real batch."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 1.0, 2.0)
        nn.init.uniform_(norm.bias, 0.2, 0.8)
        norm.momentum = 1.0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1.0)
    with torch.no_grad():
        model(torch.randn(4, model.in_chans, SIZE, SIZE))
    for norm in norms:
        norm.momentum = 0.1


def make_images(
    batch: int = 2, chans: int = 3, size: int | tuple[int, int] = SIZE, seed: int = 1
) -> torch.Tensor:
    """Made-up images ``[B, C, H, W]``."""
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, chans, height, width, generator=generator)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """Name of an entry that has a small member."""
    return str(request.param)


@pytest.fixture(params=sorted(TINY))
def spiking_case(request: pytest.FixtureRequest) -> str:
    """The same among the spiking ones."""
    return str(request.param)


@pytest.fixture
def tiny() -> Callable[..., zoo.ZooModel]:
    """`build_tiny`."""
    return build_tiny


@pytest.fixture
def images() -> Callable[..., torch.Tensor]:
    """`make_images`."""
    return make_images
