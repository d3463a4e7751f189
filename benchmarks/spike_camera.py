"""The simulators of a spike camera, fused over the frames, against a plain loop.

    python benchmarks/spike_camera.py [--quick] [--threads N]

A stream of USP-Gaussian's rendered scenes, 177 frames of 400 x 600 pixels in float32, and a small one. The
loop is what one writes first: each frame is added, compared and reset by NumPy operations over all pixels.
"Read" touches every byte of the frames once, the least that any simulator must do.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import _timing
import numpy as np

from datamodules.spike_camera.kernel import integrate
from datamodules.spike_camera.simulate import GAIN

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"177 x 400 x 600": (177, 400, 600), "177 x 24 x 32": (177, 24, 32)}


def loop(frames: np.ndarray, start: np.ndarray, gain: float, threshold: float, strict: bool) -> np.ndarray:
    """Frame by frame."""
    v, spikes = start.copy(), np.empty(frames.shape, np.uint8)
    for t, frame in enumerate(frames):
        v += frame if gain == 1 else v.dtype.type(gain) * frame
        fires = v > threshold if strict else v >= threshold
        spikes[t] = fires
        v[fires] -= threshold
    return spikes


def contestants(size: tuple[int, int, int], threads: int) -> dict[str, dict[str, Callable[[], object]]]:
    """By simulator: the loop, ours, and the reading alone."""
    frames = np.random.default_rng(0).random(size, dtype=np.float32).reshape(size[0], -1)
    rules = {"physical": ("above", np.float32, GAIN, 4.0), "simple": ("reached", np.float64, 1.0, 5.0)}
    cases: dict[str, dict[str, Callable[[], object]]] = {}
    for name, (rule, dtype, gain, threshold) in rules.items():
        start = np.zeros(frames.shape[1], dtype)
        ours = integrate(frames, start, rule, gain, threshold, threads)
        theirs = loop(frames, start, gain, threshold, rule == "above")
        assert np.array_equal(ours, theirs), f"{name}: {np.sum(ours != theirs)} bits differ"
        cases[name] = {
            "loop": lambda s=start, g=gain, h=threshold, r=rule: loop(frames, s, g, h, r == "above"),
            "ours": lambda s=start, g=gain, h=threshold, r=rule: integrate(frames, s, r, g, h, threads),
            "read": lambda: float(frames.max()),
        }
    return cases


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--threads", type=int, default=1, help="of ours")
    args = _timing.arguments(parser)
    print(_timing.environment(args, "numpy", "llvmlite"), end="\n\n")
    rows = []
    for label, size in SIZES.items():
        for name, cases in contestants(size, args.threads).items():
            times = _timing.measure(cases, 3 if args.quick else 15, warm_up=1)
            rows.append(
                [
                    label,
                    name,
                    *map(_timing.milliseconds, times.values()),
                    f"{_timing.ratio(times, 'loop', 'ours'):.1f}",
                ]
            )
    print(_timing.table(["stream", "simulator", "loop, ms", "ours, ms", "read, ms", "loop / ours"], rows))


if __name__ == "__main__":
    main()
