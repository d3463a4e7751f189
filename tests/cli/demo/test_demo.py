"""What the page of ``fulgurite demo`` shows; the page itself is tested in a browser next door."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import spiking
import zoo
from cli.demo import page
from cli.demo.classification import frames
from cli.demo.explain import class_names, explain, prepare
from cli.main import main
from conversion import convert
from datamodules import MNIST5kDataModule


@pytest.fixture(scope="module")
def network():
    return zoo.load("spiking_cnn_nano")


@pytest.fixture(scope="module")
def digit():
    """A test image, its normalised form and its class."""
    data = MNIST5kDataModule()
    _, test = data.load_arrays()
    data.prepare_data()
    data.setup("test")
    x, y = next(iter(data.test_dataloader()))
    return Image.fromarray(test.images[0, 0]), x[0], int(y[0])


def test_the_network_sees_what_it_was_trained_on(network, digit):
    original, image, label = digit
    torch.testing.assert_close(prepare(network, original), image)
    told = explain(network, original)
    with torch.no_grad():
        steps = network(image[None], steps=True)
    assert told.probabilities.shape == (4, 10)
    torch.testing.assert_close(told.probabilities[-1], steps.mean(0).softmax(-1)[0])
    torch.testing.assert_close(told.probabilities[0], steps[0].softmax(-1)[0])
    assert next(iter(told.best(4))) == label
    assert 2 <= len(told.spikes) <= 4
    assert told.energy.sops == spiking.profile_energy(network, image[None]).sops
    assert f"{told.energy.sops:,.0f} additions caused by spikes" in told.energy_text
    assert 0 < told.firing_rate < 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_images_of_every_kind(mode, network):
    original = Image.new("L", (90, 61), 200).convert(mode)
    assert prepare(network, original).shape == (1, 28, 28)
    assert explain(network, original).probabilities.shape == (4, 10)


def test_light_and_dark(network, digit):
    from PIL import ImageOps

    original, image, _ = digit
    torch.testing.assert_close(prepare(network, ImageOps.invert(original), invert=True), image)


def test_networks_without_neurons():
    model = zoo.load("timm/test_resnet", pretrained=False)
    told = explain(model, Image.new("RGB", (50, 40)))
    assert told.probabilities.shape == (1, 1000)
    assert not told.spikes
    assert any("fish" in name for name in class_names(model, 1000)[:10])
    with pytest.raises(ValueError, match="takes 2 channels"):
        explain(zoo.load("spiking_cnn_nano", pretrained=False, in_chans=2), Image.new("L", (9, 9)))


def test_sixteen_bits(network, digit):
    original, image, _ = digit
    deep = Image.fromarray(np.asarray(original).astype(np.uint16) * 257)
    assert deep.mode.startswith("I;16")
    torch.testing.assert_close(prepare(network, deep), image)


def test_the_prediction_builds_up(network, digit):
    empty = list(frames(network, None, invert=False))
    assert len(empty) == 1
    assert "appears here" in empty[0][0]
    reading, *shown = frames(network, digit[0], invert=False, seconds=0)
    assert "is reading" in reading[0]
    told = explain(network, digit[0])
    for step, (prediction, spikes, energy) in enumerate(shown, 1):
        assert f"after step {step} of 4" in prediction
        ((answer, share),) = told.best(step, 1).items()
        assert f'fg-answer">{told.labels[answer]}<' in prediction
        assert f'fg-share">{share:.0%}<' in prediction
        assert f"{told.firing_rate:.1%} of the neurons" in spikes
        assert bool(energy) == (step == 4)
    assert f"{told.energy.energy_mj * 1e3:,.3f} µJ" in energy
    assert f"{told.energy.ann_energy_mj * 1e3:,.3f} µJ" in energy
    assert len({spikes for _, spikes, _ in shown}) == 4, "the raster grows"


def test_many_steps_are_shown_in_few_frames(digit):
    deep = zoo.load("spiking_cnn_nano", pretrained=False, time_steps=30)
    shown = [frame[0] for frame in frames(deep, digit[0], invert=False, seconds=0)]
    assert 2 <= len(shown) <= 9
    assert "after step 30 of 30" in shown[-1]


def test_converted_networks(digit):
    torch.manual_seed(0)
    ann = zoo.create("qcfs_resnet20", planes=(4, 8, 8), num_classes=10).eval()
    *_, last = frames(convert(ann, "srp", 3, progress=False), digit[0], invert=False, seconds=0)
    assert "after step 3 of 3" in last[0]
    assert "times as much" in last[2]


def test_what_cannot_be_read(network):
    ((said, *_),) = frames(network, ValueError("This is <none>."), invert=False)
    assert "This is &lt;none&gt;." in said
    *_, (said, _, _) = frames(network, Image.new("F", (9, 9), -3.0), invert=False)
    assert "cannot be shown to the network: its values go from -3" in said


def test_labels_that_share_a_name_are_kept_apart(network, digit):
    told = explain(network, digit[0])
    best = next(iter(told.best(4)))
    twin = (best + 1) % 10
    model = zoo.load("spiking_cnn_nano")
    model.label_names = ["crane" if k in (best, twin) else f"bird {k}" for k in range(10)]
    assert [name for name in class_names(model, 10) if "crane" in name] == [
        f"crane ({k})" for k in sorted((best, twin))
    ]
    shown = page.prediction(explain(model, digit[0]), 4)
    assert f'fg-answer">crane ({best})<' in shown
    share = f"{float(told.probabilities[-1, best]):.0%}"
    assert f'fg-share">{share}<' in shown
    assert f'title="crane ({best})"' in shown
    assert len(set(class_names(zoo.load("timm/test_resnet", pretrained=False), 1000))) == 1000


def test_names_are_no_markup(digit):
    hostile = "<img src=x onerror=alert(1)>"
    network = zoo.load("spiking_cnn_nano")
    network.label_names = [f"{hostile}{k}" for k in range(10)]
    shown = [part for frame in frames(network, digit[0], invert=False, seconds=0) for part in frame]
    shown.append(page.heading(hostile, ""))
    assert not any(hostile in part for part in shown)
    assert any("&lt;img src=x" in part for part in shown)


def test_what_cannot_be_shown(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # asked for gradio only
    zoo.save(zoo.load("spiking_cnn_nano", pretrained=False, in_chans=2), tmp_path / "events")
    for words, message in (
        (["spiking_cnn_nanno"], "did you mean 'spiking_cnn_nano'"),
        (["sew_resnet18"], "sew_resnet18 has no weights"),
        ([f"local-dir:{tmp_path / 'events'}"], "takes 2 channels"),
        ([f"local-dir:{tmp_path / 'nothing'}"], "no such file or folder"),
        (["spiking_cnn_nano", "--port", "70000"], "--port must be between 1 and 65535"),
    ):
        assert message in refused(capsys, *words)


def test_without_gradio(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'fulgurite[demo]'" in refused(capsys, "spiking_cnn_nano")


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["demo", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err
