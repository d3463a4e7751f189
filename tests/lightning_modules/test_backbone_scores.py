"""FID and LPIPS where their backbones are on this machine, and what is said where they are not."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS
from torchmetrics.image.fid import FrechetInceptionDistance

from lightning_modules import backbone_scores, perceptual
from lightning_modules.backbone_scores import BackboneScores


class Means(nn.Module):
    """Stands for Inception: two features of an image of bytes."""

    num_features = 2

    def forward(self, images):
        assert images.dtype == torch.uint8
        return images.double().flatten(2).mean(2)[:, :2]


def test_nothing_is_fetched_and_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    perceptual.perceptual_network.cache_clear()
    scores = BackboneScores(64)
    images = torch.zeros(2, 3, 64, 64)
    assert scores.update(images, images) == {}
    assert scores.compute() == {}
    assert "LPIPS needs the weights of alexnet in" in scores.missing["lpips"]
    if importlib.util.find_spec("torch_fidelity") is None:
        assert scores.missing["fid"] == "FID needs torch-fidelity: pip install torch-fidelity"
    else:
        assert "weights-inception-2015-12-05-6726825d.pth: fetch them once" in scores.missing["fid"]
    assert BackboneScores(16).missing["lpips"].endswith("at least 64 pixels a side, these have 16")
    assert not list(tmp_path.iterdir())


def test_both_over_all_batches(monkeypatch):
    network = _LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()  # all but the backbone's weights
    monkeypatch.setattr(backbone_scores, "perceptual_network", lambda net: network)
    monkeypatch.setattr(
        backbone_scores, "frechet_distance", lambda: FrechetInceptionDistance(feature=Means())
    )
    scores = BackboneScores(64)
    assert scores.missing == {}
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 1
    shifted = images + 0.5
    found = [scores.update(shifted[part], images[part]) for part in (slice(0, 4), slice(4, 6))]
    expected = network(shifted[:4], images[:4]).mean()
    torch.testing.assert_close(found[0]["lpips"], expected)
    # equal covariances: the squared distance of the means, 63.75 of 255 in both features
    assert float(scores.compute()["fid"]) == pytest.approx(2 * 63.75**2, rel=0.01)


def test_one_image_has_no_covariance(monkeypatch):
    monkeypatch.setattr(
        backbone_scores, "frechet_distance", lambda: FrechetInceptionDistance(feature=Means())
    )
    scores = BackboneScores(16)
    scores.update(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    assert scores.compute() == {}
    assert "More than one sample is required" in scores.missing["fid"]


@pytest.mark.slow
def test_fid_by_torch_fidelity(tmp_path, monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    file = tmp_path / "checkpoints" / fidelity.URL_INCEPTION_V3.rpartition("/")[2]
    file.parent.mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: {}, raising=False)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *a, **k: None)
    network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    torch.save(network.state_dict(), file)
    scores = BackboneScores(16)
    assert set(scores.missing) == {"lpips"}
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scores.update(images, images)
    assert float(scores.compute()["fid"]) == pytest.approx(0, abs=0.1)
