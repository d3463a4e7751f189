"""Episodes become frames where a machine can draw, and words where it cannot."""

import sys
from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch

from datamodules import ControlDataModule, DataError
from datamodules.control.film import film
from tests.datamodules.control.toys import Counter

pytest.importorskip("gymnasium")


def policy(observations):
    return observations[:, :1]


def filmed(env, seed=3, **options):
    data = ControlDataModule(env=env)
    return data, film(env, data.spaces, policy, seed, **options)


def test_an_episode_of_pendulum():
    pytest.importorskip("pygame", reason="the classic environments are drawn by pygame")
    data, found = filmed("Pendulum-v1")
    assert found.frames.shape == (201, 500, 500, 3)
    assert found.frames.dtype == np.uint8
    assert found.steps == 200
    assert found.fps == 30
    assert found.score == pytest.approx(data.play(policy, [3])[0][0], rel=1e-6)
    assert len({frame.tobytes() for frame in found.frames}) > 100
    _, short = filmed("Pendulum-v1", most=50)
    assert len(short.frames) == 51
    assert short.fps == 7.5
    assert (short.frames == found.frames[::4]).all()


def test_an_episode_of_mujoco():
    try:
        data, found = filmed("InvertedDoublePendulum-v4")
    except DataError as error:
        pytest.skip(str(error))
    assert found.frames.shape[1:] == (480, 480, 3)
    assert found.score == pytest.approx(data.play(policy, [3])[0][0], rel=1e-6)
    assert (found.frames[0] != found.frames[-1]).any()


def test_without_what_draws(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DataError, match=r"Pendulum-v1 cannot be drawn: .*pygame"):
        filmed("Pendulum-v1")


class Dark(Counter):
    """Cannot be drawn here."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}

    def render(self):
        raise RuntimeError("no display\nand more")


def test_a_machine_that_cannot_draw(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    registry = gymnasium.registry.copy()
    gymnasium.register("Dark-v0", entry_point=Dark)
    try:
        with pytest.raises(DataError, match=r"Dark-v0 cannot be drawn on this machine .*no display") as told:
            film("Dark-v0", ControlDataModule(env="Dark-v0").spaces, lambda x: torch.zeros(1, 1), 0)
    finally:
        gymnasium.registry.clear()
        gymnasium.registry.update(registry)
    assert "libosmesa6" in str(told.value)
    assert "and more" not in str(told.value)
