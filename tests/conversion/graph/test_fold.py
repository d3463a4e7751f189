"""Folding batch norms changes neither the source's outputs nor, but for rounding, the spiking network's."""

import pytest
import timm
import torch
from torch import nn

import zoo
from conversion import convert


def images():
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def source():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=5)
    model(torch.randn(8, 3, 32, 32))  # statistics that are not those of a fresh norm
    return model.eval()


@pytest.mark.parametrize("method", ["parallel", "dcgs"])
@torch.no_grad()
def test_outputs_stay(method):
    model, x = source(), images()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = convert(model, method, 8, x, progress=False)
    folded = convert(model, method, 8, x, progress=False, fold_batch_norm=True)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert folded.report.self_test < 1e-4
    a, b = plain(x), folded(x)
    assert float((a - b).abs().mean() / a.abs().mean()) < 0.05  # rounding may move a spike
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@torch.no_grad()
def test_saved_and_loaded(tmp_path):
    snn = convert(source(), "qcfs", 4, images(), progress=False, fold_batch_norm=True)
    zoo.save(snn, tmp_path / "out")
    back = zoo.load(f"local-dir:{tmp_path / 'out'}")
    assert torch.equal(back(images()), snn(images()))
