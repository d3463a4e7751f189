"""SpikingResformer against numbers of its authors' own code, driven by the files' sidecars."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

import spiking
import zoo
from spiking.layers import SpikeMatmul
from zoo.layers.convolution import neuron_factory
from zoo.models.spikingresformer import DSSA, GWFFN, NEURON_DEFAULTS, DownsampleLayer, SpikingResformer

FAMILY = "spiking_transformers"
BLOCKS = ("dssa_p1", "dssa_p2", "dssa_p4_plif", "gwffn", "downsample")
MODELS = ("model_tiny", "model_tiny_events")
FULL = ("full_ti_formula", "full_cifar_formula", "full_dvsg_formula")
TABLES = ("state_dict_keys_imagenet", "state_dict_keys_cifar", "state_dict_keys_dvsg")
GOLDEN_FILES = {
    f"{FAMILY}/{name}"
    for name in (
        "neurons",
        *BLOCKS,
        *MODELS,
        *(f"{m}_train" for m in MODELS),
        *FULL,
        *TABLES,
        "parameter_counts",
    )
}
ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("GOLDENS_DIR", ROOT / ".." / "shared" / "goldens")) / FAMILY

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no golden files in {FOLDER}"),
]


# -- reading the files -----------------------------------------------------------------------------


class Golden:
    """Tensors of one file, its sidecar, and the comparison that the sidecar prescribes."""

    def __init__(self, name: str) -> None:
        self.sidecar = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        with safe_open(FOLDER / f"{name}.safetensors", framework="pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert set(self.tensors) == set(self.sidecar["tensors"])
        self.compared: set[str] = set()

    def input(self, key: str) -> torch.Tensor:
        self.compared.add(key)
        return self.tensors[key].double()

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        self.compared |= {prefix + k for k in found}
        return found

    def check(self, key: str, got: torch.Tensor) -> None:
        self.compared.add(key)
        expected = self.tensors[key]
        got = got.detach()
        if got.numel() == expected.numel() == 1:
            got = got.reshape(expected.shape)
        # float64 entries are exact results, float32 ones were rounded once, spikes are integers
        exact = {"rtol": 0.0, "atol": 1e-9}
        if expected.dtype == torch.float32:
            exact = {"rtol": 2e-6, "atol": 1e-6}
        elif not expected.is_floating_point():
            exact = {"rtol": 0.0, "atol": 0.0}
        torch.testing.assert_close(got, expected.double(), **exact, msg=lambda m: f"{key}: {m}")

    def all_compared(self) -> None:
        assert set(self.tensors) == self.compared, set(self.tensors) - self.compared


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
        self.sops: dict[str, float] = {}
        self.handles = [
            module.register_forward_hook(lambda m, a, out, name=name: self.see(name, m, a, out))
            for name, module in model.named_modules()
        ]

    def see(self, name: str, module: nn.Module, args: tuple, out: torch.Tensor) -> None:
        self.inputs[name], self.outputs[name] = args[0].detach(), out.detach()
        if isinstance(module, nn.Conv2d):
            one = F.conv2d(
                args[0],
                torch.ones_like(module.weight),
                None,
                module.stride,
                module.padding,
                module.dilation,
                module.groups,
            )
            self.sops[name] = float(one.sum())
        elif isinstance(module, SpikeMatmul):
            self.sops[name] = float((torch.ones_like(args[0]) @ args[1]).sum())

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()


def check_statistics(golden: Golden, seen: Recorder) -> None:
    """Spikes of every neuron layer and, where listed, operations of every layer: exact integers."""
    for name, count in golden.sidecar["eval_neuron_statistics"]["spikes_per_neuron_layer"].items():
        assert int(seen.outputs[name].sum()) == count, name
    operations = golden.sidecar.get("sops_official_monitor")
    if operations:
        own = {k: v for k, v in seen.sops.items() if k != "prologue.0"}
        assert own == operations["per_layer"]
        assert sum(own.values()) == operations["total"]


# -- tests -----------------------------------------------------------------------------------------


def test_neurons():
    golden = Golden("neurons")
    upstream = golden.input("grad_out")
    for name in ("lif", "plif", "if"):
        neuron = make_neurons(name)().double()
        if name == "plif":
            neuron.load_state_dict({"w": golden.input("plif.w")})
        x = golden.input("x").requires_grad_()
        spikes = neuron(x)
        golden.check(f"{name}.spike", spikes)
        (spikes * upstream).sum().backward()
        golden.check(f"{name}.grad_x", x.grad)
        if name == "plif":
            golden.check("plif.grad_w", neuron.w.grad)

        x, state, membranes = x.detach(), neuron.initial_state(x[0].detach()), []
        for t in range(x.shape[0]):
            _, state = neuron.step(x[t], state)
            membranes.append(state if isinstance(state, torch.Tensor) else state[0])
        golden.check(f"{name}.v_seq", torch.stack(membranes))
        neuron.eval()
        with spiking.streaming(neuron), torch.no_grad():
            neuron(x)
            golden.check(f"{name}.spike_second_call", neuron(x))
    golden.all_compared()


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name: str):
    golden = Golden(name)
    block = load(build_block(constructor(golden)), golden).eval()
    with torch.no_grad(), Recorder(block) as seen:
        golden.check("eval.out", block(golden.input("input.x")))
    check_statistics(golden, seen)
    for key, about in golden.sidecar["tensors"].items():
        found = re.search(r"(input|output) of official submodule (\S+)", about["meaning"])
        if found and key.startswith("eval."):
            seen_by = seen.inputs if found[1] == "input" else seen.outputs
            got, expected = seen_by[found[2]], golden.tensors[key]
            golden.check(key, got.reshape(expected.shape))

    block.train()
    for key, buffer in block.named_buffers():
        if key.startswith("firing_rate"):
            buffer.zero_()  # the first-batch rule, then the moving average
    x = golden.input("input.x").requires_grad_()
    out = block(x)
    golden.check("train.out_step1", out)
    (out * golden.input("train.grad_out")).sum().backward()
    golden.check("train.grad_x", x.grad)
    for key, parameter in block.named_parameters():
        golden.check(f"train.grad.{key}", parameter.grad)
    for key in golden.under("train.buffers_after_step1."):
        golden.check(f"train.buffers_after_step1.{key}", block.get_buffer(key))
    golden.check("train.out_step2", block(golden.input("input.x2")))
    for key in golden.under("train.buffers_after_step2."):
        golden.check(f"train.buffers_after_step2.{key}", block.get_buffer(key))
    golden.all_compared()


def time_first(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1) if x.dim() == 5 else x  # upstream takes [B, T, C, H, W]


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str):
    golden = Golden(name)
    model = load(build_model(constructor(golden)), golden).eval()
    assert sum(p.numel() for p in model.parameters()) == golden.sidecar["parameters"]
    x = time_first(golden.input("input.x"))
    with torch.no_grad(), Recorder(model) as seen:
        logits = model(x, steps=True)
    golden.check("eval.logits", logits)
    check_statistics(golden, seen)
    with torch.no_grad():
        golden.check("eval.out.prologue", model.encode(x))
        torch.testing.assert_close(model(x), logits.mean(0), rtol=0, atol=0)
        _, stages = model.forward_intermediates(x)
    for i, stage in enumerate(stages):
        assert torch.equal(stage, seen.outputs[f"layers.{i}"])
        if f"eval.out.layers.{i}" in golden.tensors:
            golden.check(f"eval.out.layers.{i}", stage)
    golden.all_compared()


@pytest.mark.parametrize("name", MODELS)
def test_model_training_step(name: str):
    weights, golden = Golden(name), Golden(f"{name}_train")
    model = load(build_model(constructor(golden)), weights).train()
    logits = model(time_first(weights.input("input.x")), steps=True)
    golden.check("train.logits", logits)
    loss = F.cross_entropy(logits.mean(0), golden.input("input.target"))
    golden.check("train.loss", loss)
    loss.backward()
    for key, parameter in model.named_parameters():
        golden.check(f"train.grad.{key}", parameter.grad)
    for key in golden.under("train.buffer."):
        golden.check(f"train.buffer.{key}", model.get_buffer(key))
    golden.all_compared()


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


@pytest.mark.parametrize("name", FULL)
def test_full_model(name: str):
    golden = Golden(name)
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
    with torch.no_grad(), Recorder(model) as seen:
        golden.check("eval.logits", model(x, steps=True))
    check_statistics(golden, seen)
    with torch.no_grad():
        golden.check("eval.spatial_mean.prologue", model.encode(x).mean((-1, -2)))
    for i in range(3):
        got = seen.outputs[f"layers.{i}"].mean((-1, -2))
        golden.check(f"eval.spatial_mean.layers.{i}", got)
    golden.all_compared()


def table_columns() -> list[tuple[str, str, str]]:
    return [
        *((TABLES[0], f"shape_{v}", f"spikingresformer_{v}") for v in ("ti", "s", "m", "l")),
        (TABLES[1], "shape", "spikingresformer_cifar"),
        (TABLES[2], "shape", "spikingresformer_dvsg"),
    ]


@pytest.mark.parametrize(("table", "column", "entry"), table_columns())
def test_state_dict_keys(table: str, column: str, entry: str):
    with (FOLDER / f"{table}.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    with torch.device("meta"):
        own = zoo.create(entry).state_dict()
    assert [row["key"] for row in rows] == list(own)
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    for row in rows:
        tensor = own[row["key"]]
        assert str(tensor.dtype) == f"torch.{row['dtype']}"
        digits = re.findall(r"\d+", row[column])
        assert [int(n) for n in digits] == list(tensor.shape), row["key"]


def counts() -> dict[str, dict]:
    path = FOLDER / "parameter_counts.json"
    return json.loads(path.read_text(encoding="utf-8"))["models"] if path.is_file() else {}


@pytest.mark.parametrize("entry", sorted(counts()))
def test_parameter_counts(entry: str):
    expected = counts()[entry]
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
