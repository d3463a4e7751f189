"""Events to frames: ours, NumPy's bincount and SpikingJelly.

    OMP_NUM_THREADS=1 python benchmarks/event_frames.py [--quick]

Made-up recordings in the sizes of N-MNIST (4,108 events, 34x34, T = 10) and of DVS128 Gesture (400,000
events, 128x128, T = 16), cut by number of events. "bincount" is one call over all of them, as one writes it
with NumPy. Frames are compared before anything is timed, and nothing is clipped.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import _timing
import numpy as np

from datamodules.events.frames import to_frames
from datamodules.events.readers import Events

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = {"4,108 events, 34x34, T = 10": (4108, 34, 10), "400,000 events, 128x128, T = 16": (400_000, 128, 16)}


def made_up(count: int, side: int) -> Events:
    """Events at random places, sorted by time."""
    random = np.random.default_rng(0)
    columns = (random.integers(0, top, count) for top in (side, side, 2))
    return Events(*columns, np.sort(random.integers(0, 300_000, count)))


def bincount(events: Events, T: int, side: int) -> np.ndarray:
    """All in one call."""
    frame = np.minimum(np.arange(len(events.t)) // (len(events.t) // T), T - 1)
    place = ((frame * 2 + events.p) * side + events.y) * side + events.x
    return np.bincount(place, minlength=T * 2 * side * side).reshape(T, 2, side, side)


def spikingjelly(events: Events, T: int, side: int) -> np.ndarray | None:
    """Its own function, if it is installed."""
    try:
        from spikingjelly.datasets import integrate_events_by_fixed_frames_number
    except ImportError:
        try:
            from spikingjelly.datasets.utils import integrate_events_by_fixed_frames_number
        except ImportError:
            return None
    named: dict[str, Any] = events._asdict()
    frames: np.ndarray = integrate_events_by_fixed_frames_number(named, "number", T, side, side)
    return frames


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    args = _timing.arguments(parser)
    print(_timing.environment(args, "numpy", "llvmlite", "spikingjelly"), end="\n\n")
    rows = []
    for title, (count, side, T) in SIZES.items():
        events = made_up(count, side)
        want = bincount(events, T, side)
        cases: dict[str, Callable[[], object]] = {
            "ours": lambda e=events, t=T, s=side: to_frames(e, t, (s, s)),
            "bincount": lambda e=events, t=T, s=side: bincount(e, t, s),
        }
        if spikingjelly(events, T, side) is not None:
            cases["SpikingJelly"] = lambda e=events, t=T, s=side: spikingjelly(e, t, s)
        for name, run in cases.items():
            assert np.array_equal(np.asarray(run()), want), f"{name} counts otherwise"
        times = _timing.measure(cases, 5 if args.quick else 25, inner=100 if count < 10_000 else 1)
        others = [name for name in cases if name != "ours"]
        cells = [
            _timing.milliseconds(times[n]) if n in times else "-"
            for n in ("ours", "bincount", "SpikingJelly")
        ]
        share = max(_timing.ratio(times, "ours", name) for name in others)
        rows.append([title, *cells, f"{share:.2f}"])
    head = ["recording", "ours, ms", "bincount, ms", "SpikingJelly, ms", "ours / fastest other"]
    print(_timing.table(head, rows))


if __name__ == "__main__":
    main()
