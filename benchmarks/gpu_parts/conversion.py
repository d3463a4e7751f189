"""Part (e): ResNet-18 by DCGS at T = 8: what converting costs, how fast it runs, how near it comes."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import timm
import torch

from conversion import convert

if TYPE_CHECKING:
    from gpu_parts.work import Work

STEPS = 8


def measure(work: Work) -> dict[str, Any]:
    """Of random weights, whose logits need no data set: no weights are downloaded."""
    torch.manual_seed(0)
    side, batch = (32, 2) if work.tiny else (224, 64)
    ann = timm.create_model("resnet10t" if work.tiny else "resnet18", num_classes=10).eval().to(work.device)
    x = torch.randn(batch, 3, side, side, device=work.device)
    began = time.time()
    snn = convert(ann, "dcgs", STEPS, x, progress=False)
    work.wait()
    seconds = time.time() - began
    with torch.no_grad():
        want, steps = ann(x), snn(x, steps=True)
        runs = {
            "converted images/s": lambda: snn(x),
            "ANN on T * B images/s": lambda: ann(x.repeat(STEPS, 1, 1, 1)),
        }
        rates = {
            name: round(batch / statistics.median(work.timed(call, seconds=2.0, at_least=2)), 1)
            for name, call in runs.items()
        }
    spread = (want - want.mean(0)).norm().clamp(min=1e-12)
    errors = [round(float((steps[:t].mean(0) - want).norm() / spread), 4) for t in (1, 4, STEPS)]
    return {"convert s": round(seconds, 2), **rates, "logit error at T = 1, 4, 8": errors, "batch": batch}


def run(work: Work) -> None:
    """One row."""
    work.case("ResNet-18, DCGS, T = 8", lambda: measure(work), needs=0.0 if work.tiny else 15.0)
