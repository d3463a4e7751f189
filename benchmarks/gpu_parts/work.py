"""What every part is given: a device, sizes, a clock, and the file that takes its rows."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[2]
ROWS = "rows.jsonl"
KEYS = ("commit", "part", "case")


@dataclass(frozen=True)
class Record:
    """Rows of one card, written one by one and read again by the next call.

    Attributes:
        folder: where `ROWS` lies.
        commit: rows of another one are measured again.
    """

    folder: Path
    commit: str

    def rows(self) -> list[dict[str, Any]]:
        """The last row of every case of this commit, in the order of the first ones, if it says something."""
        path = self.folder / ROWS
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if row["commit"] == self.commit:
                found[row["part"], row["case"]] = row
        return [row for row in found.values() if len(row) > len(KEYS)]

    def has(self, part: str, case: str) -> bool:
        """Whether a case is done; one that failed is tried again."""
        return any((r["part"], r["case"]) == (part, case) and "error" not in r for r in self.rows())

    def failed(self, part: str, case: str) -> bool:
        """Whether there is a row that says so."""
        return any((r["part"], r["case"]) == (part, case) and "error" in r for r in self.rows())

    def add(self, part: str, case: str, values: Mapping[str, Any]) -> None:
        """Write one row, at once and to the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        row = {"commit": self.commit, "part": part, "case": case, **values}
        print(f"  {part}: {case}: {', '.join(f'{k} {v}' for k, v in values.items())}", flush=True)
        with (self.folder / ROWS).open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass(frozen=True)
class Work:
    """One part's task.

    Attributes:
        part: its name.
        device: ``"cuda"``, or ``"cpu"`` for a dry run.
        tiny: whether sizes are those of a dry run.
        record: where rows go.
        end: until when, in seconds of `time.time`.
        cifar10: folder of the JPEG copy of CIFAR-10.
    """

    part: str
    device: str
    tiny: bool
    record: Record
    end: float
    cifar10: Path

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.time()

    def case(self, name: str, run: Callable[[], Mapping[str, Any]], needs: float = 1.0) -> None:
        """Do one case and write what it gives, or how it failed.

        Args:
            name: of the case.
            run: gives its values.
            needs: seconds below which it is not begun.
        """
        if self.record.has(self.part, name):
            return
        if self.left < needs:
            self.record.add(self.part, name, {"error": f"left out: {max(0.0, self.left):.0f} s were left"})
            return
        began = time.time()
        try:
            values = dict(run())
        except Exception as error:  # the next case may well work
            traceback.print_exc()
            first = next(iter(str(error).splitlines()), "")
            values = {"error": f"{type(error).__name__}: {first[:200]}"}
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        self.record.add(self.part, name, values | {"seconds": round(time.time() - began, 2)})

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def timed(
        self, run: Callable[[], Any], seconds: float, warm_up: int = 3, at_least: int = 3
    ) -> list[float]:
        """Seconds of single calls, each waited for, until so many are used up."""
        for _ in range(warm_up):
            run()
        self.wait()
        times: list[float] = []
        while len(times) < at_least or (sum(times) < seconds and self.left > 0 and not self.tiny):
            began = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - began)
        return times


def commit() -> str:
    """Of the working tree, with ``+`` where it differs; ``unknown`` outside a repository."""
    try:
        name, changes = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for words in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if changes.strip() else "")


def card(device: str) -> str:
    """Name of the device."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU (dry run)"
