"""Recon-Net, with ReLUs and with spiking neurons."""

from __future__ import annotations

import pytest
import torch

import spiking
import zoo

FRAMES = spiking.camera.virtual_frames(5)


@pytest.fixture
def stream():
    draw = torch.Generator().manual_seed(0)
    return (torch.rand(177, 14, 17, generator=draw) < 0.3).to(torch.uint8)


def inputs(stream):
    short = spiking.camera.short_windows(stream, FRAMES)
    return short, spiking.camera.long_voxel(stream)[None], torch.linspace(0, 1, 5)


def small(**kwargs):
    torch.manual_seed(0)
    return zoo.create("usp_recon_net", channels=[6, 8, 6, 4], **kwargs)


def test_sizes():
    assert zoo.describe("usp_recon_net").parameters == 200_353
    one = zoo.create("usp_recon_net", inputs="one")
    assert sum(p.numel() for p in one.parameters()) == 41 * 64 * 9 + 64 + 73_856 + 73_792 + 9_232 + 145
    assert zoo.task_of(one).name == "reconstruction"


def test_shapes_and_broadcasting(stream):
    short, voxel, tau = inputs(stream)
    net = small().eval()
    images = net(short, voxel, tau)
    assert images.shape == (5, 1, 14, 17)
    apart = torch.cat([net(short[m : m + 1], voxel, tau[m]) for m in range(5)])
    torch.testing.assert_close(images, apart)
    assert not torch.allclose(net(short, voxel, 0.0)[1:], images[1:])  # the time counts
    assert small(inputs="one")(short).shape == (5, 1, 14, 17)


def test_authors_layout_loads_strictly(tmp_path, stream):
    net = small()
    torch.save({name: p + 1 for name, p in net.state_dict().items()}, tmp_path / "theirs.pth")
    names = list(net.state_dict())
    assert names[:2] == ["preprocess_spk.0.weight", "preprocess_spk.0.bias"]
    again = zoo.create("usp_recon_net", channels=[6, 8, 6, 4])
    again.load_state_dict(torch.load(tmp_path / "theirs.pth"), strict=True)
    assert torch.equal(again.conv.bias, net.conv.bias + 1)
    loaded = zoo.load("usp_recon_net", weights=tmp_path / "theirs.pth", channels=[6, 8, 6, 4])
    assert torch.equal(loaded.conv.bias, again.conv.bias)
    torch.save({name: p for name, p in net.state_dict().items() if name != "conv.bias"}, tmp_path / "cut.pth")
    with pytest.raises(zoo.CheckpointError, match=r"conv\.bias"):
        zoo.load("usp_recon_net", weights=tmp_path / "cut.pth", channels=[6, 8, 6, 4])


@pytest.mark.parametrize("inputs", ["two", "one"])
@pytest.mark.parametrize("scene", [False, True])
def test_authors_files_repeat_their_layers(tmp_path, inputs, scene):
    net = small(inputs=inputs)
    theirs = dict(net.state_dict())
    blocks = [name for name in dict.fromkeys(k.split(".")[0] for k in theirs) if name.startswith("convB")]
    for i, name in enumerate([*blocks, "conv"]):  # nn.Sequential(convBlock1, ..., conv)
        theirs |= {k.replace(name, f"seq.{i}", 1): v for k, v in theirs.items() if k.startswith(f"{name}.")}
    assert len(theirs) == 2 * len(net.state_dict()) - 4 * (inputs == "two")
    content = theirs
    if scene:  # a checkpoint of nerfstudio
        content = {f"_model.spike_net.{k}": v for k, v in theirs.items()}
        content = {"step": 30_000, "pipeline": {**content, "_model.gauss_params.means": torch.zeros(5, 3)}}
    path = tmp_path / "theirs.ckpt"
    torch.save(content, path)
    loaded = zoo.load("usp_recon_net", weights=path, channels=[6, 8, 6, 4], inputs=inputs)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in loaded.state_dict().items())
    torch.save({**theirs, "seq.0.0.weight": theirs["seq.0.0.weight"] + 1}, path)
    with pytest.raises(zoo.CheckpointError, match=r"seq\.0\.0\.weight is not .* under convBlock1"):
        zoo.load("usp_recon_net", weights=path, channels=[6, 8, 6, 4], inputs=inputs)
    torch.save({**theirs, "seq.7.weight": theirs["conv.weight"]}, path)
    with pytest.raises(zoo.CheckpointError, match=r"seq\.7\.weight is not .* under its own name"):
        zoo.load("usp_recon_net", weights=path, channels=[6, 8, 6, 4], inputs=inputs)


@pytest.mark.parametrize("neuron", ["lif", "if", "plif"])
def test_with_spiking_neurons(stream, neuron, tmp_path):
    net = small(neuron=neuron, time_steps=3)
    rates = []
    for module in net.modules():
        if isinstance(module, spiking.Neuron):
            module.register_forward_hook(lambda m, x, y: rates.append((y.shape[0], y.detach())))
    images = net(*inputs(stream))
    assert images.shape == (5, 1, 14, 17)
    assert len(rates) == 5
    for T, spikes in rates:  # no layer is silent from the start
        assert T == 3
        assert set(spikes.unique().tolist()) == {0.0, 1.0}
        assert 0.03 < spikes.mean() < 0.6
    images.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())
    again = zoo.load(f"local-dir:{zoo.save(net, tmp_path / 'out')}")
    assert (again.time_steps, again.model_args["neuron"]) == (3, neuron)
    net.eval()
    assert torch.equal(again(*inputs(stream)), net(*inputs(stream)))


def test_parameters_are_those_of_relus():
    assert {n: p.shape for n, p in small(neuron="lif").named_parameters()} == {
        n: p.shape for n, p in small().named_parameters()
    }


def test_what_is_refused(stream):
    short, voxel, tau = inputs(stream)
    for call, message in (
        (lambda: small(inputs="three"), "inputs must be 'two' or 'one', got 'three'"),
        (lambda: zoo.create("usp_recon_net", channels=[4, 4]), "4 hidden layers, got 2"),
        (lambda: small()(short), "built with inputs='two'"),
        (lambda: small(inputs="one")(short, voxel), "built with inputs='one'"),
        (
            lambda: small()(short[:, 1:], voxel, tau),
            r"expected a short window \[B, 41, H, W\], got \(5, 40, 14",
        ),
        (lambda: small()(short, voxel[:, 1:], tau), r"expected a voxel \[B, 34, H, W\], got \(1, 33, 14"),
        (lambda: small()(short, voxel[..., 1:], tau), "does not fit to short window"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="no argument 'time_steps'"):
        small(time_steps=4)  # without neurons there are none
    with pytest.raises(ValueError, match="lif"):
        small(neuron="lifx")
