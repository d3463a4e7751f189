"""Converted networks are saved as recipes and come back spiking, through our loader and timm's."""

import json

import pytest
import timm
import torch
from torch import nn

import zoo
from conversion import convert

CASES = {
    "qcfs": {"time_steps": 4},
    "srp": {"time_steps": 2, "tau": 3},
    "cos": {"time_steps": 3, "rho": 2},
    "parallel": {"time_steps": 4},
}


def images(size=32, seed=0):
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(seed))


def source(**kwargs):
    torch.manual_seed(0)
    return zoo.create("qcfs_resnet20", **{"planes": (4, 8, 8), "num_classes": 5, **kwargs}).eval()


def relu_source():
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=5).eval()


@pytest.mark.parametrize("method", CASES)
def test_round_trip(method, tmp_path):
    snn = convert(source(), method, progress=False, **CASES[method])
    zoo.save(snn, tmp_path / "out", metrics={"test/acc1": 0.5}, dataset="made up")
    back = zoo.load(f"local-dir:{tmp_path / 'out'}")
    assert not back.training
    assert back.method == snn.method
    assert back.time_steps == snn.time_steps
    assert torch.equal(back(images(), steps=True), snn(images(), steps=True))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "converted"
    assert config["fulgurite"]["paper"] == snn.method.paper
    assert config["model_args"]["source"]["architecture"] == "qcfs_resnet20"


def test_calibrated_timm_model_comes_back_through_timm(tmp_path):
    snn = convert(relu_source(), "parallel", 3, images(), progress=False)
    zoo.save(snn, tmp_path / "out")
    back = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    assert torch.equal(back(images()), snn(images()))


def test_what_the_conversion_told_is_kept(tmp_path):
    net = relu_source()
    torch.nn.init.constant_(net.layer1[0].bn1.bias, -99)  # no calibration image reaches the neurons behind it
    snn = convert(net, "dcgs", 4, images(), progress=False)
    assert snn.report.images == 4
    assert any(row.fallback for row in snn.report.rows)
    back = zoo.load(f"local-dir:{zoo.save(snn, tmp_path / 'out')}")
    assert str(back.report) == str(snn.report)
    zoo.save(back, tmp_path / "again")
    told = [
        json.loads((tmp_path / name / "config.json").read_text())["fulgurite"] for name in ("out", "again")
    ]
    assert told[0]["conversion"] == told[1]["conversion"]
    fresh = zoo.load(f"local-dir:{tmp_path / 'again'}", pretrained=False)
    assert fresh.report.images == 0, "of random weights nothing is told"


def test_time_steps_set_after_conversion_are_saved(tmp_path):
    snn = convert(source(), "qcfs", 4, progress=False)
    snn.time_steps = 7
    zoo.save(snn, tmp_path / "out")
    back = zoo.load(f"local-dir:{tmp_path / 'out'}")
    assert back.time_steps == 7
    back.time_steps = 2
    snn.time_steps = 2
    assert torch.equal(back(images()), snn(images()))


def test_source_without_a_name_is_refused(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    snn = convert(net, "qcfs", 2, images(8), progress=False)
    with pytest.raises(zoo.NotRebuildableError, match=r"source=\{'architecture'"):
        zoo.save(snn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_wrong_description_of_the_source_is_refused(tmp_path):
    wrong = {"architecture": "timm/resnet10t", "model_args": {"num_classes": 7}}
    snn = convert(relu_source(), "qcfs", 2, images(), progress=False, source=wrong)
    with pytest.raises(zoo.NotRebuildableError, match="differs"):
        zoo.save(snn, tmp_path / "out")


def test_another_head_is_refused_with_the_reason(tmp_path):
    snn = convert(source(), "qcfs", 2, progress=False)
    zoo.save(snn, tmp_path / "out")
    with pytest.raises(ValueError, match="num_classes=5"):
        zoo.load(f"local-dir:{tmp_path / 'out'}", num_classes=7)
    with pytest.raises(RuntimeError, match="convert again"):
        snn.reset_classifier(7)


def test_entry_is_not_listed():
    assert "converted" not in zoo.list_models()
    assert zoo.is_registered("converted")
