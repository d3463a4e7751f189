"""Files of a network with other classes, channels or image sizes; timm's own adaptation is the oracle."""

import pytest
import timm
import torch

import zoo

NAME = "test_resnet"
VIT = {"patch_size": 8, "depth": 1, "num_classes": 10}


def overlay(file, classes, chans=3):
    cfg = {"file": str(file), "num_classes": classes, "input_size": (chans, 160, 160), "hf_hub_id": None}
    return {"pretrained": True, "pretrained_cfg_overlay": cfg}


@pytest.fixture
def file(tmp_path):
    torch.save(timm.create_model(NAME, num_classes=7).state_dict(), tmp_path / "r.pth")
    return tmp_path / "r.pth"


@pytest.mark.filterwarnings("ignore:.*starts from random weights")
@pytest.mark.parametrize("wanted", [{"num_classes": 3}, {"in_chans": 1}, {"in_chans": 4, "num_classes": 3}])
def test_the_body_is_what_timm_makes_of_it(file, wanted):
    arguments = {"num_classes": 7, **wanted}
    ours = zoo.load(f"timm/{NAME}", weights=file, **arguments)
    theirs = timm.create_model(NAME, **arguments, **overlay(file, 7)).state_dict()
    for key, value in ours.state_dict().items():
        if wanted.get("num_classes") is None or not key.startswith("fc."):
            assert torch.equal(value, theirs[key]), key
    assert ours.num_classes == arguments["num_classes"]
    assert "state_dict" not in ours.pretrained_cfg or not ours.pretrained_cfg["state_dict"]
    assert ours.origin == {"name": "r.pth", "licence": None, "url": None}


def test_position_embeddings_are_resampled_as_timm_does(tmp_path):
    path = tmp_path / "v.pth"
    torch.save(timm.create_model("test_vit", img_size=64, **VIT).state_dict(), path)
    ours = zoo.load("timm/test_vit", weights=path, img_size=32, **VIT)
    theirs = timm.create_model("test_vit", img_size=32, **VIT, **overlay(path, 10))
    assert torch.equal(ours.pos_embed, theirs.pos_embed)


def test_a_head_of_another_size_is_fresh_and_says_so(file):
    with pytest.warns(UserWarning, match="3 classes starts from random weights"):
        model = zoo.load(f"timm/{NAME}", weights=file, num_classes=3)
    assert model.get_classifier().out_features == 3


def test_what_still_does_not_fit_is_refused(file, tmp_path):
    state = torch.load(file, weights_only=True)
    state.pop("layer1.0.conv1.weight")
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(zoo.CheckpointError, match=r"cut\.pth"):
        zoo.load(f"timm/{NAME}", weights=tmp_path / "cut.pth", num_classes=3)
    with pytest.raises(zoo.CheckpointError):  # nobody asked for other classes
        zoo.load(f"timm/{NAME}", weights=file)


@pytest.mark.parametrize("chans", [3, 4])
def test_grey_weights_answer_alike_on_repeated_channels(tmp_path, chans):
    """1 channel into C: an image repeated C times gives what it gave, as C channels share the weights."""
    grey = zoo.create("spiking_cnn_nano").eval()
    zoo.save(grey, tmp_path / "grey")
    wide = zoo.load(f"local-dir:{tmp_path / 'grey'}", in_chans=chans)
    image = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(wide(image.expand(-1, chans, -1, -1)), grey(image), atol=1e-4, rtol=1e-4)
    assert "mean" not in wide.pretrained_cfg  # those of grey digits say nothing of it


def test_statistics_of_other_channels_are_not_stated(tmp_path):
    model = zoo.create("spiking_cnn_nano", in_chans=3)
    card = (zoo.save(model, tmp_path / "out", dataset="CIFAR-10") / "README.md").read_text()
    assert "0.1307" not in card
    told = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    card = (zoo.save(model, tmp_path / "out", pretrained_cfg=told) / "README.md").read_text()
    assert "mean (0.5, 0.5, 0.5)" in card


def test_a_network_of_random_start_is_nobody_elses(tmp_path):
    folder = zoo.save(zoo.create(f"timm/{NAME}", num_classes=3), tmp_path / "own")
    assert "Derived from" not in (folder / "README.md").read_text()
    folder = zoo.save(timm.create_model(NAME), tmp_path / "unknown")  # timm does not tell
    assert "Derived from" in (folder / "README.md").read_text()
