"""A save that is killed before its k-th operation on files, for many k: the old network or the new one."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
import torch

import zoo
from tests.kills import contents, killed
from zoo.files.layout import SAVING

if TYPE_CHECKING:
    from pathlib import Path

NAME = "spiking_cnn_nano"
FOREIGN = {
    "notes.txt": b"mine",
    "figures/measured.csv": b"a year of work",
    "checkpoints/best.ckpt": b"x" * 99,
}

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a child process"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@pytest.fixture
def networks(tiny, tmp_path):
    """Two of one shape, each with facts, figures and settings of its own."""
    made = []
    for index, count in enumerate((2, 1)):
        images = []
        for number in range(count):
            images.append(tmp_path / f"drawn{index}" / f"figure{number}.png")
            images[-1].parent.mkdir(exist_ok=True)
            images[-1].write_bytes(b"\x89PNG" + bytes([index, number]))
        model = tiny(NAME)
        with torch.no_grad():
            model.classifier.bias.fill_(index)
        settings = f"seed: {index}\n" if index == 0 else None
        made.append((model, {"figures": images, "settings": settings, "seed": index}))
    return made


def bias_of(folder: Path) -> float:
    return float(zoo.load(f"local-dir:{folder}").classifier.bias[0].detach())


def pick(most: int, amount: int) -> list[int]:
    return sorted(random.Random(amount).sample(range(1, most), amount))


def over_another(networks, tmp_path, shards, most, amount):
    (old, told), (new, news) = networks
    for name, content in FOREIGN.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    folder = zoo.save(old, tmp_path / "out", max_shard_size=shards[0], **told)
    fresh = contents(zoo.save(new, tmp_path / "fresh", max_shard_size=shards[1], **news))
    seen, died = set(), 0
    for k in pick(most, amount):
        zoo.save(old, folder, max_shard_size=shards[0], **told)
        died += killed(k, tmp_path, lambda: zoo.save(new, folder, max_shard_size=shards[1], **news))
        seen.add(bias_of(folder))
        there = contents(folder)
        assert {name: there[name] for name in FOREIGN} == FOREIGN, k
        zoo.save(new, folder, max_shard_size=shards[1], **news)  # finishes or takes back, and leaves nothing
        assert contents(folder) == {**fresh, **FOREIGN}, k
    assert seen == {0.0, 1.0}
    assert died


def test_one_network_over_another(networks, tmp_path):
    over_another(networks, tmp_path, ("5GB", "5GB"), 60, 12)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [("5GB", "5GB"), ("8KB", "5GB"), ("5GB", "8KB"), ("8KB", "8KB")])
def test_one_network_over_another_in_any_form(shards, networks, tmp_path):
    over_another(networks, tmp_path, shards, 240, 24)


def test_a_new_folder(networks, tmp_path):
    model, facts = networks[0]
    whole = contents(zoo.save(model, tmp_path / "whole", **facts))
    died = 0
    for k in (1, 2, 5, 9, 14, 20, 27):
        folder = tmp_path / f"new{k}"
        died += killed(k, tmp_path, lambda folder=folder: zoo.save(model, folder, **facts))
        assert not folder.exists() or contents(folder) == whole
        zoo.save(model, folder, **facts)
        assert contents(folder) == whole
    assert died > 4
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_live_save_is_waited_for(networks, tmp_path):
    """Two processes save into one folder again and again; a third reads one network or the other."""
    (old, _), (new, _) = networks
    folder = zoo.save(old, tmp_path / "out")
    children = []
    for model in (old, new):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                for _ in range(8):
                    zoo.save(model, folder)
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert bias_of(folder) in (0.0, 1.0)
    assert not (folder / SAVING).exists()
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
