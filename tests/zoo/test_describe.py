"""What is told about a model: counted, recorded, or said to be unknown."""

import pytest
import timm
import torch

import spiking
import zoo
from conversion import convert


@pytest.mark.parametrize("name", zoo.list_models("*_nano"))
def test_macs_are_those_of_the_energy_report(name):
    model = zoo.load(name, pretrained=False)
    report = spiking.profile_energy(model, torch.rand(1, *zoo.describe(name).input_size))
    macs = zoo.describe(name).macs
    if name == "delay_snn_nano":  # convolves over time: its pass as an ANN has all steps, and one readout
        readout = 64 * 10
        macs = model.time_steps * (macs - readout) + readout
    assert macs == report.ann_macs


# sources of conversions; Ge2mS-T trains in a quantised form that to_spiking() turns into spikes
ANALOG = ("qcfs_", "ge2mst_")


@pytest.mark.parametrize("name", zoo.list_models(task="classification"))
def test_everything_is_told(name):
    told = zoo.describe(name)
    assert told.family in vars(zoo.models)
    assert told.parameters > 0
    assert told.macs
    assert name in zoo.list_models(family=told.family, paper=told.paper)
    for text in (name, f"{told.parameters:,}", "MACs", "weights"):
        assert text in str(told)
    assert told.spiking != name.startswith(ANALOG)


def test_operations_are_recorded_or_unknown():
    told = zoo.describe("spiking_cnn_nano")
    assert told.sops == told.weights["mnist5k_t4"].metrics["test/sops"]
    assert zoo.describe("sew_resnet18").sops is None
    assert "profile_energy" in str(zoo.describe("sew_resnet18"))
    assert "SOPs" not in str(zoo.describe("qcfs_resnet20"))


def test_weights_of_conversions_are_listed_and_described(tmp_path, monkeypatch):
    source = zoo.create("qcfs_vgg16", plan=((4,), (8,)), hidden=0, pool_size=2, num_classes=5, levels=4)
    network = convert(source.eval(), "qcfs", time_steps=4, input_size=(3, 16, 16), progress=False)
    zoo.save(network, tmp_path / "converted.mine_t4", metrics={"test/acc1": 0.5}, licence="mit")
    monkeypatch.setenv("FULGURITE_WEIGHTS", str(tmp_path))
    assert "converted.mine_t4" in zoo.list_models(pretrained=True)
    assert "converted" not in zoo.list_models(), "without weights it means nothing"
    told = zoo.describe("converted.mine_t4")
    assert (told.spiking, told.time_steps, told.num_classes) == (True, 4, 5)
    assert told.parameters == sum(p.numel() for p in network.parameters())
    assert "test/acc1 0.5" in str(told)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(zoo.load("converted.mine_t4")(images), network(images))


def test_each_conversion_is_a_network_of_its_own(tmp_path, monkeypatch):
    from cli.networks import published

    for tag, classes, steps in (("a", 5, 4), ("b", 7, 2)):
        source = zoo.create("qcfs_vgg16", plan=((4,), (8,)), hidden=0, pool_size=2, num_classes=classes)
        network = convert(source.eval(), "qcfs", time_steps=steps, input_size=(3, 16, 16), progress=False)
        zoo.save(network, tmp_path / f"converted.{tag}", licence="mit")
    monkeypatch.setenv("FULGURITE_WEIGHTS", str(tmp_path))
    for tag, classes, steps in (("a", 5, 4), ("b", 7, 2)):
        told, weights = published(f"converted.{tag}")
        assert (told.num_classes, told.time_steps) == (classes, steps)
        assert weights is told.weights[tag]


# -- timm ------------------------------------------------------------------------------------------


def test_classifiers_of_timm_are_listed():
    names = zoo.list_models("timm/*", pretrained=True)
    assert len(names) > 1000
    for name in names:
        plain = name.removeprefix("timm/")
        assert timm.models.is_model_pretrained(plain), name
        assert timm.get_pretrained_cfg(plain).num_classes > 0
    assert "timm/resnet18.a1_in1k" in names
    assert "timm/vit_small_patch16_224.dino" not in names  # a backbone without a head
    some = zoo.list_models("timm/*resnet*")
    assert "timm/resnet18" in some
    assert all("resnet" in name for name in some)
    assert not set(some) & {f"timm/{name}" for name in zoo.list_models()}  # ours are not timm's
    assert zoo.list_models("timm/*", task="detection") == []
    assert "timm/resnet18" in zoo.list_models("timm/*", family="resnet")


def test_a_model_of_timm_is_described():
    told = zoo.describe("timm/resnet18")
    assert (told.parameters, told.macs, told.spiking) == (11_689_512, 1_814_073_344, False)
    assert told.paper == "2110.00476"
    assert next(iter(told.weights)) == timm.get_pretrained_cfg("resnet18").tag
    assert told.weights["a1_in1k"].licence == "apache-2.0"
    assert told.weights["a1_in1k"].url == "hf-hub:timm/resnet18.a1_in1k"
    assert list(zoo.describe("timm/resnet18.fb_swsl_ig1b_ft_in1k").weights) == ["fb_swsl_ig1b_ft_in1k"]
    with pytest.raises(ValueError, match="timm has no model 'resnet1888'"):
        zoo.describe("timm/resnet1888")
    with pytest.raises(FileNotFoundError, match="of resnet18 it has: a1_in1k"):
        zoo.describe("timm/resnet18.mine")


def test_a_model_of_timm_is_loaded_by_name(tmp_path):
    source = timm.create_model("test_resnet").eval()
    torch.save(source.state_dict(), tmp_path / "file.pth")
    overlay = {"file": str(tmp_path / "file.pth"), "hf_hub_id": None}
    model = zoo.load("timm/test_resnet.r160_in1k", pretrained_cfg_overlay=overlay)
    assert not model.training
    assert model.origin["name"] == "timm/test_resnet.r160_in1k"
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(x), source(x))
    model = zoo.load("timm/test_resnet", weights=tmp_path / "file.pth")
    assert torch.equal(model(x), source(x))
    assert model.origin["name"] == "file.pth"
