"""PSNR and SSIM of sequences, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS

from lightning_modules import reconstruction_metrics as metrics

FRAMES = [40, 64, 88, 112, 136]


@pytest.fixture
def sharp():
    ramp = torch.linspace(0.1, 0.9, 20).repeat(16, 1)
    return torch.stack([ramp.roll(2 * k, -1) for k in range(5)])


def test_a_known_error(sharp):
    made = (sharp + 0.01) / 2
    scores = metrics.sequence_scores(made, sharp, FRAMES, FRAMES)
    assert scores["psnr"] == pytest.approx(40, abs=1e-3)
    assert scores["psnr_sequence"] == pytest.approx(40, abs=1e-3)
    assert scores["reversed"] == 0
    assert 0.99 < scores["ssim"] < 1
    assert "lpips" not in scores  # 16 x 20 pixels are too few
    assert metrics.sequence_scores(sharp / 2, sharp, FRAMES, FRAMES)["ssim"] == pytest.approx(1)


def test_ssim_by_its_formula(sharp):
    a, b = sharp[:1], sharp[:1].roll(3, -1) * 0.8
    windows = [x.unfold(1, 7, 1).unfold(2, 7, 1).flatten(3).double() for x in (a, b)]
    (ma, mb), (va, vb) = [w.mean(-1) for w in windows], [w.var(-1, correction=0) for w in windows]
    both = (windows[0] * windows[1]).mean(-1) - ma * mb
    c, d = 0.01**2, 0.03**2
    whole = (2 * ma * mb + c) * (2 * both + d) / ((ma**2 + mb**2 + c) * (va + vb + d))
    assert float(metrics.ssim(a, b)) == pytest.approx(float(whole.mean()), abs=1e-5)


def test_the_better_direction_counts(sharp):
    forwards = metrics.sequence_scores(sharp / 2, sharp, FRAMES, FRAMES)
    backwards = metrics.sequence_scores(sharp.flip(0) / 2, sharp, FRAMES, FRAMES)
    assert backwards["reversed"] == 1
    assert backwards["psnr_sequence"] == forwards["psnr_sequence"]
    assert backwards["psnr"] == forwards["psnr"]


def test_only_frames_that_are_known(sharp):
    only = metrics.sequence_scores(sharp / 2, sharp[2:3], FRAMES, [88])
    assert set(only) == {"psnr", "ssim"}
    assert metrics.sequence_scores(sharp / 2, sharp[:0], FRAMES, []) == {}
    more = torch.stack([sharp[0], *sharp])
    assert metrics.sequence_scores(sharp / 2, more, FRAMES, [50, *FRAMES])["psnr"] == 100
    with pytest.raises(ValueError, match=r"5 times and images \(4, 16, 20\) do not fit"):
        metrics.sequence_scores(sharp[:4], sharp, FRAMES, FRAMES)


def test_brightness():
    assert metrics.brightness_corrected(torch.tensor([-0.1, 0.2, 0.7])).tolist() == pytest.approx([0, 0.4, 1])


def test_lpips_where_its_backbone_is(monkeypatch, tmp_path):
    images = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(metrics, "backbone_file", lambda net: tmp_path / "alexnet.pth")
    assert metrics.lpips(images, images) is None
    (tmp_path / "alexnet.pth").touch()

    network = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()  # all but the backbone's weights
    monkeypatch.setattr(metrics, "perceptual_network", lambda net: network)
    scores = metrics.sequence_scores(images / 2, images, [0, 1], [0, 1])
    assert scores["lpips_sequence"] == pytest.approx(0, abs=1e-6)
    apart = metrics.lpips(images, images.flip(-1))
    assert apart.shape == (2,)
    assert (apart > 0).all()
    assert metrics.lpips(images[:, :32], images[:, :32]) is None
