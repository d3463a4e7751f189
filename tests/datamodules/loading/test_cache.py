"""One file of decoded samples: written once however many processes ask, and whole or absent."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from datamodules.loading.cache import memory_mapped

fork = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
pytestmark = pytest.mark.skipif(fork is None, reason="needs processes that are forked")


class Slow:
    """Samples that take a while, and write down who decodes them."""

    shape = (2, 3)

    def __init__(self, log, seconds=0.01, rows=40):
        self.log, self.seconds, self.rows = log, seconds, rows

    def __len__(self):
        return self.rows

    def decode(self, row):
        with self.log.open("a") as file:
            file.write(f"{row}\n")
        time.sleep(self.seconds)
        return np.full(self.shape, row % 7, np.uint8)


def want(rows=40):
    return np.repeat(np.arange(rows) % 7, 6).reshape(rows, 2, 3)


def decode(path, samples, answers):
    answers.put(bool((memory_mapped(path, samples) == want()).all()))


def test_processes_that_ask_at_once_decode_once(tmp_path):
    """As ranks of a run, or workers, do."""
    answers = fork.Queue()
    parties = [
        fork.Process(target=decode, args=(tmp_path / "a-1.npy", Slow(tmp_path / "log"), answers))
        for _ in range(4)
    ]
    for party in parties:
        party.start()
    assert [answers.get(timeout=60) for _ in parties] == [True] * 4
    for party in parties:
        party.join()
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(40))


def test_a_killed_process_leaves_nothing_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.loading.cache._CHUNK", 8)
    path = tmp_path / "a-1.npy"
    party = fork.Process(target=decode, args=(path, Slow(tmp_path / "log", 0.05), fork.Queue()))
    party.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or len((tmp_path / "log").read_text().split()) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(party.pid, signal.SIGKILL)
    party.join()
    assert not path.exists()
    assert list(tmp_path.glob(".a-1-*.part")), "it was in the middle of writing"
    assert (memory_mapped(path, Slow(tmp_path / "log", 0)) == want()).all()
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


def test_a_file_that_is_there_needs_no_lock_and_no_samples(tmp_path):
    path = tmp_path / "a-1.npy"
    np.save(path, want().astype(np.uint8))
    assert (memory_mapped(path, None) == want()).all()
    assert [p.name for p in tmp_path.iterdir()] == ["a-1.npy"]
