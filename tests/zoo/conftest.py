"""Small members of every family: the same code as the entries, a hundredth of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import zoo
from zoo.registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 32


def small_members() -> dict[str, dict[str, Any]]:
    """Arguments by entry: what the entries declare; of a family that declares none, its smallest as it is."""
    entries = [get_entry(name) for name in zoo.list_models(task="classification")]
    found = {entry.name: dict(entry.small) for entry in entries if entry.small is not None}
    for family in {entry.family for entry in entries} - {get_entry(name).family for name in found}:
        names = [entry.name for entry in entries if entry.family == family]
        found[min(names, key=lambda name: zoo.describe(name).parameters or 0)] = {}
    return dict(sorted(found.items()))


def is_spiking(name: str, arguments: dict[str, Any]) -> bool:
    with torch.device("meta"):
        return isinstance(zoo.create(name, **arguments), zoo.SpikingModel)


TINY = small_members()
SPIKING = [name for name, arguments in TINY.items() if is_spiking(name, arguments)]


def build_tiny(name: str, **kwargs: Any) -> zoo.ZooModel:
    """A small member with weights that let spikes reach the head, in training mode."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"num_classes": 5, "in_chans": 3, **TINY.get(name, {})}
    if name not in TINY or name in SPIKING:
        settings = {"time_steps": 2, **settings}
    model = zoo.create(name, **{**settings, **kwargs})
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


@pytest.fixture(params=list(TINY))
def case(request: pytest.FixtureRequest) -> str:
    """Name of an entry that has a small member."""
    return str(request.param)


@pytest.fixture(params=SPIKING)
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
