"""A training of an agent that is killed goes on to exactly what an undisturbed one comes to."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("gymnasium")
ROOT = Path(__file__).resolve().parents[2]
CONFIG = """\
# A run of some seconds.
seed_everything: 3
checkpoint_every_n_steps: 150
model:
  class_path: ProxyTargetTask
  init_args:
    model: proxy_target_lif
    model_args: {{hidden: [16, 16]}}
    target: {target}
    proxy_hidden: [16, 16]
    proxy_steps: 2
    critic_hidden: [16, 16]
    random_steps: 150
data:
  class_path: ControlDataModule
  init_args:
    {{env: Pendulum-v1, steps_per_epoch: 250, capacity: {capacity}, eval_episodes: 2, batch_size: 16}}
trainer:
  max_epochs: 4
  accelerator: cpu
  enable_progress_bar: false
  num_sanity_val_steps: 0
  log_every_n_steps: 10
"""


def start(folder: Path, *words: str, target: str = "proxy", capacity: int = 400) -> subprocess.Popen:
    path = folder / "method" / "run.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CONFIG.format(target=target, capacity=capacity))
    command = [sys.executable, "-m", "cli", "fit", "--config", "method/run.yaml", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def checkpoint(folder: Path, name: str = "last") -> Path:
    return folder / "runs" / "method-run" / "checkpoints" / f"{name}.ckpt"


def kill_after(folder: Path, steps: int, **options) -> int:
    """Kill -9 once a checkpoint in the middle of an epoch has ``steps`` behind it; how many it has."""
    process = start(folder, **options)
    deadline = time.monotonic() + 900
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if checkpoint(folder).exists():
                found = torch.load(checkpoint(folder), weights_only=True)["logged_steps"]
                if found >= steps and found % 250:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    return torch.load(checkpoint(folder), weights_only=True)["logged_steps"]
            time.sleep(0.01)
    finally:
        process.kill()
    pytest.fail(f"ended before it could be killed: {process.communicate()[1]}")


def finish(process: subprocess.Popen) -> None:
    error = process.communicate(timeout=1200)[1]
    assert process.returncode == 0, error


def same(a, b, where=""):
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}/{k}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def rows(folder: Path) -> list:
    """What was logged, by step, without learning rates."""
    with (folder / "runs" / "method-run" / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    kept = [{k: v for k, v in row.items() if v and not k.startswith("lr-")} for row in table]
    return [row for row in kept if set(row) - {"step", "epoch"}]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["proxy", "polyak"])
def test_it_equals_an_undisturbed_run(target, tmp_path):
    options = {"target": target, "capacity": 400}  # the buffer comes round twice
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    undisturbed = start(whole, **options)
    done = kill_after(cut, 300, **options)
    assert 300 <= done < 1000
    finish(start(cut, "--ckpt_path", "last", **options))
    finish(undisturbed)
    a, b = (torch.load(checkpoint(f), weights_only=True) for f in (cut, whole))
    assert a["logged_steps"] == b["logged_steps"] == 1000
    assert a["updates"] == b["updates"] == 850
    for part in ("state_dict", "optimizer_states", "ControlDataModule"):
        same(a[part], b[part], part)
    logs = [f / "runs" / "method-run" / "checkpoints" / "replay.bin" for f in (cut, whole)]
    assert logs[0].read_bytes() == logs[1].read_bytes()
    assert logs[0].stat().st_size == 1000 * 9 * 4  # two observations, an action, a reward, an end
    assert rows(cut) == rows(whole)
    best = [torch.load(checkpoint(f, "best"), weights_only=True)["logged_steps"] for f in (cut, whole)]
    assert best[0] == best[1]
