"""`benchmarks/gpu.py` has never met a card, so every line of it runs here on a CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from spiking import kernels

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_parts.supervise import supervise  # noqa: E402 - lies beside the other benchmarks
from gpu_parts.table import markdown  # noqa: E402
from gpu_parts.work import Record, Work  # noqa: E402

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def dry_run(folder: Path, *words: str) -> list[dict]:
    """Rows of a dry run."""
    command = [sys.executable, str(SCRIPT), "--dry-run", "--out", str(folder), *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1450, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert not [row for row in rows if "error" in row], done.stdout + done.stderr
    return rows


@pytest.mark.skipif(not kernels.HAS_TRITON, reason="triton is not installed")
def test_kernels_in_a_process_of_their_own(tmp_path):
    rows = dry_run(tmp_path, "--parts", "kernels")
    assert len(rows) == 33  # eleven kernels, three dtypes
    assert all(row["wrong"] == 0 and row["cases"] for row in rows)
    assert "LM-HT, float16" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not kernels.HAS_TRITON, reason="triton is not installed")
def test_all_other_parts(tmp_path):
    for split in ("train", "test"):
        for label in [
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ]:
            place = tmp_path / "cifar10" / split / label
            place.mkdir(parents=True)
            for i in range(16):
                Image.new("RGB", (32, 32), (len(label), 10 * i, 99)).save(place / f"{i}.jpg")
    parts = ("bandwidth", "steps", "conversion", "quickstart", "tests", "cifar10")
    words = ("--cifar10", str(tmp_path / "cifar10"), "--until", f"{time.time() + 1400}")  # in one process
    rows = dry_run(tmp_path / "out", *words, "--parts", *parts)
    assert {row["part"] for row in rows} == set(parts)
    by_case = {row["case"]: row for row in rows}
    resumed = by_case["quick start, killed, resumed"]
    assert 0 < resumed["killed after step"] < resumed["ended after step"] == 24
    assert by_case["pytest -m gpu"]["passed"] >= 8
    assert (tmp_path / "out" / "runs" / "stbp-cifar10_jpeg_sew" / "checkpoints" / "last.ckpt").exists()
    assert "SEW-ResNet18, ours, compiled" in by_case


def test_a_part_that_hangs_or_crashes_is_told():
    began = time.monotonic()
    hanging = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    assert supervise([sys.executable, "-c", hanging], 1.0, os.environ) == "ended after 1 s"
    assert time.monotonic() - began < 30
    assert supervise([sys.executable, "-c", "raise SystemExit(3)"], 60.0, os.environ) == "ended with status 3"
    assert supervise([sys.executable, "-c", ""], 60.0, os.environ) is None


def work(folder: Path, seconds: float, commit: str = "a") -> Work:
    return Work("steps", "cpu", True, Record(folder, commit), time.time() + seconds, folder)


def test_rows_are_kept_and_done_once(tmp_path):
    calls = []

    def fail():
        raise RuntimeError("no memory\nand more")

    def measure():
        calls.append(1)
        return {"images/s": 5.0}

    work(tmp_path, 60).case("one", measure)
    work(tmp_path, 60).case("two", fail)
    work(tmp_path, 0.5).case("three", measure, needs=30.0)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"commit": "a", "part": "st\n')  # a killed process
    first, second, third = Record(tmp_path, "a").rows()
    assert first["images/s"] == 5.0
    assert second["error"] == "RuntimeError: no memory"
    assert third["error"].startswith("left out")
    for name in ("one", "two", "three"):
        work(tmp_path, 60).case(name, measure)
    assert len(calls) == 3, "what failed or was left out is done again, what is there is not"
    assert not [row for row in Record(tmp_path, "a").rows() if "error" in row]
    assert Record(tmp_path, "b").rows() == [], "another commit has no rows yet"
    assert "| one " in markdown("head", Record(tmp_path, "a").rows())
