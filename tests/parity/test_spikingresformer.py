"""SpikingResformer against numbers of its authors' own code, driven by the files' sidecars."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import spiking
import zoo
from tests.parity.goldens import FILES, TABLES, Golden, claim, over_files
from zoo.layers.convolution import neuron_factory
from zoo.layers.dual_spike_attention import DSSA
from zoo.models.spikingresformer import GWFFN, NEURON_DEFAULTS, DownsampleLayer, SpikingResformer

pytestmark = pytest.mark.golden


# -- reading the files -----------------------------------------------------------------------------


def exactness(expected: torch.Tensor) -> dict[str, float]:
    """float64 entries are exact results, float32 ones were rounded once, spikes are integers."""
    if expected.dtype == torch.float32:
        return {"rtol": 2e-6, "atol": 1e-6}
    return {"rtol": 0.0, "atol": 1e-9 if expected.is_floating_point() else 0.0}


def check(golden: Golden, key: str, got: torch.Tensor) -> None:
    expected, got = golden[key], got.detach()
    if got.numel() == expected.numel() == 1:
        got = got.reshape(expected.shape)
    torch.testing.assert_close(got, expected.double(), **exactness(expected), msg=lambda m: f"{key}: {m}")


class Call(dict):
    """A constructor call of the sidecar: class name, positional and keyword arguments."""

    def __init__(self, name: str, *args: object, **kwargs: object) -> None:
        super().__init__(kwargs)
        self.name, self.args = name, args


class Names(dict):
    """Every unknown name in a constructor string is a class that is called or handed over."""

    def __missing__(self, name: str) -> object:
        if name in ("LIF", "PLIF", "IF"):
            return name.lower()
        return lambda *args, **kwargs: Call(name, *args, **kwargs)


def constructor(golden: Golden) -> Call:
    return eval(golden.sidecar["constructor"], {"__builtins__": {}}, Names())


def make_neurons(name: str):
    return neuron_factory(name, None, NEURON_DEFAULTS, time_steps=1)


def build_block(call: Call) -> nn.Module:
    arguments = dict(call)
    make = make_neurons(arguments.pop("activation"))
    if call.name == "DSSA":
        return DSSA(**arguments, make_neuron=make, lenth_from="img_size")
    return {"GWFFN": GWFFN, "DownsampleLayer": DownsampleLayer}[call.name](**arguments, make_neuron=make)


def build_model(call: Call) -> SpikingResformer:
    arguments = dict(call)
    layers, prologue = arguments.pop("layers"), arguments.pop("prologue", None)
    assert all(stage == ["DSSA", "GWFFN"] * (len(stage) // 2) for stage in layers)
    stem = "7x7"
    if prologue is not None:
        conv = prologue.args[0]
        assert conv.args[2:5] == (3, 1, 1)
        stem = "3x3"
    return SpikingResformer(
        depths=[len(stage) // 2 for stage in layers],
        stem=stem,
        time_steps=arguments.pop("T"),
        in_chans=arguments.pop("in_channels"),
        neuron=arguments.pop("activation"),
        lenth_from="img_size",
        **arguments,
    )


def load(module: nn.Module, golden: Golden) -> nn.Module:
    expected = golden.sidecar["state_dict_keys"]
    own = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert list(own.items()) == list(expected.items())  # names, order and shapes
    module.load_state_dict(golden.under("weights."), strict=True)
    return module.double()


class Recorder:
    """Inputs and outputs of submodules by path, and operations counted as upstream does."""

    def __init__(self, model: nn.Module) -> None:
        self.inputs: dict[str, torch.Tensor] = {}
        self.outputs: dict[str, torch.Tensor] = {}
        self.handles = [
            module.register_forward_hook(lambda m, a, out, name=name: self.see(name, m, a, out))
            for name, module in model.named_modules()
        ]

    def see(self, name: str, module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        self.inputs[name], self.outputs[name] = args[0].detach(), out.detach()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def check_spikes(golden: Golden, seen: Recorder) -> None:
    """Spikes of every neuron layer: exact integers."""
    for name, count in golden.sidecar["eval_neuron_statistics"]["spikes_per_neuron_layer"].items():
        assert int(seen.outputs[name].sum()) == count, name


def check_operations(golden: Golden, counter: spiking.OperationCounter) -> None:
    """What the official monitor counted, all samples together; it leaves out the stem and the classifier."""
    operations = golden.sidecar.get("sops_official_monitor")
    if operations is None:
        return
    rows = [row for row in counter.report(1).rows if row.name not in ("prologue.0", "classifier")]
    own = {row.name: row.sops * (1 - row.padding) for row in rows}
    assert own == pytest.approx(operations["per_layer"], rel=1e-12)
    assert sum(own.values()) == pytest.approx(operations["total"], rel=1e-12)
    assert all(row.macs == 0 for row in rows)


# -- tests -----------------------------------------------------------------------------------------


@over_files("x", "grad_out", "*.spike_second_call")
def test_neurons(golden):
    upstream = golden["grad_out"].double()
    for name in sorted({key.split(".")[0] for key in golden.keys if "." in key}):
        neuron = make_neurons(name)().double()
        if name == "plif":
            neuron.load_state_dict({"w": golden["plif.w"].double()})
        x = golden["x"].double().requires_grad_()
        spikes = neuron(x)
        check(golden, f"{name}.spike", spikes)
        (spikes * upstream).sum().backward()
        check(golden, f"{name}.grad_x", x.grad)
        if name == "plif":
            check(golden, "plif.grad_w", neuron.w.grad)

        x, state, membranes = x.detach(), neuron.initial_state(x[0].detach()), []
        for t in range(x.shape[0]):
            _, state = neuron.step(x[t], state)
            membranes.append(state if isinstance(state, torch.Tensor) else state[0])
        check(golden, f"{name}.v_seq", torch.stack(membranes))
        neuron.eval()
        with spiking.streaming(neuron), torch.no_grad():
            neuron(x)
            check(golden, f"{name}.spike_second_call", neuron(x))
    golden.everything_was_compared()


@over_files("weights.*", "eval.out", "train.out_step2")
def test_block(golden):
    block = load(build_block(constructor(golden)), golden).eval()
    with torch.no_grad(), Recorder(block) as seen:
        check(golden, "eval.out", block(golden["input.x"].double()))
    check_spikes(golden, seen)
    for key, about in golden.sidecar["tensors"].items():
        found = re.search(r"(input|output) of official submodule (\S+)", about["meaning"])
        if found and key.startswith("eval."):
            seen_by = seen.inputs if found[1] == "input" else seen.outputs
            got, expected = seen_by[found[2]], golden.tensors[key]
            check(golden, key, got.reshape(expected.shape))

    block.train()
    for key, buffer in block.named_buffers():
        if key.startswith("firing_rate"):
            buffer.zero_()  # the first-batch rule, then the moving average
    x = golden["input.x"].double().requires_grad_()
    out = block(x)
    check(golden, "train.out_step1", out)
    (out * golden["train.grad_out"].double()).sum().backward()
    check(golden, "train.grad_x", x.grad)
    for key, parameter in block.named_parameters():
        check(golden, f"train.grad.{key}", parameter.grad)
    for key in golden.under("train.buffers_after_step1."):
        check(golden, f"train.buffers_after_step1.{key}", block.get_buffer(key))
    check(golden, "train.out_step2", block(golden["input.x2"].double()))
    for key in golden.under("train.buffers_after_step2."):
        check(golden, f"train.buffers_after_step2.{key}", block.get_buffer(key))
    golden.everything_was_compared()


def time_first(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1) if x.dim() == 5 else x  # upstream takes [B, T, C, H, W]


@over_files("weights.*", "eval.logits")
def test_model(golden):
    model = load(build_model(constructor(golden)), golden).eval()
    assert sum(p.numel() for p in model.parameters()) == golden.sidecar["parameters"]
    x = time_first(golden["input.x"].double())
    with torch.no_grad(), Recorder(model) as seen, spiking.OperationCounter(model) as counter:
        logits = model(x, steps=True)
    check(golden, "eval.logits", logits)
    check_spikes(golden, seen)
    check_operations(golden, counter)
    with torch.no_grad():
        check(golden, "eval.out.prologue", model.encode(x))
        torch.testing.assert_close(model(x), logits.mean(0), rtol=0, atol=0)
        _, stages = model.forward_intermediates(x)
    for i, stage in enumerate(stages):
        assert torch.equal(stage, seen.outputs[f"layers.{i}"])
        if f"eval.out.layers.{i}" in golden.tensors:
            check(golden, f"eval.out.layers.{i}", stage)
    golden.everything_was_compared()


def needed(golden: Golden) -> Golden:
    """The file of the same network with its weights, by the name that the sidecar states or by its maker."""
    named = golden.sidecar["needs"].split()[0].removesuffix(".safetensors")
    own = [
        g
        for g in FILES
        if g.holds("weights.*") and g.sidecar.get("constructor") == golden.sidecar["constructor"]
    ]
    near = [g for g in own if g.path.parent == golden.path.parent]
    found = [g for g in near if g.path.stem == named] or near or own
    return Golden(found[0].path)


@over_files("train.logits", "input.target")
def test_model_training_step(golden):
    weights = needed(golden)
    model = load(build_model(constructor(golden)), weights).train()
    logits = model(time_first(weights["input.x"].double()), steps=True)
    check(golden, "train.logits", logits)
    loss = F.cross_entropy(logits.mean(0), golden["input.target"].double())
    check(golden, "train.loss", loss)
    loss.backward()
    for key, parameter in model.named_parameters():
        check(golden, f"train.grad.{key}", parameter.grad)
    for key in golden.under("train.buffer."):
        check(golden, f"train.buffer.{key}", model.get_buffer(key))
    golden.everything_was_compared()


def formula(count: int, position: int, seed: int) -> np.ndarray:
    """The documented integer hash: ``count`` values in [0, 1) for the tensor at ``position``."""
    h = np.arange(count, dtype=np.uint64) + np.uint64(0x9E3779B9 * (position + 1) % 2**32)
    h = (h + np.uint64(0x85EBCA6B * seed % 2**32)) & np.uint64(0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return h.astype(np.float64) / 2**32


def filled(key: str, shape: torch.Size, position: int, seed: int) -> torch.Tensor:
    count = int(np.prod(shape)) if shape else 1
    u = formula(count, position, seed)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if key.endswith("running_mean"):
        value = 0.2 * (2 * u - 1)
    elif key.endswith("running_var"):
        value = 0.5 + u
    elif "firing_rate" in key:
        value = 0.05 + 0.1 * u
    elif key.endswith("bn.weight"):
        value = 1 + 0.5 * (2 * u - 1)
    elif key.endswith("bn.bias"):
        value = 0.35 + 0.5 * (2 * u - 1)
    elif key.endswith(".w"):
        value = 0.5 * (2 * u - 1)
    else:
        gain = 1 if key == "classifier.weight" else 2
        value = (2 * u - 1) * np.sqrt(3) * gain / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(value.astype(np.float32)).reshape(shape)


@over_files("eval.logits", "eval.spatial_mean.*", where=lambda g: "deterministic_fill" in g.sidecar)
def test_full_model(golden):
    call, seed = constructor(golden), golden.sidecar["seed"]
    arguments = {"time_steps": call["T"]} | {k: v for k, v in call.items() if k != "T"}
    model = zoo.create(call.name, lenth_from="img_size", **arguments)
    assert sum(p.numel() for p in model.parameters()) == golden.sidecar["parameters"]
    state = {
        key: filled(key, value.shape, e, seed) for e, (key, value) in enumerate(model.state_dict().items())
    }
    checks = golden.sidecar["check_values"]
    for key, values in checks["first_four_values_of"].items():
        assert state[key].flatten()[:4].tolist() == values
    model.load_state_dict(state)
    model = model.double().eval()
    shape = golden.sidecar["input_shape"]
    x = (3 * formula(int(np.prod(shape)), 10000, seed) - 1).astype(np.float32)
    assert x[:4].tolist() == checks["input_first_four"]
    x = time_first(torch.from_numpy(x).reshape(shape).double())
    with torch.no_grad(), Recorder(model) as seen, spiking.OperationCounter(model) as counter:
        check(golden, "eval.logits", model(x, steps=True))
    check_spikes(golden, seen)
    check_operations(golden, counter)
    with torch.no_grad():
        check(golden, "eval.spatial_mean.prologue", model.encode(x).mean((-1, -2)))
    for path in golden.under("eval.spatial_mean.layers."):
        got = seen.outputs[f"layers.{path}"].mean((-1, -2))
        check(golden, f"eval.spatial_mean.layers.{path}", got)
    golden.everything_was_compared()


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def sizes(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def columns() -> list[pytest.ParameterSet]:
    """Every table of names and shapes, column by column."""
    found = []
    for path in TABLES:
        for column in read_table(path)[0]:
            if column.startswith("shape"):
                claim(path)
                found.append(pytest.param(path, column, id=f"{path.stem}-{column}"))
    return found


def entry_of(rows: list[dict[str, str]], column: str) -> str:
    """The entry that a column is about: the one it names, or the one whose first and last layers fit."""
    if variant := column.partition("_")[2]:
        return f"spikingresformer_{variant}"
    ends = [(row["key"], sizes(row[column])) for row in (rows[0], rows[-1])]
    for entry in zoo.list_models("spikingresformer_*"):
        with torch.device("meta"):
            own = zoo.create(entry).state_dict()
        if len(own) == len(rows) and all(k in own and list(own[k].shape) == shape for k, shape in ends):
            return entry
    raise AssertionError(f"no entry ends in {ends}")


@pytest.mark.parametrize(("table", "column"), columns())
def test_state_dict_keys(table: Path, column: str):
    rows = read_table(table)
    with torch.device("meta"):
        own = zoo.create(entry_of(rows, column)).state_dict()
    assert [row["key"] for row in rows] == list(own)
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    for row in rows:
        tensor = own[row["key"]]
        assert str(tensor.dtype) == f"torch.{row['dtype']}"
        assert sizes(row[column]) == list(tensor.shape), row["key"]


def counts() -> list[pytest.ParameterSet]:
    found = []
    for g in FILES:
        for entry, expected in g.sidecar.get("models", {}).items():
            claim(g.path)
            found.append(pytest.param(entry, expected, id=entry))
    return found


@pytest.mark.parametrize(("entry", "expected"), counts())
def test_parameter_counts(entry: str, expected: dict):
    with torch.device("meta"):
        model = zoo.create(entry, num_classes=expected["num_classes"])
    assert zoo.describe(entry).parameters == expected["parameters"]
    total = sum(p.numel() for p in model.parameters())
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    assert total == expected["parameters"]
    assert norms == expected["of_which_batchnorm_affine"]
    assert total - norms == expected["parameters_without_batchnorm_affine"]
    assert model.classifier.weight.numel() == expected["classifier"]
    assert len(model.state_dict()) == expected["state_dict_entries"]
    assert sum(b.numel() for b in model.buffers()) == expected["buffers_numel"]
    stages = [sum(p.numel() for p in s.parameters()) for s in model.stages()]
    assert stages == expected["stage_parameters"]
    assert [b.lenth for b in model.attentions().values()] == expected["lenth"]
    neurons = [m for m in model.modules() if isinstance(m, spiking.Neuron)]
    assert len(neurons) == expected["neuron_modules"]
