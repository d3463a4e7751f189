"""Interleaved timing, peak memory and tables for the benchmarks.

All contestants of a table run in turn within every round, so that a slow moment of the machine meets each
of them. Timed is the CPU time of the process, which others on the same cores do not lengthen; with one
thread it is the wall time of an idle machine. Reported is the median over rounds, and for ratios the median
of the ratios within rounds, which is steadier than a ratio of medians.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from spiking.kernels.cpu.memory import USER_SETTINGS, keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MALLOC = (*USER_SETTINGS, "FULGURITE_MALLOC")


def installed(name: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(name) is not None


def arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line's options, with malloc set as under the command ``fulgurite``.

    Adds ``--release-memory``, which leaves malloc as a Python program finds it; ``memory_is_kept`` of the
    answer says what came of it.
    """
    parser.add_argument("--release-memory", action="store_true", help="do not call spiking.keep_memory()")
    args = parser.parse_args()
    args.memory_is_kept = not args.release_memory and keep_memory()
    return args


def environment(args: argparse.Namespace, *packages: str) -> str:
    """One line on machine, versions and setting of malloc, for the head of a report."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} absent")
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            names = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    kept = f"spiking.keep_memory() {'on' if args.memory_is_kept else 'off'}"
    malloc = ", ".join([kept, *(f"{key}={os.environ[key]}" for key in MALLOC if key in os.environ)])
    return (
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{', '.join(found)}; {model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} thread(s), load {os.getloadavg()[0]:.1f}, {malloc}"
    )


def measure(
    cases: Mapping[str, Callable[[], Any]], rounds: int, inner: int = 1, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of one call, for every case and round."""
    for run in cases.values():
        for _ in range(warm_up):
            run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in cases.items():
                start = time.process_time()
                for _ in range(inner):
                    run()
                times[name].append((time.process_time() - start) / inner)
    finally:
        gc.enable()
    return times


def ratio(times: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """Median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def milliseconds(times: Sequence[float]) -> str:
    """The median, with as many digits as it deserves."""
    value = statistics.median(times) * 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def peak(run: Callable[[], Any]) -> tuple[int, int]:
    """Most bytes of tensors alive at once during ``run()``, and those alive when it has returned.

    From the profiler's allocation events, so without effects of the allocator. What ``run`` returns lives.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        kept = run()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        most = max(most, level)
    del kept
    return most, level


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *text]) for i in range(len(header))]
    lines = [list(header), ["-" * width for width in widths], *text]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(x, widths, strict=True)) + " |" for x in lines
    )


def in_new_process(script: str, argument: str, **variables: str) -> Any:
    """What ``python script --child argument`` prints as JSON; malloc settings are those of ``variables``."""
    env = {key: value for key, value in os.environ.items() if key not in MALLOC} | variables
    command = [sys.executable, script, "--child", argument]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])
