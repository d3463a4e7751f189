"""Small sources of conversions: a network with every habit of the ReLU world, and one with QCFS."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiking.qcfs import QCFS

PIXELS = 12


class Block(nn.Module):
    """Residual, with one in-place ReLU module that is called twice, as torchvision writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


class ReLUNet(nn.Module):
    """Max pooling behind a ReLU with further consumers, functional and in-place ReLUs, ReLU6, dropout."""

    def __init__(self, width: int = 8, num_classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2)
        self.block = Block(width)
        self.reduce = nn.Conv2d(2 * width, width, 1)
        self.relu6 = nn.ReLU6(inplace=True)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        pooled, averaged = self.pool(x), F.avg_pool2d(x, 2)  # two consumers of one activation
        x = self.block(pooled)
        x = self.relu6(self.reduce(torch.cat([x, averaged], dim=1)))
        return self.head(self.dropout(x.mean((2, 3))).relu_())


class QCFSNet(nn.Sequential):
    """Four trained activations, average pooling, a classifier with a hidden layer."""

    def __init__(self, levels: int = 4, width: int = 6, v_threshold: float = 1.0) -> None:
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            QCFS(levels, v_threshold),
            nn.AvgPool2d(2),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            QCFS(levels, v_threshold),
            nn.Conv2d(width, width, 3, padding=1),
            QCFS(levels, v_threshold),
            nn.Flatten(),
            nn.Linear(width * (PIXELS // 2) ** 2, 20),
            QCFS(levels, v_threshold),
            nn.Linear(20, 5),
        )


def lively(model: nn.Module) -> nn.Module:
    """``model`` in evaluation mode, with statistics and shifts that make many neurons fire unevenly."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.uniform_(module.bias, -0.2, 0.5)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.1, 0.3)
    return model.eval()


@pytest.fixture
def relu_net() -> nn.Module:
    torch.manual_seed(0)
    return lively(ReLUNet())


@pytest.fixture
def qcfs_net() -> nn.Module:
    torch.manual_seed(0)
    return lively(QCFSNet())


@pytest.fixture
def make_qcfs_net():
    def make(seed: int = 0, **kwargs: float) -> nn.Module:
        torch.manual_seed(seed)
        return lively(QCFSNet(**kwargs))

    return make


@pytest.fixture
def images():
    def make(batch: int = 4, pixels: int = PIXELS, seed: int = 1, chans: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, chans, pixels, pixels, generator=generator)

    return make
