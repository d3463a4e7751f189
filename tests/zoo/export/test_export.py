"""Files for other programs: equal to the network for any batch, whole or not there, and refused in words."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from cli.commands.export import opened
from cli.main import main
from tests.kills import killed
from tests.zoo.export.lively import liven
from zoo.export import compare, program
from zoo.export.interface import interface_of
from zoo.export.metadata import metadata_of
from zoo.export.ports import Interface, Port
from zoo.export.step import driven, one_step

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = zoo.create("spiking_cnn_nano", channels=(8,), num_classes=3, time_steps=2)
    model.label_names = ["a", "b", "c"]
    return liven(model, torch.randn(8, 1, 28, 28))


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def pt2_file(network, tmp_path_factory):
    return zoo.export(network, tmp_path_factory.mktemp("pt2") / "net.pt2")


@pytest.fixture(scope="module")
def onnx_file(network, tmp_path_factory):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return zoo.export(network, tmp_path_factory.mktemp("onnx") / "net.onnx")


def test_onnx_gives_the_logits_of_every_step(onnx_file, network, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_file.path)
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(images, steps=True), rtol=1e-4, atol=1e-5)
    assert onnx_file.inputs == {"images": "[batch, 1, 28, 28]"}
    assert onnx_file.outputs == {"logits": "[2, batch, 3]"}
    assert session.get_inputs()[0].shape == ["batch", 1, 28, 28]


def test_onnx_is_one_file_that_says_what_it_is_and_not_where_it_was_made(onnx_file):
    import onnx

    assert [path.name for path in onnx_file.path.parent.iterdir()] == ["net.onnx"]
    told = {p.key: p.value for p in onnx.load(onnx_file.path).metadata_props}
    assert told["name"] == "spiking_cnn_nano"
    assert json.loads(told["class_names"]) == ["a", "b", "c"]
    assert told["time_steps"] == "2"
    assert json.loads(told["input_size"]) == [1, 28, 28]
    assert __file__.rpartition("tests")[0].encode() not in onnx_file.path.read_bytes()


def test_pt2_comes_back_without_the_zoo(pt2_file, network, images):
    assert "equal to PyTorch on 4 random inputs" in pt2_file.checked
    assert "silent" not in pt2_file.checked
    told = {"fulgurite.json": ""}
    again = torch.export.load(pt2_file.path, extra_files=told).module()
    with torch.no_grad():
        torch.testing.assert_close(again(images), network(images, steps=True), rtol=1e-4, atol=1e-5)
    assert json.loads(told["fulgurite.json"])["name"] == "spiking_cnn_nano"
    assert list(pt2_file.path.parent.iterdir()) == [pt2_file.path]
    assert network.training is False


def test_frames_go_in_as_a_sequence():
    model = zoo.create("spiking_cnn_nano", in_chans=2, num_classes=3, time_steps=2).eval()
    interface = interface_of(model, sequence=True)
    (frames,) = interface.draw(5, torch.Generator())
    assert interface.inputs[0].axes(frames) == "[2, batch, 2, 28, 28]"
    assert interface((frames,))[0].shape == (2, 5, 3)


@pytest.mark.slow
def test_an_agent_is_exported(tmp_path):
    torch.manual_seed(0)
    agent = liven(zoo.create("proxy_target_clif", obs_dim=3, act_dim=2, hidden=(8,)), torch.randn(4, 3))
    done = zoo.export(agent, tmp_path / "agent.pt2")
    assert "silent" not in done.checked
    seen = torch.randn(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(done.path).module()(seen), agent(seen))
    assert (done.inputs, done.outputs) == ({"observations": "[batch, 3]"}, {"actions": "[batch, 2]"})


def read_from_nir(time_steps):
    """A network as a NIR file describes it, of vectors."""
    linear = {"kind": "linear", "bias": True}
    nodes = [
        {"name": "first", "inputs": ["input"], "in_features": 3, "out_features": 8, **linear},
        {"name": "fire", "inputs": ["first"], "kind": "if", "v_threshold": 0.5, "v_reset": 0.0},
        {"name": "last", "inputs": ["fire"], "in_features": 8, "out_features": 2, **linear},
    ]
    torch.manual_seed(0)
    graph = {"input_shape": [3], "nodes": nodes, "output": "last"}
    return zoo.create("nir_network", graph=graph, time_steps=time_steps).eval()


def test_a_network_from_a_nir_file_has_steps_in_other_formats():
    model = read_from_nir(3)
    interface = interface_of(model)
    (x,) = interface.draw(4, torch.Generator().manual_seed(0))
    assert (interface.inputs[0].axes(x), interface.steps) == ("[batch, 3]", 3)
    with torch.no_grad():
        assert torch.equal(interface((x,))[0], model(x, steps=True))
    step, whole = one_step(model, interface)
    assert [port.name for port in step.inputs] == ["inputs", "steps_done", "state.layers.fire.v"]
    with torch.no_grad():
        (frames,) = whole.draw(2, torch.Generator().manual_seed(0))
        assert torch.equal(driven(step, step)((frames,))[0], model(frames, steps=True))
    with pytest.raises(zoo.ExportError, match=r"does not say T.*--time-steps"):
        interface_of(read_from_nir(None))


class Loop(nn.Module):
    """Looks at values, as no graph can."""

    architecture = ""
    pretrained_cfg = {"input_size": (1, 4, 4)}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 2)

    def forward(self, x):
        y = self.layer(x.flatten(1))
        return y if float(y.detach().sum()) > 0 else -y


def test_what_cannot_be_traced_leaves_no_file_and_the_old_one(tmp_path):
    (tmp_path / "net.pt2").write_text("old")
    with pytest.raises(zoo.ExportError, match="cannot trace Loop: "):
        zoo.export(Loop(), tmp_path / "net.pt2")
    assert (tmp_path / "net.pt2").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child process")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("name", ["net.pt2", "net.nir"])
def test_a_killed_export_leaves_the_old_file_or_the_new_one(name, tmp_path):
    if name.endswith("nir"):
        pytest.importorskip("nir")
    nets = [zoo.create("spiking_cnn_nano", channels=(2,), num_classes=3, neuron="if") for _ in range(2)]
    old, new = (liven(net, torch.randn(8, 1, 28, 28)) for net in nets)
    target = zoo.export(old, tmp_path / name).path
    before, found, died, k = target.read_bytes(), [], True, 0
    while died:
        k += 1
        target.write_bytes(before)
        died = killed(k, tmp_path, lambda: zoo.export(new, target))
        found.append(target.read_bytes() == before)
    assert found[:-1].count(True) >= 2, "it dies while the new file is unfinished"
    assert not found[-1], "the last of them is left alone and finishes"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_an_error_that_leaves_the_old_file(network, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "net.pt2").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*net.pt2'"):
        zoo.export(network, tmp_path / "net.pt2")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_that_computes_something_else_is_refused_and_removed(network, pt2_file, tmp_path, monkeypatch):
    damaged = torch.export.load(pt2_file.path)
    damaged.state_dict[next(iter(damaged.state_dict))].data.mul_(1.2)
    monkeypatch.setattr(program, "trace", lambda *_: damaged)
    with pytest.raises(zoo.ExportError, match="computes something else than the network: on 4 of 4"):
        zoo.export(network, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


class Fires(nn.Module):
    """The number of inputs that reach 1: one step of a neuron each."""

    def forward(self, x):
        return (x >= 1).float().sum(1, keepdim=True)


def firing(values):
    """`Fires` on rows of these values."""
    return Interface(
        program=Fires(),
        inputs=[Port(name="x")],
        outputs=[Port(name="y")],
        draw=lambda count, generator: (torch.tensor([values]).repeat(count, 1),),
    )


def test_a_spike_at_its_threshold_may_go_either_way_and_is_told():
    at_threshold = firing([1.0] + [5.0] * 9)
    compared = compare.check(at_threshold, lambda inputs: (Fires()(inputs[0]) - 1,))
    assert (compared.same, compared.samples) == (0, 4)
    assert "the network itself moves by" in str(compared)


def test_a_spike_away_from_its_threshold_may_not():
    with pytest.raises(zoo.ExportError, match=r"by up to 0\.1 of the largest one, while the network itself"):
        compare.check(firing([1.1] + [5.0] * 9), lambda inputs: (Fires()(inputs[0]) - 1,))


def test_two_spikes_at_one_threshold_are_one_too_many():
    with pytest.raises(zoo.ExportError, match="something else"):
        compare.check(firing([1.0] + [5.0] * 9), lambda inputs: (Fires()(inputs[0]) - 3,))


def test_what_only_optimisations_change_is_told():
    compared = compare.check(
        firing([1.1] + [5.0] * 9),
        lambda inputs: (Fires()(inputs[0]) - 1,),
        lambda inputs: Fires()(*inputs)[None],
    )
    assert "without the optimisations" in compared.note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "net.onix"}, "which format"),
        ({"path": "net", "to": "onix"}, "did you mean 'onnx'"),
        ({"path": "."}, "which format"),
        ({"path": ".", "to": "pt2"}, "is a folder"),
        ({"path": "no/net.pt2"}, "does not exist"),
        ({"path": "net.pt2", "step": True, "sequence": True}, "one step"),
    ],
)
def test_bad_wishes(network, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((zoo.ExportError, OSError), match=message):
        zoo.export(network, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named(network, tmp_path, monkeypatch):
    from zoo.export import formats

    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(zoo.ExportError, match=r"pip install 'fulgurite\[export\]'"):
        zoo.export(network, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("usp_recon_net", {"channels": (4, 8, 4, 4)}, "a reconstruction network.*torch.export.export"),
        ("proxy_target_lif", {"hidden": (8,)}, "takes observations"),
        ("qcfs_resnet20", {}, "no time steps"),
    ],
)
def test_networks_that_fit_no_file(tmp_path, name, arguments, message):
    with pytest.raises(zoo.ExportError, match=message):
        zoo.export(zoo.create(name, **arguments), tmp_path / "net.pt2", sequence=True)


def test_half_precision_and_damaged_weights_are_refused(network, tmp_path):
    with pytest.raises(zoo.ExportError, match=r"float16: model\.float"):
        zoo.export(zoo.create("spiking_cnn_nano").half(), tmp_path / "net.pt2")
    broken = zoo.create("spiking_cnn_nano")
    next(broken.parameters()).data[0] = float("nan")
    with pytest.raises(zoo.ExportError, match="NaN"):
        zoo.export(broken, tmp_path / "net.pt2")


def test_a_silent_network_is_called_that():
    silent = firing([0.0] * 3)
    assert "this says little" in str(compare.check(silent, lambda inputs: (Fires()(inputs[0]),)))


def test_the_command_writes_the_file_and_tells_its_inputs(network, tmp_path, monkeypatch, capsys):
    zoo.save(network, tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    main(["export", "small", "--to", "pt2", "--time-steps", "1"])
    told = capsys.readouterr().out
    assert "equal to PyTorch on 4 random inputs" in told
    assert "images [batch, 1, 28, 28]" in told
    facts = {program.METADATA_FILE: ""}
    torch.export.load(tmp_path / "small.pt2", extra_files=facts)
    assert json.loads(facts[program.METADATA_FILE])["time_steps"] == "1"


def test_random_weights_are_told(capsys):
    agent = opened("proxy_target_lif", 3)
    assert "random ones" in capsys.readouterr().out
    assert agent.time_steps == 3
    assert "random" in metadata_of(agent)["source"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spiking_cnn_nano", "--to", "onix"], "did you mean 'onnx'"),
        (["spiking_cnn_nano", "--to", "pt2", "--time-steps", "0"], "--time-steps must be at least 1"),
        (["spiking_cnn", "--to", "pt2"], "unknown model"),
        (["spiking_cnn_nano", "--to", "pt2", "--output", "no/x.pt2"], "does not exist"),
    ],
)
def test_the_command_refuses_in_words(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["export", *words])
    assert message in capsys.readouterr().err
