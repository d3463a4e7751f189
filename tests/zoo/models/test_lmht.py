"""The LM-HT networks: sizes, what their neurons forbid, and the checkpoints of the authors' code."""

from __future__ import annotations

import re

import pytest
import torch

import spiking
import zoo
from conversion import lmht
from zoo.factory import load_weights
from zoo.registry import get_entry

SMALL = {
    "lmht_vgg13": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
    "lmht_vgg16": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
    "lmht_vgg_nano": {"plan": ((8,), (8, 8), (16,))},
    "lmht_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_resnet19": {"layers": (1, 1), "planes": (8, 16), "stem_width": 8, "hidden": 32},
    "lmht_resnet20": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_resnet34": {"layers": (2, 1), "planes": (8, 16)},
    "lmht_spikformer_4_384_cifar": {"dim": 48, "depth": 1},
    "lmht_spikformer_2_256_cifar10dvs": {"dim": 32, "depth": 1, "num_heads": 4, "in_chans": 3},
    "lmht_ms_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_ms_resnet34": {"layers": (2, 1), "planes": (8, 16)},
}


def build(name, **kwargs):
    torch.manual_seed(0)
    return zoo.create(name, num_classes=5, **{**SMALL[name], **kwargs})


def neurons(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, spiking.Neuron)}


