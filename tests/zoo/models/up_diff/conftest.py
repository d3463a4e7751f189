"""A member of the family with every part of the published ones, a thousandth of their size."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.registry import get_entry


@pytest.fixture(scope="package")
def small_arguments():
    pytest.importorskip("diffusers")
    return dict(get_entry("up_diff_levir").small)


@pytest.fixture
def small(small_arguments):
    """``small(**changes)``: the small member, with embedded captions, in evaluation mode."""

    def build(**changes):
        torch.manual_seed(0)
        model = zoo.create("up_diff_levir", **{**small_arguments, **changes}).eval()
        model.caption.embedded.normal_()
        return model

    return build


@pytest.fixture
def pair():
    """Two images and change maps of 32 x 32 pixels."""
    generator = torch.Generator().manual_seed(1)
    before = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    change = (torch.rand(2, 1, 32, 32, generator=generator) > 0.5).float() * 2 - 1
    return before, change


@pytest.fixture
def latent():
    """Noisy latents of these images, and their time steps."""
    return torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([3, 700])


@pytest.fixture
def open_gates():
    """Give all gates of a network a value, so that layout tokens matter."""

    def open_(model, value=0.7):
        for name, parameter in model.named_parameters():
            if name.endswith(("alpha_attn", "alpha_dense")):
                parameter.data.fill_(value)
        return model

    return open_
