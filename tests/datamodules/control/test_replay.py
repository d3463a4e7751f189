"""Transitions come back as they were added, from memory and from the file beside a checkpoint."""

import numpy as np
import pytest

import datamodules
from datamodules.control.replay import ReplayBuffer, ReplayLog


def filled(capacity, count, start=0):
    buffer = ReplayBuffer(capacity, obs_dim=3, act_dim=2)
    for k in range(start, start + count):
        buffer.add(np.full(3, k), np.full(2, k + 0.25), np.full(3, k + 0.5), reward=-k, terminated=k % 4 == 3)
    return buffer


def test_rows_keep_their_parts():
    batch = filled(8, 6).sample(64, np.random.default_rng(0))
    k = batch.observation[:, :1]
    assert set(k.flatten().tolist()) == set(range(6))
    assert (batch.observation == k).all()
    assert (batch.action == k + 0.25).all()
    assert (batch.next_observation == k + 0.5).all()
    assert (batch.reward == -k).all()
    assert (batch.not_done == (k % 4 != 3)).all()
    assert batch.reward.shape == batch.not_done.shape == (64, 1)


def test_the_oldest_are_overwritten():
    buffer = filled(8, 13)
    assert len(buffer) == 8
    found = buffer.sample(400, np.random.default_rng(0)).observation[:, 0]
    assert set(found.tolist()) == set(range(5, 13))
    assert buffer.since(9)[:, 0].tolist() == [9, 10, 11, 12]


def test_an_empty_one_says_so():
    with pytest.raises(datamodules.DataError, match="empty"):
        filled(8, 0).sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("count", [5, 8, 30])
def test_the_file_brings_back_the_same_buffer(count, tmp_path):
    before, log = filled(8, 0), ReplayLog(tmp_path / "replay.bin", width=10)
    for k in range(count):
        before.add([k] * 3, [k] * 2, [k] * 3, k, False)
        if k % 3 == 2 or k == count - 1:
            log.append(before.since(log.written))
    assert log.path.stat().st_size == count * 10 * 4
    stated = (log.written, log.checksum)
    log.append(np.ones((4, 10), np.float32))  # of a run that was killed before its next checkpoint
    after, again = filled(8, 0), ReplayLog(log.path, width=10)
    after.put(again.read(log.path, *stated), stated[0])
    assert after.total == before.total
    assert (after.rows[: len(after)] == before.rows[: len(before)]).all()
    again.append(np.zeros((1, 10), np.float32))
    assert log.path.stat().st_size == (count + 1) * 10 * 4


def test_a_file_of_another_run_is_copied_not_continued(tmp_path):
    first = ReplayLog(tmp_path / "a.bin", width=10)
    rows = filled(8, 6).since(0)
    first.append(rows)
    second = ReplayLog(tmp_path / "run" / "b.bin", width=10)
    assert (second.read(first.path, first.written, first.checksum) == rows).all()
    assert second.path.read_bytes() == first.path.read_bytes()
    second.append(rows)
    assert first.path.stat().st_size == 6 * 40


def test_a_foreign_or_short_file_is_refused(tmp_path):
    log = ReplayLog(tmp_path / "replay.bin", width=10)
    with pytest.raises(datamodules.DataError, match=r"store_replay false"):
        log.read(log.path, 3, 0)
    log.append(filled(8, 6).since(0))
    with pytest.raises(datamodules.DataError, match="damaged, or is not of this checkpoint"):
        log.read(log.path, 7, log.checksum)
    log.path.write_bytes(log.path.read_bytes()[:-1] + b"x")
    with pytest.raises(datamodules.DataError, match="damaged"):
        log.read(log.path, 6, log.checksum)
