"""The tests marked ``gpu``."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from gpu_parts.work import ROOT

if TYPE_CHECKING:
    from gpu_parts.work import Work

FILES = ("tests/test_gpu.py", "tests/spiking/kernels/test_triton.py")


def passed(work: Work) -> dict[str, Any]:
    """How many pass, fail and are skipped."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *FILES]
    words += ["-k", "not equal_the_oracle"] if work.tiny else []  # part (a) has done the same
    limit = max(10.0, work.left)
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)
    (work.record.folder / "pytest.log").write_text(done.stdout + done.stderr)
    end = (done.stdout.strip().splitlines() or ["nothing"])[-1]
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", end)}
    if done.returncode:
        raise RuntimeError(f"pytest ended with status {done.returncode}: {end}")
    return counts


def run(work: Work) -> None:
    """One row."""
    work.case("pytest -m gpu", lambda: passed(work), needs=0.0 if work.tiny else 20.0)
