"""Peak memory of a converted network over T, all steps at once and a few at a time.

    python benchmarks/conversion_memory.py [--model vit_small_patch16_224] [--chunk 4] [--steps 2 4 8 16 32]

The source is a timm network with random weights; memory is that of the tensors alive at once beside the
weights, for one image. Times are of the same call.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import timm
import torch

from conversion import convert


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--methods", nargs="+", default=["ecmt", "dcgs"])
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    args = _timing.arguments(parser)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    print(_timing.environment(args, "timm"), "\n")
    ann = timm.create_model(args.model, num_classes=1000).eval()
    size = ann.pretrained_cfg["input_size"]
    images = torch.randn(4, *size)
    x = images[:1]
    rows = []
    with torch.no_grad():
        ann_peak = _timing.peak(lambda: ann(x))[0] / 2**20
        rows.append(["ANN", *[f"{ann_peak:.0f}"] * len(args.steps)])
        for method in args.methods:
            snn = convert(ann, method, 2, images, progress=False)
            for chunk in (None, args.chunk):
                snn.chunk, cells = chunk, []
                for steps in args.steps:
                    snn.time_steps = steps
                    began = time.process_time()
                    snn(x)
                    seconds = time.process_time() - began
                    cells.append(f"{_timing.peak(lambda: snn(x))[0] / 2**20:.0f} ({seconds:.2f})")  # noqa: B023
                label = "all steps at once" if chunk is None else f"chunk = {chunk}"
                rows.append([f"{method}, {label}", *cells])
                print(rows[-1], flush=True)
    print(_timing.table(["peak, MiB (seconds)", *(f"T={t}" for t in args.steps)], rows))


if __name__ == "__main__":
    main()
