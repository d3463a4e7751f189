"""The loss of the autoencoder, with and without a perceptual part."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_modules import autoencoder_loss
from lightning_modules.autoencoder_loss import AutoencoderLoss


class Distance(nn.Module):
    """Stands for LPIPS: the distance of the means of two images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, a, b):
        return self.weight * (a.mean((1, 2, 3)) - b.mean((1, 2, 3))).abs()


def test_squared_error_and_distance(monkeypatch):
    monkeypatch.setattr(autoencoder_loss, "perceptual_network", lambda net: Distance())
    loss, autoencoder, images = AutoencoderLoss(), nn.Conv2d(3, 3, 1), torch.rand(2, 3, 32, 32) * 2 - 1
    found = loss(autoencoder, images)
    made = autoencoder(images)
    distance = 2 * (made.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().mean()
    torch.testing.assert_close(found["mse"], (made - images).square().mean())
    torch.testing.assert_close(found["lpips"], distance)
    torch.testing.assert_close(found["loss"], found["mse"] + found["lpips"])
    found["loss"].backward()
    assert autoencoder.weight.grad.any()
    assert not list(loss.parameters())
    assert not loss.state_dict()
    with pytest.raises(ValueError, match="LPIPS needs images of at least 32 pixels a side, got 16 x 32"):
        loss(autoencoder, images[:, :, :16])
    plain = AutoencoderLoss("none")(autoencoder, images)
    assert plain.keys() == {"loss", "mse"}
    assert torch.equal(plain["loss"], plain["mse"])


def test_without_the_backbone_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"LPIPS needs the weights of vgg16 in .*vgg16-397923af.pth: fetch"
    ):
        AutoencoderLoss()
    with pytest.raises(ValueError, match="perceptual must be 'lpips' or 'none', got 'vgg'"):
        AutoencoderLoss("vgg")
    assert not list(tmp_path.iterdir())
