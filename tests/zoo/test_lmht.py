"""The LM-HT networks: sizes, what their neurons forbid, and the checkpoints of the authors' code."""

from __future__ import annotations

import pytest
import torch

import spiking
import zoo
from zoo._build import load_weights
from zoo._registry import get_entry

SMALL = {
    "lmht_vgg13": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
    "lmht_vgg16": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
    "lmht_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_resnet19": {"layers": (1, 1), "planes": (8, 16), "stem_width": 8, "hidden": 32},
    "lmht_resnet20": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_resnet34": {"layers": (2, 1), "planes": (8, 16)},
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


def test_saved_and_loaded(tmp_path):
    model = build("lmht_resnet19", neuron_args={"levels": 4}, time_steps=3).eval()
    images = torch.randn(2, 3, 32, 32)
    next(iter(neurons(model).values())).v_threshold.fill_(0.7)
    zoo.save(model, tmp_path / "m")
    again = zoo.load(f"local-dir:{tmp_path / 'm'}")
    assert torch.equal(again(images), model(images))


# ---------------------------------------------------------------- the authors' files


def in_their_form(model, rename=lambda key: key):
    """A state as LMHT_SNN writes it: a matrix for maps and one for the rest, of which one is used."""
    state = {}
    for key, value in model.state_dict().items():
        path, _, field = key.rpartition(".")
        if field in ("v_init", "input_scale"):
            continue
        if field in ("alpha", "v_threshold"):
            value = value.reshape(1)
        if field == "mask":
            T = len(value)
            used, other = value.clone(), torch.randn(T, T)
            maps, linear = (other, used) if path.startswith(("fc.", "classifier.")) else (used, other)
            state[rename(f"{path}.mask")] = maps.reshape(T, T, 1, 1, 1, 1)
            state[rename(f"{path}.mask_linear")] = linear.reshape(T, T, 1, 1, 1)
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
    if "_ms_" in name:  # a neuron that never runs
        state |= {f"sn1.{k.rpartition('.')[2]}": v for k, v in state.items() if k.startswith("layer1.0.sn1.")}
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


def test_hybrid_vgg_files(tmp_path):
    def rename(key):
        head, place, rest = key.split(".", 2)
        if head == "classifier":
            return f"classifier.{int(place) + 1}.{rest}"
        block, part = divmod(int(place), 3)
        if part == 1:
            return f"{head}.{4 * block + 2}.{rest}"
        inner, rest = rest.split(".", 1)
        return f"{head}.{4 * block + int(inner)}.0.{rest}"

    model = shaken("lmht_vgg16")
    state = in_their_form(model, rename)
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