def test_every_entry_is_here():
    assert set(zoo.list_models("lmht_*")) == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_trains_and_starts_alive(name):
    model = build(name, time_steps=3)
    levels = {}
    for path, neuron in neurons(model).items():
        assert isinstance(neuron, spiking.LMHT)
        neuron.register_forward_hook(lambda m, a, y, path=path: levels.update({path: y.detach()}))
    images = torch.randn(4, 3, 32, 32)
    assert model(images, steps=True).shape == (3, 4, 5)
    torch.nn.functional.cross_entropy(model(images), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert next(model.parameters()).grad.any()
    for path, y in levels.items():
        assert set(y.unique().tolist()) <= {0.0, 1.0, 2.0}
        assert 0.02 < y.mean() < 1.6, path
    assert len(levels) == len(neurons(model))


@pytest.mark.parametrize("family", ["spiking_vgg11", "sew_resnet18", "ms_resnet18", "spiking_cnn_nano"])
def test_by_name_in_any_network(family):
    """The threshold follows the levels, not the family; T comes from the network."""
    model = zoo.create(family, neuron="lmht", neuron_args={"levels": 4}, time_steps=3)
    for neuron in neurons(model).values():
        assert (neuron.levels, neuron.time_steps, float(neuron.v_threshold)) == (4, 3, 0.5)
    assert {name.rpartition(".")[2] for name in model.no_weight_decay()} == {"alpha", "mask"}


def test_sequences_must_have_the_length_of_the_parameters():
    model = build("lmht_resnet18").eval()
    frames = torch.randn(2, 2, 3, 32, 32)
    assert model(frames, steps=True).shape == (2, 2, 5)
    assert model(frames[:1], steps=True).shape == (2, 2, 5)  # one frame is given at every step
    with pytest.raises(ValueError, match=r"T = 2, got T = 3.*time_steps=3"):
        model(torch.randn(3, 2, 3, 32, 32))
    with pytest.raises(RuntimeError, match=r"sn1 \(LMHT\) is not causal"), spiking.streaming(model):
        pass


def test_the_spikformer_host_has_the_published_size():
    model = zoo.create("lmht_spikformer_4_384_cifar")
    own = set(neurons(model))
    counted = sum(p.numel() for n, p in model.named_parameters() if n.rpartition(".")[0] not in own)
    assert counted == 9_324_730
    assert {float(neuron.v_threshold) for neuron in neurons(model).values()} == {1.0}, "2 / L everywhere"
    eight = build("lmht_spikformer_4_384_cifar", neuron_args={"levels": 8})
    assert {float(neuron.v_threshold) for neuron in neurons(eight).values()} == {0.25}


def test_the_spikformer_host_takes_frames_of_events():
    torch.manual_seed(0)
    small = {**SMALL["lmht_spikformer_2_256_cifar10dvs"], "in_chans": 2}
    model = zoo.create("lmht_spikformer_2_256_cifar10dvs", **small)
    frames = torch.rand(10, 2, 2, 32, 32)
    assert model(frames, steps=True).shape == (10, 2, 10)
    torch.nn.functional.cross_entropy(model(frames), torch.tensor([1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with pytest.raises(ValueError, match="T = 10, got T = 4"):
        model(frames[:4])
    with pytest.raises(lmht.ReparameterisationError, match=r"attn|pool"):
        lmht.reparameterise(model, frames)


# ---------------------------------------------------------------- frames of events


def naive_first_neuron(neuron, x):
    """``I(t) = sum_j 2 sig(mask[t, j]) / T' x(j)`` and the steps of the paper, one element at a time."""
    T, steps = neuron.mask.shape
    theta, leak = float(neuron.v_threshold), float(torch.sigmoid(neuron.alpha) + 0.5)
    v, out = torch.zeros_like(x[0]), []
    for t in range(T):
        omega = 2 * torch.sigmoid(neuron.mask[t]) / steps
        m = leak * v + float(neuron.input_scale) * sum(omega[j] * x[j] for j in range(steps))
        y = theta * torch.floor(m / theta).clip(0, neuron.levels)
        v = m - y
        out.append(y)
    return torch.stack(out)


def watched(model, frames):
    """What goes into the first neuron and what comes out, and the logits."""
    seen = []
    handle = model.sn1.register_forward_hook(lambda m, a, y: seen.extend([a[0], y]))
    with torch.no_grad():
        logits = model(frames, steps=True)
    handle.remove()
    return (*seen, logits)


def test_the_mean_frame_counts_t_fold():
    """As released: one frame, and ``T x`` to the first neuron while the matrix is fresh."""
    model = shaken("lmht_resnet18", in_chans=2, dvs_mode="mean_frame", time_steps=3)
    frames = torch.rand(10, 4, 2, 16, 16)
    x, y, logits = watched(model, frames)
    assert float(model.sn1.input_scale) == 3.0
    torch.testing.assert_close(y, naive_first_neuron(model.sn1, x))
    once = x[:1] * 2 * torch.sigmoid(model.sn1.mask).sum(1)[:, None, None, None, None]  # T' = 1, no division
    scaled = model.sn1.matrix() @ x.flatten(1) * model.sn1.input_scale
    torch.testing.assert_close(once.flatten(1), scaled)
    assert logits.shape == (3, 4, 5)
    torch.testing.assert_close(watched(model, frames.mean(0))[2], logits)


def test_a_matrix_of_its_own_maps_frames_to_steps():
    model = shaken("lmht_resnet18", in_chans=2, dvs_mode="rect_tgim", dvs_frames=7, time_steps=3)
    assert model.sn1.mask.shape == (3, 7)
    assert model.layer1[0].sn1.mask.shape == (3, 3)
    frames = torch.rand(7, 4, 2, 16, 16)
    x, y, logits = watched(model, frames)
    assert len(x) == 7
    torch.testing.assert_close(y, naive_first_neuron(model.sn1, x))
    assert logits.shape == (3, 4, 5)
    with pytest.raises(ValueError, match=r"built for T' = 7, got T = 5.*time_steps_in=5"):
        model(frames[:5])
    with pytest.raises(ValueError, match=r"\[T, T'\] = \[3, 7\]"):
        model.sn1.set_matrix(torch.eye(3))


@pytest.mark.filterwarnings("ignore:on these images")
@pytest.mark.parametrize("mode", ["mean_frame", "rect_tgim"])
@pytest.mark.parametrize("name", ["lmht_resnet18", "lmht_resnet19"])
def test_networks_for_events_become_ordinary_spikes(name, mode, tmp_path):
    model = shaken(name, in_chans=2, dvs_mode=mode, dvs_frames=6, first_stride=2)
    frames = torch.rand(6, 3, 2, 16, 16)
    single = lmht.reparameterise(model, frames)
    found = lmht.agreement(model, single, frames)
    assert found.difference < 1e-4 or min(found.windows.values()) < 1.0
    zoo.save(single, tmp_path / "m")
    again = zoo.load(f"local-dir:{tmp_path / 'm'}")
    x = frames.repeat_interleave(2, 0)
    assert torch.equal(again(x), single.eval()(x))


@pytest.mark.parametrize("mode", ["mean_frame", "rect_tgim"])
def test_files_of_networks_for_events(mode, tmp_path):
    model = shaken("lmht_resnet18", in_chans=2, dvs_mode=mode, dvs_frames=6)
    state = in_their_form(model, lambda key: re.sub(r"^(conv1|bn1)\.", r"\1.0.", key))
    assert "conv1.0.weight" in state
    check_import(model, state, tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lmht_resnet18", {"dvs_mode": "average"}, "dvs_mode must be 'mean_frame' or 'rect_tgim'"),
        ("lmht_resnet18", {"dvs_mode": "mean_frame", "neuron": "lif"}, "for LM-HT neurons, got neuron 'lif'"),
        ("lmht_ms_resnet18", {"dvs_mode": "rect_tgim"}, "use 'mean_frame'"),
    ],
)
def test_ways_with_events_that_cannot_be(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_saved_and_loaded(tmp_path):
    model = build("lmht_resnet19", neuron_args={"levels": 4}, time_steps=3).eval()
    images = torch.randn(2, 3, 32, 32)
    next(iter(neurons(model).values())).v_threshold.fill_(0.7)
    zoo.save(model, tmp_path / "m")
    again = zoo.load(f"local-dir:{tmp_path / 'm'}")
    assert torch.equal(again(images), model(images))


# ---------------------------------------------------------------- the authors' files


def in_their_form(model, rename=lambda key: key, after_running=False):
    """A state as LMHT_SNN writes it: a matrix for maps and one for the rest, of which one is used.

    A network that has run holds the used one again.
    """
    state = {}
    for key, value in model.state_dict().items():
        path, _, field = key.rpartition(".")
        if field in ("v_init", "input_scale"):
            continue
        if field in ("alpha", "v_threshold"):
            value = value.reshape(1)
        if field == "mask":
            used, other = value.clone(), torch.randn_like(value)
            without_map = path.startswith(("fc.", "classifier.", "block."))
            maps, linear = (other, used) if without_map else (used, other)
            state[rename(f"{path}.mask")] = maps[..., None, None, None, None]
            state[rename(f"{path}.mask_linear")] = linear[..., None, None, None]
            if after_running:
                core = "mask_linear" if without_map else "mask"
                state[rename(f"{path}.core")] = state[rename(f"{path}.{core}")]
            continue
        state[rename(key)] = value.clone()
    return state


def shaken(name, **kwargs):
    model = build(name, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def check_import(model, state, tmp_path):
    torch.save({"model": state, "optimizer": {}, "epoch": 3, "max_acc1": 70.0}, tmp_path / "c.pth")
    fresh = zoo.create(model.architecture, **{**SMALL[model.architecture], **model.model_args})
    load_weights(fresh, tmp_path / "c.pth", get_entry(model.architecture))
    for key, value in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key


@pytest.mark.parametrize("name", SMALL)
def test_directly_trained_files(name, tmp_path):
    model = shaken(name, neuron_args={"levels": 4}, time_steps=3)
    state = in_their_form(model)
    if "spikformer" in name:  # linear layers for tokens, and two norms that never run
        linear = re.compile(r"(block\.\d+\..+)_conv\.(weight|bias)")
        state = {
            linear.sub(r"\1_linear.\2", k): v.flatten(1) if linear.match(k) and v.dim() == 4 else v
            for k, v in state.items()
        }
        assert "block.0.attn.q_linear.weight" in state
        assert state["block.0.mlp.fc1_linear.weight"].dim() == 2
        state["block.0.norm1.weight"] = torch.ones(3)
    if "_ms_" in name:  # a neuron that never runs
        state |= {f"sn1.{k.rpartition('.')[2]}": v for k, v in state.items() if k.startswith("layer1.0.sn1.")}
    check_import(model, state, tmp_path)


@pytest.mark.parametrize("name", SMALL)
def test_files_of_networks_that_have_run(name, tmp_path):
    """The scripts save after training, when ``core`` is part of every neuron: 17 more keys of a ResNet-18."""
    model = shaken(name, neuron_args={"levels": 4}, time_steps=3)
    before, state = in_their_form(model), in_their_form(model, after_running=True)
    assert len(state) - len(before) == len(neurons(model))
    check_import(model, state, tmp_path)


def test_seventeen_more_keys_of_a_resnet18():
    """The numbers of the authors' own file: 207 keys, 17 of which are ``core``."""
    with torch.device("meta"):
        model = zoo.create("lmht_resnet18", time_steps=2, neuron_args={"levels": 2})
        state = in_their_form(model, after_running=True)
    assert (len(state), sum(key.endswith(".core") for key in state)) == (207, 17)
    assert tuple(state["sn1.core"].shape) == (2, 2, 1, 1, 1, 1)


@pytest.mark.parametrize("after_running", [False, True])
@pytest.mark.parametrize("hybrid", [False, True])
def test_vgg_files_with_a_classifier_of_one_layer(hybrid, after_running, tmp_path):
    """Their VGG-13 for 200 classes has ``classifier.0.weight``; hybrid files count a flattening before it."""
    model = shaken("lmht_vgg13", hidden=0)
    rename = hybrid_vgg if hybrid else lambda key: key
    state = in_their_form(model, rename, after_running)
    place = int(hybrid)
    for field in ("weight", "bias"):
        state[f"classifier.{place}.{field}"] = state.pop(f"classifier.{place}.0.{field}")
    check_import(model, state, tmp_path)


def test_hybrid_resnet_files(tmp_path):
    def rename(key):
        for ours, theirs in (
            ("conv1.0.", "residual_function.0.0."),
            ("conv1.1.", "residual_function.1.0."),
            ("sn1.", "residual_function.2."),
            ("conv2.0.", "residual_function.3.0."),
            ("conv2.1.", "residual_function.4.0."),
            ("sn2.", "relu."),
            ("downsample.0.0.", "shortcut.0.0."),
            ("downsample.0.1.", "shortcut.1.0."),
        ):
            for stage in ("layer1.0.", "layer2.0."):
                if key.startswith(stage + ours):
                    number = int(stage[5]) + 1
                    return f"conv{number}_x.0.{theirs}" + key.removeprefix(stage + ours)
        for ours, theirs in (("conv1.", "conv1.0.0."), ("bn1.", "conv1.1.0."), ("sn1.", "conv1.2.")):
            if key.startswith(ours):
                return theirs + key.removeprefix(ours)
        return key

    model = shaken("lmht_resnet20")
    state = in_their_form(model, rename)
    assert "conv3_x.0.shortcut.1.0.running_mean" in state
    assert "conv1.2.mask" in state
    check_import(model, state, tmp_path)


def hybrid_vgg(key):
    """The place of a tensor in the authors' hybrid VGG networks."""
    head, place, rest = key.split(".", 2)
    if head == "classifier":
        return f"classifier.{int(place) + 1}.{rest}"
    block, part = divmod(int(place), 3)
    if part == 1:
        return f"{head}.{4 * block + 2}.{rest}"
    inner, rest = rest.split(".", 1)
    return f"{head}.{4 * block + int(inner)}.0.{rest}"


def test_hybrid_vgg_files(tmp_path):
    model = shaken("lmht_vgg16")
    state = in_their_form(model, hybrid_vgg)
    assert {"layer2.4.0.weight", "layer2.5.0.running_mean", "layer2.6.mask", "classifier.2.mask"} <= set(
        state
    )
    check_import(model, state, tmp_path)


def test_older_files_have_a_smaller_second_matrix(tmp_path):
    model = shaken("lmht_resnet19")
    state = in_their_form(model)
    state = {k: v.squeeze(-1) if k.endswith("mask_linear") else v for k, v in state.items()}
    check_import(model, state, tmp_path)


def test_files_that_do_not_belong(tmp_path):
    model = build("lmht_resnet18", neuron_args={"levels": 4})
    torch.save(in_their_form(build("lmht_resnet18", neuron_args={"levels": 2})), tmp_path / "two.pth")
    torch.save(in_their_form(build("lmht_resnet18", neuron_args={"levels": 8})), tmp_path / "eight.pth")
    longer = build("lmht_resnet18", neuron_args={"levels": 4}, time_steps=3)
    torch.save(in_their_form(longer), tmp_path / "longer.pth")
    inference = in_their_form(model)
    inference = {k: v.expand(8) if k.endswith(".alpha") else v for k, v in inference.items()}
    torch.save(inference, tmp_path / "inference.pth")
    for file, message in (
        ("two", r"trained with L = 2 levels.*model has 4; give neuron_args=\{'levels': 2\}"),
        ("eight", "trained with L = 8"),
        ("longer", r"mask: expected 2x2, got 3x3"),
        ("inference", "weights of a reparameterised network"),
    ):
        with pytest.raises(zoo.CheckpointError, match=message):
            load_weights(model, tmp_path / f"{file}.pth", get_entry("lmht_resnet18"))
