"""How near converted networks come to their sources, on thirty families of timm; the table grows row by row.

    python benchmarks/code_table.py [NAME ...] [--table FILE] [--threads 1] [--list]

Weights are random, as timm draws them with seed 0, and so are the images, normal noise: the table says how
exact the codes are, and nothing about accuracy. Each family is converted on 8 images and compared on 8
others. ``differential`` and ``rate`` are one set of neurons in two codes: six levels below the 99.9th
percentile of the magnitudes, in front of every layer with weights and at the operands of products. Rows that
the table has are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import gc
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import real_runs
import timm
import torch
from torch import nn

from conversion import convert

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

STEPS = (1, 2, 4, 8, 16, 32)
IMAGES = 8  # for the calibration, and as many for the comparison
CLASSES = 10
SAME = {"policy": "official-transformer", "levels": 6}
CODES: dict[str, tuple[str, dict[str, Any]]] = {
    "differential": ("dcgs", SAME),
    "rate": ("dcgs", {**SAME, "code": "rate"}),
    "ecmt": ("ecmt", {}),
}
# arguments and image size
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({}, 64),
    "resnetv2_50": ({}, 64),
    "vgg11_bn": ({}, 64),
    "regnety_002": ({}, 64),
    "efficientnet_b0": ({}, 64),
    "mobilenetv3_large_100": ({}, 64),
    "ghostnet_100": ({}, 64),
    "repvit_m1": ({}, 64),
    "convnext_atto": ({}, 64),
    "poolformer_s12": ({}, 64),
    "fastvit_t8": ({}, 64),
    "efficientformer_l1": ({}, 224),
    "mobilevit_xxs": ({}, 64),
    "vit_tiny_patch16_224": ({"img_size": 64}, 64),
    "deit3_small_patch16_224": ({}, 224),
    "beit_base_patch16_224": ({"img_size": 64}, 64),
    "eva02_tiny_patch14_224": ({"img_size": 56}, 56),
    "vit_small_patch14_reg4_dinov2": ({"img_size": 56}, 56),
    "cait_xxs24_224": ({"img_size": 64}, 64),
    "xcit_nano_12_p16_224": ({}, 64),
    "crossvit_tiny_240": ({}, 240),
    "coat_lite_tiny": ({}, 224),
    "swin_tiny_patch4_window7_224": ({"img_size": 56}, 56),
    "twins_pcpvt_small": ({}, 64),
    "pvt_v2_b0": ({}, 64),
    "davit_tiny": ({}, 64),
    "nest_tiny": ({"img_size": 64}, 64),
    "maxvit_nano_rw_256": ({}, 256),
    "levit_128s": ({}, 224),
    "mixer_s32_224": ({}, 224),
}


def source(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A family with random weights, images for its calibration and others."""
    arguments, pixels = FAMILIES[name]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES, **arguments).eval()
    head = model.get_classifier()
    if isinstance(head, nn.Linear) and not bool(head.weight.any()):  # MLP-Mixer starts from zero logits
        nn.init.trunc_normal_(head.weight, std=0.02)
    images = torch.randn(2 * IMAGES, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
    return model, images[:IMAGES], images[IMAGES:]


@torch.no_grad()
def rows(
    name: str, model: nn.Module, calibration: Tensor, images: Tensor, code: str
) -> Iterable[dict[str, Any]]:
    """One row a T, all of one pass."""
    method, settings = CODES[code]
    began = time.perf_counter()
    snn = convert(model, method, max(STEPS), calibration, progress=False, **settings)
    seconds = time.perf_counter() - began
    expected = model(images)
    sums = torch.cat([snn(x, steps=True).cumsum(0) for x in images.split(1)], dim=1)  # little memory
    for steps in STEPS:
        logits = sums[steps - 1] / steps
        yield {
            "name": name,
            "pixels": images.shape[-1],
            "code": code,
            "method": method,
            "settings": " ".join(f"{k}={v}" for k, v in settings.items()),
            "time_steps": steps,
            "relative_error": f"{float((logits - expected).abs().mean() / expected.abs().mean()):.5f}",
            "agreement": f"{float((logits.argmax(1) == expected.argmax(1)).float().mean()):.4f}",
            "layers_of_neurons": len(snn.report.rows),
            "neurons": sum(math.prod(row.shape) for row in snn.report.rows),
            "self_test": f"{snn.report.self_test:.1e}",
            "conversion_seconds": f"{seconds:.1f}",
            "images": len(images),
            "date": time.strftime("%Y-%m-%d"),
        }


def main() -> None:
    """Do what is missing from the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of the families; --list shows them")
    parser.add_argument("--table", type=Path, default=real_runs.ROOT / "benchmarks" / "code_table.csv")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--list", action="store_true", help="say what would be computed, and stop")
    args = parser.parse_args()
    for name in args.names:
        if name not in FAMILIES:
            parser.error(f"unknown family {name!r}; known: {', '.join(FAMILIES)}")
    torch.set_num_threads(args.threads)
    done = _finished(args.table)
    for name in args.names or FAMILIES:
        todo = [code for code in CODES if (name, code) not in done]
        if args.list:
            print("\n".join(f"{name} {code}" for code in todo))
            continue
        if todo:
            model, calibration, images = source(name)
        for code in todo:
            for row in list(rows(name, model, calibration, images, code)):  # all of a pass, or none
                real_runs.append(args.table, row)
            print(row, flush=True)
            gc.collect()


def _finished(table: Path) -> set[tuple[str, str]]:
    if not table.exists():
        return set()
    with table.open(newline="") as file:
        last = str(max(STEPS))  # written after all others of its pass
        return {(r["name"], r["code"]) for r in csv.DictReader(file) if r["time_steps"] == last}


if __name__ == "__main__":
    main()
