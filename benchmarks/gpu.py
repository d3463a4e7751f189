"""Everything that has to be known about one GPU, in at most eight minutes.

    python benchmarks/gpu.py [--seconds 480] [--cifar10 FOLDER] [--out FOLDER]
    python benchmarks/gpu.py --dry-run

Each part runs in a process of its own with a limit of its own, and writes its rows one by one to
``rows.jsonl``; ``table.md`` is written anew after each part. What is left out or cut off is done by the next
call, which skips the rows that are there. ``--dry-run`` goes through the same lines on a CPU, with tiny sizes
and Triton's interpreter.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1" if "--dry-run" in sys.argv else str(os.cpu_count() or 1))
if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to be started from anywhere

import torch
from gpu_parts.supervise import supervise
from gpu_parts.table import markdown
from gpu_parts.work import ROOT, Record, Work, card, commit

# module and function of a part, and its seconds; what one does not use, the later ones have
PARTS = {
    "kernels": ("kernels", "run", 80),
    "bandwidth": ("bandwidth", "run", 30),
    "steps": ("steps", "run", 140),
    "conversion": ("conversion", "run", 40),
    "quickstart": ("runs", "quickstart_part", 70),
    "tests": ("tests", "run", 40),
    "cifar10": ("runs", "cifar10_part", 480),
}
SLOWER = 8  # limits of a dry run, whose machine may be a busy one
GRACE = 4.0  # seconds between the end that a part knows and its being killed


def head(device: str) -> str:
    """What was measured, and on what."""
    versions = f"Python {sys.version.split()[0]}, torch {torch.__version__}"
    if device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        memory = f"{facts.total_memory / 2**30:.0f} GiB"
        versions += f", CUDA {torch.version.cuda}, {memory}, {facts.multi_processor_count} processors"
    return (
        f"`python benchmarks/gpu.py` on {card(device)}, {time.strftime('%Y-%m-%d')}, commit {commit()},"
        f" {versions}, {os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f}."
    )


def write_table(record: Record, device: str) -> Path:
    """The page, as far as there are rows."""
    path = record.folder / "table.md"
    path.write_text(markdown(head(device), record.rows()))
    return path


def in_this_process(args: argparse.Namespace, record: Record, device: str) -> None:
    """The named parts, one after the other."""
    for part in args.parts:
        module, function, _ = PARTS[part]
        work = Work(part, device, args.dry_run, record, args.until, args.cifar10)
        getattr(importlib.import_module(f"gpu_parts.{module}"), function)(work)


def in_processes(args: argparse.Namespace, record: Record, device: str) -> None:
    """Every part on its own, within the time that is left."""
    end = time.time() + args.seconds
    for part in args.parts or PARTS:
        left = end - time.time() - GRACE
        if left < 5.0:
            record.add(part, "all", {"error": "left out: the time was up"})
            continue
        limit = min(float(PARTS[part][2]) * (SLOWER if args.dry_run else 1), left)
        print(f"{part}: at most {limit:.0f} s", flush=True)
        command = [sys.executable, __file__, "--parts", part, "--until", f"{time.time() + limit:.0f}"]
        command += ["--out", str(record.folder), "--cifar10", str(args.cifar10)]
        command += ["--dry-run"] if args.dry_run else []
        fault = supervise(command, limit + GRACE, os.environ)
        if fault is not None or record.failed(part, "all"):
            record.add(part, "all", {} if fault is None else {"error": fault})
        write_table(record, device)


def main() -> None:
    """Run the parts and say where the table is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=480.0, help="for everything together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--out", type=Path, help="folder of rows and table; runs/gpu/CARD if missing")
    default = Path(os.environ.get("CIFAR10_JPEG", ROOT / "data" / "cifar10"))
    parser.add_argument(
        "--cifar10", type=Path, default=default, help="folder with train/CLASS/*.jpg and test/"
    )
    parser.add_argument("--dry-run", action="store_true", help="the same lines on a CPU, tiny")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # of a process that does the parts
    args = parser.parse_args()
    device = "cpu" if args.dry_run else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry-run goes through the same lines on a CPU")
    label = re.sub(r"\W+", "-", card(device)).strip("-").lower()
    record = Record(args.out or ROOT / "runs" / "gpu" / label, commit())
    record.folder.mkdir(parents=True, exist_ok=True)
    if args.until:
        in_this_process(args, record, device)
        return
    in_processes(args, record, device)
    print(f"\n{write_table(record, device).read_text()}\nrows and table: {record.folder}")


if __name__ == "__main__":
    main()
