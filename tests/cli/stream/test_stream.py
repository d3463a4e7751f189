"""A stream gives what one pass over the whole gives, and keeps nothing."""

import re
import weakref

import numpy as np
import pytest
import torch
from oracles.event_files import events, write_dat, write_nmnist
from PIL import Image

import zoo
from cli.main import main
from cli.stream.player import Latencies, play
from cli.stream.sources import Cut, EventSource, ImageSource, Step
from datamodules.events.frames import to_frames


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder of `zoo.save` with a network for events of 28x28, T = 4, whose neurons do fire."""
    torch.manual_seed(0)
    model = zoo.create("spiking_cnn_nano", in_chans=2).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.fill_(2.0)
            module.bias.data.fill_(0.3)
    folder = tmp_path_factory.mktemp("zoo") / "net"
    zoo.save(model, folder, label_names=[f"kind {k}" for k in range(10)])
    return str(folder)


@pytest.fixture
def recording(tmp_path):
    write_nmnist(tmp_path / "a.bin", events(4000, 28))
    return tmp_path / "a.bin"


def said(capsys, *words):
    main(["stream", *map(str, words)])
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["stream", *map(str, words)])
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize(
    ("cut", "steps"),
    [
        ((), 4),
        (("--split-by", "count"), 4),
        (("--frame-ms", "20"), 15),
        (("--frame-events", "300"), 14),
        (("--frame-ms", "7", "--repeat", "2"), 86),
    ],
)
def test_chunks_give_what_one_pass_gives(network, recording, cut, steps, chunk, capsys):
    out = said(capsys, network, "--events", recording, "--chunk", chunk, "--check", *cut)
    assert "gives the same logits, bit for bit" in out
    assert f"after {steps} steps" in out
    assert len(re.findall(r"events/s .* ms .*kind \d \(", out)) == -(-steps // chunk)


def test_by_default_the_frames_are_those_of_the_data_module(network, recording):
    model = zoo.load(network)
    for by in ("time", "count"):
        steps = list(EventSource(recording, model, Cut(by=by), None))
        frames = torch.from_numpy(to_frames(events(4000, 28), 4, (28, 28), by)).float()
        assert torch.equal(torch.cat([step.x for step in steps]), frames)
        with torch.no_grad():
            whole = model(frames[:, None], steps=True)
        seen = list(play(model, steps, 1))
        assert torch.equal(torch.cat([s.logits for s in seen]), whole[:, 0])
        assert whole.std() > 0, "the network answers to what it sees"
        torch.testing.assert_close(seen[-1].mean, whole[:, 0].double().mean(0))


def test_nothing_is_kept(network):
    """Of a long stream only the last frame is alive."""
    model = zoo.load(network)
    alive = weakref.WeakSet()

    def endless():
        for k in range(300):
            x = torch.full((1, 2, 28, 28), float(k % 3))
            alive.add(x)
            yield Step(x, 1, k + 1)

    most = 0
    for _ in play(model, endless(), 2):
        most = max(most, len(alive))
    assert most <= 3


def test_a_folder_of_images(tmp_path, capsys):
    torch.manual_seed(0)
    zoo.save(zoo.create("spiking_cnn_nano").eval(), tmp_path / "net")
    random = np.random.default_rng(0)
    for k in range(5):
        Image.fromarray(random.integers(0, 255, (30, 40), np.uint8)).save(tmp_path / f"{k}.png")
    out = said(capsys, tmp_path / "net", "--camera-like", tmp_path, "--check", "--chunk", 2)
    assert "after 5 steps in 3 chunks" in out
    assert "bit for bit" in out
    assert "image      4" in out
    assert "1 channels, but events have 2" in refused(
        capsys, tmp_path / "net", "--events", tmp_path / "0.png"
    )


def test_images_are_prepared_as_the_weights_want_them(tmp_path):
    """A wide image loses its ends in the centre crop, and is not squashed to a square."""
    model = zoo.create("spiking_cnn_nano").eval()
    image = Image.fromarray(np.tile(np.arange(80, dtype=np.uint8) * 3, (40, 1)))
    image.save(tmp_path / "wide.png")
    (step,) = ImageSource(tmp_path, model)
    assert torch.equal(step.x[0], zoo.transform(model)(image))
    squashed = torch.from_numpy(np.asarray(image.resize((28, 28)), np.float32) / 255)
    assert step.x.std() < 0.8 * ((squashed - 0.1307) / 0.3081).std()


def test_the_header_tells_the_sensor_and_frames_are_resized(network, tmp_path, capsys):
    write_dat(tmp_path / "a.dat", events(900, (60, 80)), height=60, width=80)
    assert "bit for bit" in said(capsys, network, "--events", tmp_path / "a.dat", "--check", "--every", 0)
    message = refused(capsys, network, "--events", tmp_path / "a.dat", "--sensor-size", 50, 80)
    assert "outside of a sensor of 50x80" in message


def test_what_is_refused(network, recording, tmp_path, capsys):
    assert "no reader for '.avi'" in refused(capsys, network, "--events", tmp_path / "a.avi")
    assert "cannot read the recording" in refused(capsys, network, "--events", tmp_path / "b.bin")
    cut = ("--frame-ms", 1, "--frame-events", 3)
    assert "give one" in refused(capsys, network, "--events", recording, *cut)
    assert "--chunk must be at least 1" in refused(capsys, network, "--events", recording, "--chunk", 0)
    assert "images are frames already" in refused(capsys, network, "--camera-like", tmp_path, "--frame-ms", 1)
    assert "takes 2 channels, so images" in refused(capsys, network, "--camera-like", tmp_path)
    assert "one of the arguments" in refused(capsys, network)
    recording.write_bytes(recording.read_bytes()[:-2])
    assert "cut off" in refused(capsys, network, "--events", recording)


def test_quantiles_of_latencies():
    times = Latencies()
    values = np.random.default_rng(0).lognormal(-6, 1, 5000)
    for value in values:
        times.add(float(value))
    for share in (0.5, 0.99):
        assert (
            np.quantile(values, share) <= times.quantile(share) * 1.001 <= 1.12 * np.quantile(values, share)
        )
    assert times.quantile(1.0) == times.largest == values.max()
