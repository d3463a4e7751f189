"""Parts (d) and (f): runs of the command line on the card, the first of which is killed and goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gpu_parts.work import ROOT

if TYPE_CHECKING:
    from gpu_parts.work import Work


@dataclass(frozen=True)
class Run:
    """A configuration, run in the folder of the rows.

    Attributes:
        folder: working directory; the run lies in ``runs/NAME`` below it.
        config: a file of ``configs/`` without its ending.
        options: of the command line.
    """

    folder: Path
    config: str
    options: tuple[str, ...]

    @property
    def place(self) -> Path:
        """The run's folder."""
        return self.folder / "runs" / self.config.replace("/", "-")

    @property
    def last(self) -> Path:
        """Its newest checkpoint."""
        return self.place / "checkpoints" / "last.ckpt"

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Begin or go on; what it prints goes to a file beside the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = [
            sys.executable,
            "-m",
            "cli",
            "fit",
            "--config",
            str(ROOT / "configs" / f"{self.config}.yaml"),
        ]
        words += ["--trainer.enable_progress_bar", "false", *self.options, *more]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / f"{self.config.replace('/', '-')}.log").open("ab") as log:
            return subprocess.Popen(words, cwd=self.folder, env=env, stdout=log, stderr=log)

    def step(self) -> int:
        """Optimiser steps behind the newest checkpoint; 0 without one."""
        if not self.last.exists():
            return 0
        return int(torch.load(self.last, weights_only=True, map_location="cpu")["global_step"])

    def accuracy(self) -> float:
        """Of the test that ends a run."""
        return round(float(json.loads((self.place / "report.json").read_text())["metrics"]["test/acc1"]), 4)


def _wait(process: subprocess.Popen[bytes], run: Run, seconds: float) -> None:
    try:
        code = process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"not done after {seconds:.0f} s, at step {run.step()}") from None
    if code:
        log = run.folder / f"{run.config.replace('/', '-')}.log"
        tail = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"ended with status {code}: {' '.join(tail)}")


def _common(work: Work) -> tuple[str, ...]:
    return "--trainer.accelerator", "gpu" if work.device == "cuda" else "cpu", "--trainer.devices", "1"


def killed_and_resumed(work: Work) -> dict[str, Any]:
    """The quick start, killed once a checkpoint is there, and resumed."""
    short = ("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "12") if work.tiny else ()
    every = "--checkpoint_every_n_steps", "5" if work.tiny else "40"
    run = Run(work.record.folder, "stbp/mnist5k", (*_common(work), *every, *short))
    shutil.rmtree(run.place, ignore_errors=True)  # of a try before: its checkpoint would end the wait
    process = run.start()
    while not run.last.exists() and process.poll() is None and work.left > 0:
        time.sleep(0.05)
    if process.poll() is not None:
        _wait(process, run, 1.0)
        raise RuntimeError("the run ended before it could be killed")
    process.send_signal(signal.SIGKILL)
    process.wait()
    cut = run.step()
    if not cut:
        raise RuntimeError("no checkpoint came before the time was up")
    _wait(run.start("--ckpt_path", "last"), run, work.left)
    return {"killed after step": cut, "ended after step": run.step(), "test accuracy": run.accuracy()}


def cifar10(work: Work) -> dict[str, Any]:
    """As far as the time goes; the weights stay in the folder of the rows."""
    if not work.cifar10.is_dir():
        raise FileNotFoundError(f"no folder {work.cifar10.name}; give --cifar10 FOLDER with train/ and test/")
    reserve = 5.0 if work.tiny else 25.0  # to begin and to test
    seconds = int(max(5.0, work.left - reserve))
    clock = f"00:00:{seconds // 60:02}:{seconds % 60:02}"
    workers = 0 if work.tiny else max(1, min(8, (os.cpu_count() or 2) - 1))
    data = ("--data.folder", str(work.cifar10.resolve()), "--data.num_workers", str(workers))
    short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2") if work.tiny else ()
    length = ("--trainer.max_time", clock, "--trainer.precision", "bf16-mixed")
    run = Run(work.record.folder, "stbp/cifar10_jpeg_sew", (*_common(work), *data, *length, *short))
    goes_on = ("--ckpt_path", "last") if run.last.exists() else ()
    _wait(run.start(*goes_on), run, work.left)
    epoch = torch.load(run.last, weights_only=True, map_location="cpu")["epoch"]
    return {"test accuracy": run.accuracy(), "epochs": epoch + 1, "steps": run.step()}


def quickstart_part(work: Work) -> None:
    """Part (d)."""
    work.case("quick start, killed, resumed", lambda: killed_and_resumed(work), 0.0 if work.tiny else 30.0)


def cifar10_part(work: Work) -> None:
    """Part (f)."""
    work.case("SEW-ResNet on CIFAR-10 (JPEG copy)", lambda: cifar10(work), 0.0 if work.tiny else 45.0)
