"""Networks as ONNX files: are they exact in every form, and how fast.

    python benchmarks/export.py [NAME ...] [--table FILE] [--again] [--batch B] [--no-compile]

For a small member of every family, and for converted networks of every method: the ONNX files of all T
steps for T = 1 and 4 and of one step, each compared with the network as `zoo.export` does. At T = 4 one call
of onnxruntime is timed beside the network in eager mode and under ``torch.compile``, on the same images with
one thread. Entries without trained weights have random ones, and statistics of norms from noise, so that
their neurons fire; their times depend little on that, and the table says nothing of accuracy. Every form is
a line of JSON in the table at once; called again, the script skips lines that are there.
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
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import zoo
from conversion import convert, list_methods
from spiking.neurons.base import Temporal
from zoo.export.interface import interface_of
from zoo.export.onnx import Runner
from zoo.rebuild import runs_over_time
from zoo.registry import get_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CNN, VIT = "ResNet of 2 blocks", "ViT of 2 blocks"
CONVERTED = {f"{CNN} by {method}": (method, CNN) for method in list_methods()}
CONVERTED |= {f"{VIT} by {method}": (method, VIT) for method in ("dcgs", "ecmt")}
SMALL_SIDE = 32  # of ImageNet's networks, which take any size
SMALL, MOST = ", small", 200_000  # parameters; of a larger entry, what it declares as small stands for it
TIMED = 4  # steps
LMHT = "lmht_resnet20"  # of a family by its layers, but with neurons of its own
STEP, WHOLE = "one step", "whole"
FORMS = {f"T={TIMED}": TIMED, "T=1": 1, STEP: TIMED}
TIMED_FORMS = (f"T={TIMED}", WHOLE)
TIMES = ("eager_ms", "torch.compile_ms", "onnxruntime_ms")


def entries() -> list[str]:
    """The smallest entry of every family of classifiers and agents, or the small form of it."""
    names = [n for task in ("classification", "control") for n in zoo.list_models(task=task)]
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(get_entry(name).family, []).append(name)
    chosen = []
    for found in families.values():
        light = [n for n in found if size_of(n) <= MOST]
        declared = [f"{n}{SMALL}" for n in found if get_entry(n).small is not None]
        chosen.append(min(light or declared or found, key=lambda n: (not is_spiking(n), size_of(n))))
    return [*chosen, LMHT]


def size_of(name: str) -> int:
    """Parameters of an entry."""
    return zoo.describe(name.removesuffix(SMALL)).parameters or 0


def is_spiking(name: str) -> bool:
    """Whether there are neurons in an entry."""
    with torch.device("meta"):
        return any(isinstance(m, Temporal) for m in zoo.create(name.removesuffix(SMALL)).modules())


def lively(model: nn.Module, images: Tensor) -> nn.Module:
    """An untrained network that fires: statistics of norms from ``images``, gains until answers differ."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    amplified = norms or [m for m in model.modules() if isinstance(m, nn.Linear)]
    for _ in range(9):
        for norm in norms:
            norm.momentum = None
            norm.reset_running_stats()
        model.train()
        with torch.no_grad():
            for _ in range(2):
                model(images)
            answers = model.eval()(images).flatten(1)
            if len(answers.unique(dim=0)) == len(answers):
                break
            for layer in amplified:
                layer.weight.mul_(1.5)
    return model


def network(name: str, time_steps: int) -> nn.Module:
    """The network of a row."""
    torch.manual_seed(0)
    if name in CONVERTED:
        method, source = CONVERTED[name]
        images = torch.randn(32, 3, 32, 32)
        ann: nn.Module = (
            zoo.create("qcfs_resnet20", activation="relu", layers=(1, 1), planes=(16, 32))
            if source == CNN
            else timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=4, depth=2, num_classes=10)
        )
        ann = lively(ann, images)
        return convert(ann, method=method, time_steps=time_steps, calibration=images, progress=False)
    steps: dict[str, Any] = {"time_steps": time_steps} if over_time(name) else {}
    if name.endswith(SMALL):
        name = name.removesuffix(SMALL)
        steps |= {"num_classes": 10, **(get_entry(name).small or {})}
    elif zoo.describe(name).weights and time_steps == TIMED:
        return zoo.load(name, **steps)
    model: Any = zoo.create(name, **steps)  # with trained weights, one step may not reach the classifier
    if zoo.task_of(model).name != "classification":
        return lively(model, torch.randn(8, model.obs_dim))
    channels, *sides = model.pretrained_cfg["input_size"]
    size = (channels, *(min(side, SMALL_SIDE) for side in sides))
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": size}
    return lively(model, torch.randn(8, *size))


def over_time(name: str) -> bool:
    """Whether an entry takes a number of steps."""
    with torch.device("meta"):
        return runs_over_time(zoo.create(name.removesuffix(SMALL)))


def forms(name: str) -> list[str]:
    """The forms that a network has: one without time steps has only one."""
    return list(FORMS) if name in CONVERTED or over_time(name) else [WHOLE]


def written(name: str, form: str, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one file."""
    model = network(name, FORMS.get(form, TIMED))
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        done = zoo.export(model, Path(folder) / "net.onnx", step=form == STEP)
        found = {
            "time_steps": getattr(model, "time_steps", None),
            "input": next(iter(done.inputs.values())),
            "gap": done.gap,
            "checked": done.checked,
            "export_seconds": round(time.process_time() - began, 1),
            "megabytes": round(done.path.stat().st_size / 1e6, 2),
        }
        if form in TIMED_FORMS:
            found |= timed(model, done.path, args)
    return found


def timed(model: nn.Module, path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of one call: of the network, compiled or not, and of its file."""
    interface = interface_of(model)
    inputs = interface.draw(args.batch, torch.Generator().manual_seed(1))
    session = Runner(path, threads=1).session
    named = {port.name: x.numpy() for port, x in zip(session.get_inputs(), inputs, strict=True)}
    cases: dict[str, Callable[[], Any]] = {
        "eager": lambda: interface(inputs),
        "onnxruntime": lambda: session.run(None, named),
    }
    refusal = {}
    with torch.no_grad():
        if not args.no_compile:
            fast = torch.compile(interface.program)
            try:
                fast(*inputs)
                cases["torch.compile"] = lambda: fast(*inputs)
            except Exception as error:  # of many kinds: what the compiler does not know
                refusal["not_compiled"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        times = _timing.measure(cases, args.rounds)
    torch.compiler.reset()
    figures = {f"{key}_ms": round(1e3 * statistics.median(found), 3) for key, found in times.items()}
    return {"batch": args.batch, **figures, **refusal}


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
        rows = map(json.loads, args.table.read_text().splitlines())
        there = {(row["name"], row["form"]): row for row in rows}
    for name in args.names:
        for form in forms(name):
            if (name, form) in there and not args.again:
                continue
            try:
                found = written(name, form, args)
            except (zoo.ExportError, RuntimeError, ValueError) as error:
                found = {"refused": str(error).splitlines()[0][:300]}
            row = {"name": name, "form": form, **found}
            there[name, form] = row
            with args.table.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    columns = ("name", "form", "input", "checked", "refused", "export_seconds", *TIMES)
    print(_timing.table(columns, [[row.get(key, "") for key in columns] for row in there.values()]))


if __name__ == "__main__":
    main()
