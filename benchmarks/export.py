"""Exported networks beside PyTorch: are they exact, and how fast.

    python benchmarks/export.py [NAME ...] [--table FILE] [--again] [--batch B] [--no-compile]

For the smallest entry of every family, and for converted networks of every method: the ONNX file of all T
steps, compared with the network as `zoo.export` does, then one call of onnxruntime beside the network in
eager mode and under ``torch.compile``, on the same images with one thread. Entries without trained weights
have random ones, and statistics of norms from noise, so that their neurons fire; their times depend little
on that, and the table says nothing of accuracy. Every row is a line of JSON in the table at once; called
again, the script skips rows that are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _timing
import timm
import torch
from torch.nn.modules.batchnorm import _BatchNorm

import zoo
from conversion import convert, list_methods
from zoo.export.interface import interface_of
from zoo.export.onnx import Runner
from zoo.registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

CNN, VIT = "qcfs_resnet20", "vit_tiny_patch16_224"
CONVERTED = {f"{CNN} by {method}": (method, CNN) for method in list_methods()}
CONVERTED |= {f"{VIT} by {method}": (method, VIT) for method in ("dcgs", "ecmt")}
SMALL_SIDE = 64  # of ImageNet's networks, which take any size
STEPS = 4


def entries() -> list[str]:
    """The smallest entry of every family of classifiers and agents."""
    names = [n for task in ("classification", "control") for n in zoo.list_models(task=task)]
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(get_entry(name).family, []).append(name)
    return [min(found, key=lambda n: zoo.describe(n).parameters or 0) for found in families.values()]


def lively(model: nn.Module, images: Tensor) -> nn.Module:
    """Statistics of all norms from ``images``, so that an untrained network fires."""
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        norm.momentum = None
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(images)
    return model.eval()


def network(name: str) -> nn.Module:
    """The network of a row."""
    torch.manual_seed(0)
    if name in CONVERTED:
        method, source = CONVERTED[name]
        images = torch.randn(32, 3, 32, 32)
        ann: nn.Module = (
            zoo.create(source, activation="relu")
            if source == CNN
            else timm.create_model(source, img_size=32, patch_size=4, depth=4, num_classes=10)
        )
        ann = lively(ann, images)
        return convert(ann, method=method, time_steps=STEPS, calibration=images, progress=False)
    if zoo.describe(name).weights:
        return zoo.load(name)
    model: Any = zoo.create(name)
    if zoo.task_of(model).name != "classification":
        return model.eval()
    channels, *sides = model.pretrained_cfg["input_size"]
    side = min(*sides, SMALL_SIDE)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (channels, side, side)}
    return lively(model, torch.randn(8, channels, side, side))


def row(name: str, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """Figures of one network."""
    model = network(name)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        done = zoo.export(model, Path(folder) / "net.onnx")
        seconds = time.process_time() - began
        size = done.path.stat().st_size
        interface = interface_of(model)
        inputs = interface.draw(batch, torch.Generator().manual_seed(1))
        session = Runner(done.path, threads=1).session
        named = {port.name: x.numpy() for port, x in zip(session.get_inputs(), inputs, strict=True)}
        cases: dict[str, Callable[[], Any]] = {
            "eager": lambda: interface(inputs),
            "onnxruntime": lambda: session.run(None, named),
        }
        if compiled:
            fast = torch.compile(interface.program)
            cases["torch.compile"] = lambda: fast(*inputs)
        with torch.no_grad():
            times = _timing.measure(cases, rounds)
    return {
        "name": name,
        "time_steps": getattr(model, "time_steps", None),
        "input": next(iter(done.inputs.values())),
        "batch": batch,
        "gap": done.gap,
        "checked": done.checked,
        "export_seconds": round(seconds, 1),
        "megabytes": round(size / 1e6, 2),
        **{f"{key}_ms": round(1e3 * statistics.median(found), 3) for key, found in times.items()},
    }


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[*entries(), *CONVERTED])
    parser.add_argument("--table", type=Path, default=Path(__file__).with_name("export.jsonl"))
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true")
    args = _timing.arguments(parser)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    print(_timing.environment(args, "onnx", "onnxscript", "onnxruntime"))
    there = {}
    if args.table.exists():
        there = {r["name"]: r for r in map(json.loads, args.table.read_text().splitlines())}
    for name in args.names:
        if name in there and not args.again:
            continue
        try:
            found = row(name, args.batch, args.rounds, not args.no_compile)
        except (zoo.ExportError, RuntimeError) as error:
            found = {"name": name, "refused": str(error).splitlines()[0][:300]}
        there[name] = found
        with args.table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    columns = ("eager_ms", "torch.compile_ms", "onnxruntime_ms")
    rows = []
    for name, found in there.items():
        if "refused" in found:
            rows.append([name, "-", "-", found["refused"], *["-"] * 4])
            continue
        exact = "equal" if found["gap"] <= 1e-4 else "spikes at thresholds"
        rows.append([
            name, found["time_steps"] or "-", found["input"], f"{exact}, {found['gap']:.0e}",
            found["export_seconds"], *(found.get(c, "-") for c in columns),
        ])  # fmt: skip
    header = (
        "network",
        "T",
        "input",
        "against PyTorch",
        "export, s",
        "eager, ms",
        "compiled, ms",
        "onnxruntime, ms",
    )
    print(_timing.table(header, rows))


if __name__ == "__main__":
    main()
