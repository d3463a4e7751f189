"""The page that shows a network a picture; its content without a browser, the page itself with gradio."""

from __future__ import annotations

import importlib.util
import urllib.request

import pytest
import torch
from PIL import Image

import spiking
import zoo
from cli._explain import class_names, explain, prepare
from cli.demo import build, frames
from cli.main import main
from datamodules import MNIST5kDataModule

HAS_GRADIO = importlib.util.find_spec("gradio") is not None


@pytest.fixture(scope="module")
def network():
    return zoo.load("spiking_cnn_nano")


@pytest.fixture(scope="module")
def digit():
    """A test picture, its normalised form and its class."""
    data = MNIST5kDataModule()
    _, test = data.load_arrays()
    data.prepare_data()
    data.setup("test")
    x, y = next(iter(data.test_dataloader()))
    return Image.fromarray(test.images[0, 0]), x[0], int(y[0])


def test_the_network_sees_what_it_was_trained_on(network, digit):
    picture, image, label = digit
    torch.testing.assert_close(prepare(network, picture), image)
    told = explain(network, picture)
    with torch.no_grad():
        steps = network(image[None], steps=True)
    assert told.probabilities.shape == (4, 10)
    torch.testing.assert_close(told.probabilities[-1], steps.mean(0).softmax(-1)[0])
    torch.testing.assert_close(told.probabilities[0], steps[0].softmax(-1)[0])
    assert next(iter(told.best(4))) == str(label)
    assert 2 <= len(told.spikes) <= 4
    assert told.energy.sops == spiking.profile_energy(network, image[None]).sops
    assert f"{told.energy.sops:,.0f} additions caused by spikes" in told.energy_text


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_pictures_of_every_kind(mode, network):
    picture = Image.new("L", (90, 61), 200).convert(mode)
    assert prepare(network, picture).shape == (1, 28, 28)
    assert explain(network, picture).probabilities.shape == (4, 10)


def test_light_and_dark(network, digit):
    from PIL import ImageOps

    picture, image, _ = digit
    torch.testing.assert_close(prepare(network, ImageOps.invert(picture), invert=True), image)


def test_networks_without_neurons():
    model = zoo.load("timm/test_resnet", pretrained=False)
    told = explain(model, Image.new("RGB", (50, 40)))
    assert told.probabilities.shape == (1, 1000)
    assert not told.spikes
    assert any("fish" in name for name in class_names(model, 1000)[:10])
    with pytest.raises(ValueError, match="takes 2 channels"):
        explain(zoo.load("spiking_cnn_nano", pretrained=False, in_chans=2), Image.new("L", (9, 9)))


def test_the_prediction_builds_up(network, digit):
    shown = list(frames(network, digit[0], invert=False, pause=0))
    assert [frame[0] for frame in shown] == [f"after step {t} of 4" for t in (1, 2, 3, 4)]
    assert [frame[3] is not None for frame in shown] == [False, False, False, True]
    assert "times as much" in shown[-1][4]
    lines = shown[-1][2].axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [4, 4, 4]
    assert list(frames(network, None, invert=False)) == [("", None, None, None, "")]


def test_what_cannot_be_shown(capsys):
    for words, message in (
        (["spiking_cnn_nanno"], "did you mean 'spiking_cnn_nano'"),
        (["sew_resnet18"], "sew_resnet18 has no weights"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["demo", *words])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(HAS_GRADIO, reason="gradio is installed")
def test_without_gradio(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "spiking_cnn_nano"])
    assert "pip install 'fulgurite[demo]'" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_GRADIO, reason="no gradio: pip install 'fulgurite[demo]'")
def test_the_page_answers(network):
    page = build(network, "spiking_cnn_nano")
    _, url, _ = page.launch(server_name="127.0.0.1", share=False, prevent_thread_lock=True, quiet=True)
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.status == 200
            assert b"gradio" in answer.read()
    finally:
        page.close()
