"""Folders and runs are names of networks, too; a network tells how it wants its images."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import zoo
from zoo.locate import path_of, place_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_run(folder, network, **noted):
    """What `fulgurite fit` leaves, as far as it is read."""
    (folder / "checkpoints").mkdir(parents=True)
    arguments = {"num_classes": 3, "in_chans": 1, "time_steps": 2}
    content = {
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{k}": v for k, v in network.state_dict().items()},
        "hyper_parameters": {"model": "spiking_cnn_nano", "model_args": {"time_steps": 2}, **arguments},
        **noted,
    }
    torch.save(content, folder / "checkpoints" / "best.ckpt")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return zoo.create("spiking_cnn_nano", num_classes=3, in_chans=1, time_steps=2)


@pytest.mark.parametrize("name", ["runs/method-data", "local-dir:runs/method-data", "method-data"])
def test_a_run_is_a_name(network, name):
    noted = {"preprocessing": {"mean": [0.3], "std": [0.2]}, "label_names": ["a", "b", "c"]}
    write_run(Path("runs/method-data"), network, **noted)
    found = zoo.load(name)
    for key, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key
    assert found.label_names == ["a", "b", "c"]
    assert zoo.transform(found).mean == (0.3,)


def test_a_folder_beside_needs_no_prefix(network):
    zoo.save(network, "exported")
    x = torch.rand(1, 1, 28, 28)
    assert torch.equal(zoo.load("exported")(x), network.eval()(x))


def test_an_entry_comes_before_a_run_of_its_name(network):
    write_run(Path("runs/spiking_cnn_nano"), network)
    assert zoo.load("spiking_cnn_nano").num_classes == 10


def test_labels_that_are_none_are_left_out(network):
    write_run(Path("runs/a"), network, label_names=["a", "b"])
    assert zoo.load("runs/a").label_names is None


def test_a_slip_of_the_pen_names_the_nearest(network):
    write_run(Path("runs/method-data"), network)
    with pytest.raises(FileNotFoundError, match=r"did you mean runs/method-data\?"):
        place_of("runs/methd-data")
    with pytest.raises(zoo.UnknownModelError, match="did you mean 'method-data'"):
        zoo.load("methd-data")
    with pytest.raises(FileNotFoundError, match="did you mean method-data"):
        path_of("methd-data")
    (Path("runs/method-data/checkpoints/best.ckpt")).unlink()
    with pytest.raises(FileNotFoundError, match=r"neither best\.ckpt nor last\.ckpt"):
        zoo.load("runs/method-data")


def test_a_name_of_timm_says_so():
    expected = r"timm has it: 'timm/resnet18'; the zoo has '\w+resnet18'"
    with pytest.raises(zoo.UnknownModelError, match=expected):
        zoo.create("resnet18")


def test_the_transform_is_that_of_the_weights():
    model = zoo.load("spiking_cnn_nano")
    wanted = model.pretrained_cfg
    transform = zoo.transform(model)
    assert (transform.input_size, transform.mean) == ((1, 28, 28), tuple(wanted["mean"]))
    grey = np.full((28, 28), 51, dtype=np.uint8)  # a fifth of full scale
    x = transform(Image.fromarray(grey))
    expected = (0.2 - wanted["mean"][0]) / wanted["std"][0]
    assert x.shape == (1, 28, 28)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.full_like(x, expected))
    assert transform(Image.new("RGB", (60, 40))).shape == (1, 28, 28)


def test_the_transform_of_timm_s_network_is_timm_s():
    model = timm.create_model("resnet18")
    data = timm.data.resolve_model_data_config(model)
    image = Image.effect_noise((300, 260), 80).convert("RGB")
    own = zoo.transform(model)
    torch.testing.assert_close(own(image), timm.data.create_transform(**data)(image), rtol=0, atol=0)
    assert (own.crop_pct, own.interpolation) == (data["crop_pct"], data["interpolation"])


@pytest.mark.parametrize("image", [torch.zeros(1, 28, 28), np.zeros((28, 28)), "digit.png"])
def test_the_transform_says_what_else_it_would_take(image):
    with pytest.raises(TypeError, match=rf"a PIL image, got {type(image).__name__}; .*to_pil_image"):
        zoo.transform(zoo.create("spiking_cnn_nano"))(image)


def test_what_does_not_know_its_preprocessing_is_refused():
    with pytest.raises(ValueError, match="Linear does not say how its images are prepared"):
        zoo.transform(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"expected a network, got 'spiking_cnn_nano'; zoo.load\(NAME\)"):
        zoo.transform("spiking_cnn_nano")


def test_a_network_of_other_channels_takes_no_images():
    with pytest.raises(ValueError, match="takes 2 channels"):
        zoo.transform(zoo.create("spiking_cnn_nano", in_chans=2))


@pytest.mark.parametrize(
    ("options", "size", "mean"),
    [
        ({"img_size": 32}, (3, 32, 32), (0.5, 0.5, 0.5)),
        ({"img_size": (32, 48), "in_chans": 1}, (1, 32, 48), (0.5,)),
        ({"in_chans": 1}, (1, 160, 160), (0.5,)),
    ],
)
def test_images_are_prepared_for_the_size_and_channels_a_timm_network_was_built_for(options, size, mean):
    model = zoo.load("timm/test_vit", pretrained=False, **options).eval()
    transform = zoo.transform(model)
    image = transform(Image.new("RGB", (70, 50), "red"))
    assert (transform.input_size, transform.mean, tuple(image.shape)) == (size, mean, size)
    with torch.no_grad():
        assert model(image[None]).shape == (1, 1000)


def test_one_channel_of_a_network_of_ours_has_one_mean():
    transform = zoo.transform(zoo.create("ms_resnet_nano", in_chans=1))
    assert transform.input_size == (1, 32, 32)
    assert len(transform.mean) == len(transform.std) == 1
