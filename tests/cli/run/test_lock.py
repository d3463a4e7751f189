"""Two runs never write to one folder; locks of dead processes heal."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only

from cli.errors import CommandError
from cli.run import lock
from cli.run.cli import SpikingCLI
from cli.run.folder import check_output, claim, lock_writable, move_aside, run_folder


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "NODE_RANK", "FULGURITE_RUN_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    yield
    lock.release_all()


def held_by(folder: Path, **who) -> Path:
    me = lock.Holder(pid=os.getpid(), host=socket.gethostname(), started="1")
    path = lock.lock_of(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**asdict(me), **who}))
    return path


@pytest.fixture
def other():
    """Another process that lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    yield {"pid": process.pid, "started": lock._started(process.pid)}
    process.kill()
    process.wait()


def test_a_second_run_gets_a_folder_of_its_own_or_a_reason(tmp_path, other):
    folder = tmp_path / "runs" / "x"
    held_by(folder, **other)
    assert claim(folder, own=True) == folder.with_name("x.1")
    held_by(folder.with_name("x.1"), **other)
    with pytest.raises(CommandError, match=rf"in use by process {other['pid']} on {socket.gethostname()}"):
        claim(folder, own=False)


def test_ranks_of_one_run_share_its_folder(tmp_path, other, monkeypatch):
    folder = tmp_path / "x"
    held_by(folder, **other)
    first = claim(folder, own=True)
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    assert claim(folder, own=True) == first == folder.with_name("x.1")


@pytest.mark.parametrize("command", ["fit", "test"])
def test_later_processes_of_a_command_go_where_the_first_one_is(command, tmp_path, other, monkeypatch):
    held_by(tmp_path / "run", **other)
    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    settings = Namespace(trainer=Namespace(), ckpt_path=None)
    process = SimpleNamespace(settings=settings, config=Namespace(subcommand=command))
    assert SpikingCLI._claim(process, tmp_path / "run", named=True) == tmp_path / "run"


def test_processes_that_were_started_together_are_refused_instead_of_parted(tmp_path, other, monkeypatch):
    held_by(tmp_path / "x", **other)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CommandError, match="in use"):
        claim(tmp_path / "x", own=True)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("who", ["dead", "reused"])
def test_a_lock_whose_process_is_gone_heals(tmp_path, who):
    folder = tmp_path / "x"
    path = held_by(folder, **({"pid": dead_pid()} if who == "dead" else {"started": "1"}))
    lock.acquire(folder)
    assert json.loads(path.read_text())["started"] == lock._started(os.getpid())
    lock.release(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_never_taken(tmp_path):
    path = held_by(tmp_path / "x", pid=dead_pid(), host="elsewhere")
    with pytest.raises(CommandError, match=f"on elsewhere.*\n.*delete {path}"):
        lock.acquire(tmp_path / "x")


def test_a_damaged_lock_heals_when_it_is_old(tmp_path, monkeypatch):
    path = lock.lock_of(tmp_path / "x")
    path.write_text("{")
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: None)
    with pytest.raises(CommandError, match="cannot be taken"):
        lock.acquire(tmp_path / "x")
    os.utime(path, (0, 0))
    lock.acquire(tmp_path / "x")


def test_without_hard_links(tmp_path, other, monkeypatch):
    def refuse(*_):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    lock.acquire(tmp_path / "x")
    held_by(tmp_path / "y", **other)
    with pytest.raises(lock.InUseError):
        lock.acquire(tmp_path / "y")


@pytest.mark.slow
def test_of_many_processes_one_gets_a_stale_lock(tmp_path):
    held_by(tmp_path / "x", pid=dead_pid())
    code = (
        "import sys, time; from pathlib import Path; from cli.run import lock\n"
        "try: lock.acquire(Path(sys.argv[1])); print('got'); sys.stdout.flush(); time.sleep(8)\n"
        "except lock.InUseError: print('refused')"
    )
    root = Path(__file__).resolve().parents[3]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "x")],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    assert sorted(run.communicate()[0].strip() for run in runs) == ["got"] + ["refused"] * 7


def test_names_and_typed_seeds_are_in_the_name():
    assert run_folder(["configs/stbp/mnist5k.yaml"], "x") == Path("runs/stbp-mnist5k")
    assert run_folder(["configs/stbp/mnist5k.yaml"], "x", seed=5) == Path("runs/stbp-mnist5k-seed5")
    assert run_folder(["configs/stbp/mnist5k.yaml"], "x", "mine", 0) == Path("runs/mine-seed0")


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/x"), Path("/proc/self/x/y")):
        with pytest.raises(CommandError, match=str(folder)):
            lock_writable(folder)
    for path in (tmp_path, tmp_path / "file" / "x.csv", Path("/proc/x.csv")):
        with pytest.raises(CommandError, match=str(path)):
            check_output(path)


def test_what_is_moved_aside_keeps_its_kind(tmp_path):
    (tmp_path / "a.b").mkdir()
    (tmp_path / "t.csv").write_text("1")
    (tmp_path / "t.1.csv").write_text("0")
    assert move_aside(tmp_path / "a.b") == tmp_path / "a.b.1"
    assert move_aside(tmp_path / "t.csv") == tmp_path / "t.2.csv"
    assert (tmp_path / "t.1.csv").read_text() == "0"
