"""A long stream through one network: resident memory on the way, and the latency of a chunk.

    OMP_NUM_THREADS=1 python benchmarks/stream_soak.py RECORDING [--network NAME] [--chunks 100000]

The recording is played again and again as one stream, a frame a chunk, cut into the T frames that the network
was made for; the neurons are never reset. Latency is the wall time from the chunk's frames to the logits.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from itertools import islice
from pathlib import Path

import _timing

from cli import networks
from cli.stream.command import repeated
from cli.stream.player import Latencies, play
from cli.stream.sources import Cut, EventSource

WARM_UP = 1000  # chunks, until every buffer of the process has been used


def resident() -> float:
    """Resident memory of this process in MiB; Linux only."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--network", default="spiking_cnn_nano.nmnist_t8", help="what zoo.load takes")
    parser.add_argument("--chunks", type=int, default=100_000)
    args = _timing.arguments(parser)
    if args.chunks < 2 * WARM_UP:
        parser.error(f"--chunks must be at least {2 * WARM_UP}, of which {WARM_UP} warm up")
    print(_timing.environment(args, "numpy"), end="\n\n")
    model = networks.load(args.network)
    source = EventSource(args.recording, model, Cut(), None)
    latencies, memory, events, started = Latencies(), {}, 0, time.monotonic()
    for number, seen in enumerate(islice(play(model, repeated(source, sys.maxsize)), args.chunks), 1):
        events += seen.events
        if number > WARM_UP:
            latencies.add(seen.latency)
        if number % WARM_UP == 0:
            memory[number] = resident()
            print(f"\r{number:,} of {args.chunks:,} chunks", end="", file=sys.stderr)
    print(file=sys.stderr)
    marks = [WARM_UP, args.chunks // 2 // WARM_UP * WARM_UP, max(memory)]
    rows = [[f"{mark:,}", f"{memory[mark]:.1f}"] for mark in marks]
    print(_timing.table(["after chunk", "resident memory, MiB"], rows), end="\n\n")
    print(f"least and most after warming up: {min(memory.values()):.1f} and {max(memory.values()):.1f} MiB")
    print(
        f"latency of a chunk: median {1e3 * latencies.quantile(0.5):.2f} ms, 99 %"
        f" {1e3 * latencies.quantile(0.99):.2f}, largest {1e3 * latencies.largest:.2f}"
    )
    print(f"{events:,} events in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
