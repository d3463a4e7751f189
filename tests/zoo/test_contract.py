"""What every model of the zoo promises, on small members of every family."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spiking
import zoo
from tests.zoo.kinds import KINDS
from zoo.registry import get_entry

EXPORTED = ("spiking_cnn_nano", "spiking_vgg11", "spiking_resnet19", "sew_resnet50", "ms_resnet104")
TRANSFORMERS = (
    "spikingresformer_nano",
    "spikformer_nano",
    "sdt_nano",
    "qkformer_nano",
    "metaspikformer_15m",
)
QUICK = ("spiking_cnn_nano", "spikingresformer_nano")  # of the compiler, which takes seconds for each
TRACED = (*EXPORTED, *TRANSFORMERS, "ge2mst_nano", "qcfs_vgg16", "qcfs_resnet18")
COMPILED = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TRACED]
BINARY = ("spiking_cnn_nano", "spiking_resnet18", "spiking_resnet19", "spiking_resnet34")


def steps_of(model, x):
    with torch.no_grad():
        return model(x, steps=True)


# -- shapes ----------------------------------------------------------------------------------------


def test_still_images_and_sequences(case, tiny, images):
    model = tiny(case).eval()
    x = images()
    logits = steps_of(model, x)
    T = model.time_steps
    assert logits.shape == (T, 2, 5)
    assert logits.isfinite().all()
    assert logits.std() > 0
    with torch.no_grad():
        assert torch.equal(model(x), logits.mean(0))
    # the stem runs once for a still image; a sequence of equal frames gives the same numbers
    torch.testing.assert_close(steps_of(model, x.expand(T, *x.shape)), logits, rtol=1e-5, atol=1e-5)
    assert steps_of(model, x.expand(3, *x.shape)).shape == (3, 2, 5)
    torch.testing.assert_close(steps_of(model, x[:1]), logits[:, :1], rtol=1e-4, atol=1e-4)


def test_first_step_does_not_depend_on_later_ones(case, tiny, images):
    model = tiny(case).eval()
    x = images().expand(3, -1, -1, -1, -1).clone()
    before = steps_of(model, x)
    x[2] = images(seed=5)
    after = steps_of(model, x)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])


def test_calls_start_from_rest(case, tiny, images):
    model = tiny(case).eval()
    first = steps_of(model, images())
    steps_of(model, images(seed=7))
    assert torch.equal(steps_of(model, images()), first)


@pytest.mark.parametrize("chans", [1, 2, 4])
def test_input_channels(case, tiny, images, chans):
    model = tiny(case, in_chans=chans).eval()
    assert steps_of(model, images(chans=chans)).shape == (model.time_steps, 2, 5)
    assert model.default_cfg["input_size"][0] == chans
    with pytest.raises(ValueError, match=rf"C = {chans} channels.*in_chans=3"):
        model(images(chans=3))


@pytest.mark.parametrize("size", [28, 37, (48, 33)])
def test_input_sizes(case, tiny, images, size):
    model = tiny(case).eval()
    assert steps_of(model, images(size=size)).shape == (model.time_steps, 2, 5)


POOLING = ("spiking_vgg11", "spiking_cnn_nano", "spiking_resnet18", "ms_resnet18", "qcfs_vgg16")


@pytest.mark.parametrize("name", POOLING)
def test_tiny_maps_survive_pooling(name, tiny, images):
    model = tiny(name).eval()
    assert steps_of(model, images(size=3)).shape == (model.time_steps, 2, 5)


def test_stage_outputs(case, tiny, images):
    model = tiny(case).eval()
    size = (37, 48)
    x = images(size=size)
    seen = []
    hooks = [s.register_forward_hook(lambda m, a, out: seen.append(out)) for s in model.stages()]
    with torch.no_grad():
        features, outputs = model.forward_intermediates(x)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == len(model.feature_info) == len(model.stages())
    for output, own, info in zip(outputs, seen, model.feature_info, strict=True):
        assert output is own
        assert model.get_submodule(info["module"]) is not None
        halved = tuple(math.ceil(s / info["reduction"]) for s in size)
        leading = (2, 2) if isinstance(model, zoo.SpikingModel) else (2,)
        assert output.shape == (*leading, info["num_chs"], *halved)
    assert outputs[-1] is features
    assert features.shape[-3] == model.num_features
    with torch.no_grad():
        torch.testing.assert_close(model.forward_features(x), features, rtol=0, atol=0)
        logits = model.forward_head(features).reshape(model.time_steps, 2, 5)
        torch.testing.assert_close(logits, model(x, steps=True), rtol=0, atol=0)
        (last,) = model.forward_intermediates(x, indices=1, intermediates_only=True)
        (first,) = model.forward_intermediates(x, indices=[0], intermediates_only=True)
    assert torch.equal(last, features)
    assert torch.equal(first, outputs[0])
    with pytest.raises(ValueError, match="out of range"):
        model.forward_intermediates(x, indices=[9])


@pytest.mark.parametrize("name", BINARY)
def test_stages_hand_on_spikes(name, tiny, images):
    with torch.no_grad():
        _, outputs = tiny(name).eval().forward_intermediates(images())
    for output in outputs:
        assert set(output.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("connect", "top"), [("ADD", 4), ("AND", 1), ("IAND", 1)])
def test_sew_values(connect, top, tiny, images):
    model = tiny("sew_resnet18", connect=connect).eval()
    with torch.no_grad():
        _, outputs = model.forward_intermediates(images())
    values = set(torch.cat([o.flatten() for o in outputs]).unique().tolist())
    assert values <= set(range(top + 1))
    assert len(values) > 1
    if connect == "ADD":
        assert max(values) > 1  # sums of spikes, no spikes any more


# -- head ------------------------------------------------------------------------------------------


def test_without_classifier(case, tiny, images):
    model = tiny(case, num_classes=0).eval()
    pooled = steps_of(model, images())
    assert pooled.shape == (model.time_steps, 2, model.head_hidden_size)
    with torch.no_grad():
        features = model.forward_features(images())
        assert torch.equal(pooled, model.forward_head(features, pre_logits=True).reshape(pooled.shape))


def test_reset_classifier(case, tiny, images):
    model = tiny(case).double()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.reset_classifier(11)
    assert model.get_classifier().weight.shape == (11, model.head_hidden_size)
    assert model.get_classifier().weight.dtype == torch.float64
    assert steps_of(model.eval(), images().double()).shape == (model.time_steps, 2, 11)
    assert model.num_classes == model.model_args["num_classes"] == 11
    for key, value in model.state_dict().items():
        if not key.startswith(model.classifier_name):
            assert torch.equal(value, before[key])
    model.reset_classifier(0)
    assert steps_of(model, images().double()).shape == (model.time_steps, 2, model.head_hidden_size)
    with pytest.raises(ValueError, match="global_pool"):
        model.reset_classifier(3, global_pool="max")


# -- gradients -------------------------------------------------------------------------------------


def run_training_step(model, x):
    model.zero_grad()
    loss = F.cross_entropy(model(x), torch.tensor([0, 3]))
    loss.backward()
    return {k: p.grad for k, p in model.named_parameters()}


def test_gradients_reach_every_layer(case, tiny, images):
    grads = run_training_step(tiny(case), images())
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    silent = [k for k, g in grads.items() if k.endswith("weight") and not g.any()]
    assert not silent


def test_checkpointing_gives_identical_gradients_and_statistics(case, tiny, images):
    plain, saving = tiny(case), tiny(case)
    saving.set_grad_checkpointing()
    saved = []

    def pack(tensor):
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        expected = run_training_step(plain, images())
        without = sum(saved)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        got = run_training_step(saving, images())
    assert sum(saved) > without  # the hooks saw both runs
    for key, grad in expected.items():
        assert torch.equal(grad, got[key]), key
    for key, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[key]), key
    saving.set_grad_checkpointing(False)
    assert not saving.grad_checkpointing


def test_stem_once_has_the_statistics_of_every_step(spiking_case, tiny, images):
    once, repeated = tiny(spiking_case), tiny(spiking_case)
    x = images(batch=3)
    once(x)
    repeated(x.expand(2, *x.shape))
    own = dict(once.named_buffers())
    for key, buffer in repeated.named_buffers():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(own[key], buffer, rtol=1e-4, atol=1e-5, msg=key)


# -- precision, layout, copies ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision(case, tiny, images, dtype):
    model = tiny(case).eval().to(dtype)
    assert steps_of(model, images().to(dtype)).dtype == dtype
    if dtype != torch.float64:
        with pytest.raises(TypeError, match="the weights are"):
            model(images())


def test_autocast(case, tiny, images):
    model = tiny(case)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(images()).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_channels_last(case, tiny, images):
    model = tiny(case).eval().double()
    x = images().double()
    expected = steps_of(model, x)
    model = model.to(memory_format=torch.channels_last)
    got = steps_of(model, x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    if case != "spikingresformer_nano":
        with torch.no_grad():
            _, outputs = model.forward_intermediates(x)
        for output in outputs:  # no stage falls back to the other layout, which would cost copies
            folded = output.flatten(0, -4)  # a view
            assert folded.is_contiguous(memory_format=torch.channels_last)
            assert folded.data_ptr() == output.data_ptr()


def test_copies(case, tiny, images):
    model = tiny(case).eval()
    expected = steps_of(model, images())
    assert torch.equal(steps_of(copy.deepcopy(model), images()), expected)
    assert torch.equal(steps_of(pickle.loads(pickle.dumps(model)), images()), expected)


# -- neurons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("neuron", spiking.list_neurons())
@pytest.mark.parametrize("name", ["spiking_vgg11", "sew_resnet18"])
def test_other_neurons(name, neuron, tiny, images):
    model = tiny(name, neuron=neuron)
    kinds = {type(m).__name__.lower() for m in model.modules() if isinstance(m, spiking.Neuron)}
    assert kinds == {neuron}
    assert model(images()).shape == (2, 5)
    if neuron == "plif":
        assert model.no_weight_decay() == {k for k, _ in model.named_parameters() if k.endswith(".w")}


def test_neuron_arguments(spiking_case, tiny):
    model = tiny(spiking_case, neuron="lif", neuron_args={"tau": 3.0, "v_threshold": 0.7})
    for neuron in (m for m in model.modules() if isinstance(m, spiking.Neuron)):
        assert (neuron.tau, neuron.v_threshold) == (3.0, 0.7)
    with pytest.raises(ValueError, match="unknown neuron"):
        tiny(spiking_case, neuron="liff")
    with pytest.raises(TypeError, match="no argument 'taw'"):
        tiny(spiking_case, neuron="lif", neuron_args={"taw": 3.0})


def test_default_neurons(tiny):
    def first(name):
        return next(m for m in tiny(name).modules() if isinstance(m, spiking.Neuron))

    ms = first("ms_resnet18")
    assert (ms.tau, ms.v_threshold, ms.decay_input, ms.detach_reset) == (4 / 3, 0.5, False, True)
    assert isinstance(first("sew_resnet18"), spiking.IF)
    resnet = first("spiking_resnet18")
    assert (resnet.tau, resnet.v_threshold, resnet.decay_input, resnet.v_reset) == (2.0, 1.0, False, 0.0)


def test_fixed_time_steps(tiny, images):
    model = tiny("spiking_resnet18", neuron="psn", time_steps=3).eval()
    assert steps_of(model, images()).shape == (3, 2, 5)
    with pytest.raises(ValueError, match="T = 3"):
        model(images().expand(2, 2, 3, 32, 32))


def test_streaming_equals_one_pass(spiking_case, tiny, images):
    model = tiny(spiking_case).eval()
    x = torch.stack([images(seed=s) for s in range(4)])
    whole = steps_of(model, x)
    with spiking.streaming(model):
        parts = [steps_of(model, chunk) for chunk in x.split([1, 2, 1])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(steps_of(model, x), whole)


# -- compile and export ----------------------------------------------------------------------------


@pytest.mark.compile
@pytest.mark.parametrize("name", COMPILED)
def test_compile_has_no_graph_break(name, tiny, images):
    torch.compiler.reset()
    model, twin = tiny(name), tiny(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for norm in twin.modules():  # watched, so that norm and neuron run apart as in a compiled program
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.register_forward_hook(lambda *_: None)
    expected = run_training_step(twin, images())
    loss = F.cross_entropy(compiled(images()), torch.tensor([0, 3]))
    loss.backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-3, atol=1e-4, msg=key)
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.export
@pytest.mark.filterwarnings("ignore")  # of torch's own making
@pytest.mark.parametrize("name", COMPILED)
def test_export(name, tiny, images):
    model = tiny(name).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: batch},))
    x = images(batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_every_family_has_its_kinds():
    families = {get_entry(name).family for name in zoo.list_models(task="classification")}
    assert {get_entry(name).family for name in KINDS} == families


@pytest.mark.slow
@pytest.mark.export
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in KINDS if name not in TRACED])
def test_export_of_every_other_kind(name):
    """With the entry's own arguments; `test_export` has the small members of the others."""
    model = zoo.create(name).eval()
    model.time_steps = 1
    x = torch.randn(1, *model.default_cfg["input_size"][:1], 32, 32)
    program = torch.export.export(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 32, 32), ValueError, r"x\.unsqueeze\(0\)"),
        (torch.zeros(2, 32), ValueError, "2 axes"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TypeError, "floating-point"),
        (torch.zeros(0, 3, 32, 32), ValueError, "empty input"),
        (torch.full((1, 3, 32, 32), torch.nan), ValueError, "NaN or infinite"),
        ([[1.0]], TypeError, "expected a tensor"),
    ],
)
@pytest.mark.parametrize("name", ["spiking_cnn_nano", "ms_resnet18"])
def test_bad_input(name, x, error, message, tiny):
    with pytest.raises(error, match=message):
        tiny(name)(x)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("sew_resnet18", {"connect": "OR"}, "connect must be one of ADD, AND, IAND"),
        ("sew_resnet18", {"block": "wide"}, "block must be"),
        ("sew_resnet18", {"stem": "5x5"}, "stem must be"),
        ("sew_resnet18", {"layers": (1, 1, 1)}, "one number a stage"),
        ("ms_resnet18", {"stem": "5x5"}, "stem must be"),
        ("ms_resnet18", {"layers": (1,)}, "one number a stage"),
        ("spiking_resnet18", {"stem": "5x5"}, "stem must be"),
        ("spiking_resnet18", {"planes": (8,)}, "one number a stage"),
        ("spiking_vgg11", {"plan": ((8,), ())}, "plan needs"),
        ("qcfs_vgg16", {"plan": ((8,), ())}, "plan needs"),
        ("qcfs_vgg16", {"activation": "gelu"}, "activation must be 'qcfs' or 'relu', got 'gelu'"),
        ("qcfs_resnet18", {"planes": (8,)}, "one number a stage"),
        ("qcfs_resnet18", {"levels": 0}, "levels must be an integer of at least 1"),
        ("qcfs_resnet18", {"order": "none"}, "order must be one of floor_first, clip_first"),
        ("qcfs_resnet18", {"v_threshold": -1.0}, "v_threshold must be positive"),
        ("spiking_cnn_nano", {"time_steps": 0}, "time_steps must be an integer of at least 1"),
        ("spiking_cnn_nano", {"num_classes": -1}, "num_classes must be"),
        ("spiking_cnn_nano", {"in_chans": 2.0}, "in_chans must be"),
    ],
)
def test_bad_arguments(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        zoo.create(name, **kwargs)


def test_unknown_argument():
    with pytest.raises(TypeError, match="did you mean 'time_steps'"):
        zoo.create("spiking_vgg11", timesteps=3)


def test_zero_init(tiny, images):
    x = images()
    for connect in ("ADD", "IAND", "AND"):
        model = zoo.create(
            "sew_resnet18", layers=(2, 2), planes=(8, 16), connect=connect, zero_init_residual=True
        )
        blocks = [m for m in model.modules() if hasattr(m, "last_norm")]
        assert all(not b.last_norm().weight.any() for b in blocks)
        spikes = (torch.rand(2, 2, 8, 6, 6) > 0.5).float()
        with torch.no_grad():  # a block whose shortcut is the identity starts as the identity
            assert torch.equal(model.layer1[1](spikes), spikes)
            assert model(x).shape == (2, 1000)
    blocks = zoo.create("ms_resnet18", layers=(1, 1), planes=(8, 16))
    assert all(not m.bn2.weight.any() for m in blocks.modules() if hasattr(m, "sn2"))
    gains = [m.weight for m in blocks.modules() if isinstance(m, nn.BatchNorm2d) and m.weight.any()]
    assert all(bool((g == 0.5).all()) for g in gains)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("spiking_vgg11", {"plan": ((16,), (32,)), "hidden": 128}),
        ("spiking_resnet19", {"layers": (1, 1), "planes": (16, 32), "hidden": 128}),
        ("spiking_resnet18", {"layers": (1, 1), "planes": (16, 32)}),
        ("sew_resnet18", {"layers": (1, 1), "planes": (16, 32), "stem": "3x3"}),
        ("ms_resnet18", {"layers": (1, 1), "planes": (16, 32)}),
        ("spiking_cnn_nano", {}),
    ],
)
def test_fresh_networks_are_alive(name, kwargs):
    """With the initialisation as it is no neuron layer is silent, so gradients reach the stem."""
    torch.manual_seed(0)
    model = zoo.create(name, in_chans=1, num_classes=4, **kwargs)
    rates = {}
    for path, module in model.named_modules():
        if isinstance(module, spiking.Neuron):
            module.register_forward_hook(
                lambda m, a, out, path=path: rates.update({path: out.detach().mean().item()})
            )
    loss = F.cross_entropy(model(torch.randn(4, 1, 28, 28)), torch.arange(4))
    loss.backward()
    # a block of MS-ResNet starts as its shortcut; its inner neurons see currents all the same
    assert min(rates.values()) > 0.02, rates
    assert max(rates.values()) < 0.6, rates
    assert next(model.parameters()).grad.any()
