"""Environments are stepped, ended, evaluated and come back as an agent needs them."""

import sys
import warnings
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

import datamodules
from datamodules import ControlDataModule, DataError
from tests.datamodules.control.toys import Lever, register

pytest.importorskip("gymnasium")


@pytest.fixture
def toy(monkeypatch):
    registry = gymnasium.registry.copy()
    yield register
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)


def begun(env, **options):
    data = ControlDataModule(env=env, **{"batch_size": 8, "store_replay": False, **options})
    data.setup("fit")
    data.begin()
    return data


def test_facts():
    data = ControlDataModule(env="Pendulum-v1", seed=3)
    assert (data.obs_dim, data.act_dim, data.act_limit) == (3, 1, 2.0)
    assert data.linked_facts == ("obs_dim", "act_dim", "act_limit")
    data.setup("fit")
    assert "Pendulum-v1" in data.describe()
    assert data.splits()["val"].samples == 10
    assert data.val_set.seeds[0] == 103
    assert not set(data.val_set.seeds.tolist()) & set(data.test_set.seeds.tolist())
    assert datamodules.ControlDataModule is ControlDataModule


def test_a_time_limit_bootstraps_and_an_end_does_not(toy):
    ended = begun(toy("Ends-v0", end=4, time_limit=100))
    outcomes = [ended.act([0.5]) for _ in range(8)]
    assert [o.terminated for o in outcomes] == [False, False, False, True] * 2
    assert ended.replay.rows[:8, -1].tolist() == [1, 1, 1, 0] * 2
    cut = begun(toy("IsCut-v0", end=100, time_limit=4))
    outcomes = [cut.act([0.5]) for _ in range(8)]
    assert [o.truncated for o in outcomes] == [False, False, False, True] * 2
    assert cut.replay.rows[:8, -1].tolist() == [1] * 8
    assert cut.training.finished == ended.training.finished == 2.0
    # what comes after the last step is of this episode, what is acted on next is of another one
    assert outcomes[3].next_observation[0] == 4
    assert outcomes[4].observation[0] == 0


@pytest.mark.parametrize("env", ["Pendulum-v1", "InvertedDoublePendulum-v4"])
@pytest.mark.parametrize("steps", [7, 230])
def test_an_environment_comes_back_to_where_it_was(env, steps):
    data = begun(env, seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps + 40, 1)).astype(np.float32)
    for action in actions[:steps]:
        data.act(action)
    state = data.state_dict()
    undisturbed = [data.act(action) for action in actions[steps:]]
    again = ControlDataModule(env=env, batch_size=8, store_replay=False, seed=1)
    again.load_state_dict(state)
    with pytest.warns(UserWarning, match="empty one"):
        again.begin()
    for action, expected in zip(actions[steps:], undisturbed, strict=True):
        outcome = again.act(action)
        assert (outcome.observation == expected.observation).all()
        assert (outcome.next_observation == expected.next_observation).all()
        assert outcome.reward == expected.reward
    assert again.training.finished == data.training.finished
    assert data.random.random() == again.random.random()


def test_the_buffer_is_written_as_often_as_asked(tmp_path):
    def made():
        data = ControlDataModule(env="Pendulum-v1", batch_size=8, seed=1, store_replay_every_n_steps=100)
        data.trainer = SimpleNamespace(
            default_root_dir=tmp_path,
            world_size=1,
            global_rank=0,
            state=SimpleNamespace(fn=TrainerFn.FITTING),
        )
        data.setup("fit")
        return data

    def on(data, steps):
        for _ in range(steps):
            data.act([0.5])
        return data.state_dict()

    def again(state):
        data = made()
        data.load_state_dict(state)
        data.begin(tmp_path / "checkpoints" / "last.ckpt")
        return data

    data, log = made(), tmp_path / "checkpoints" / "replay.bin"
    data.begin()
    states = {0: data.state_dict()}
    for steps, written in ((60, 0), (120, 120), (180, 120), (230, 230)):
        states[steps] = on(data, steps - max(states))
        assert (log.stat().st_size if log.exists() else 0) == written * 36
    assert [states[steps]["replay"]["rows"] for steps in states] == [0, 0, 120, 120, 230]
    rows = data.replay.rows.copy()
    for steps, kept in ((230, 230), (120, 120)):  # those that wrote are gone on from exactly
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            back = again(states[steps])
        assert back.replay.total == kept
        assert (back.replay.rows[:kept] == rows[:kept]).all()
    with pytest.warns(UserWarning, match=r"the last 60 transitions .* goes on with the 120 before them"):
        back = again(states[180])
    assert back.replay.total == 120
    assert (back.training.observation == rows[180, :3]).all()
    on(back, 100)
    assert log.stat().st_size == 220 * 36
    assert (back.replay.rows[:120] == rows[:120]).all()
    assert (back.replay.rows[120] == rows[180]).all()
    with pytest.warns(UserWarning, match="the last 60 transitions .* goes on with the 0 before them"):
        assert again(states[60]).replay.total == 0


def test_one_process_trains_an_agent():
    data = ControlDataModule(env="Pendulum-v1")
    data.trainer = SimpleNamespace(world_size=2, global_rank=0)
    with pytest.raises(DataError, match=r"one process: set trainer\.devices to 1"):
        data.setup("fit")
    data.setup("test")


def test_another_environment_is_not_continued():
    data = begun("Pendulum-v1")
    again = ControlDataModule(env="InvertedDoublePendulum-v4", store_replay=False)
    again.load_state_dict(data.state_dict())
    with pytest.raises(DataError, match=r"is of Pendulum-v1, the run of InvertedDoublePendulum-v4"):
        again.begin()


def test_lock_step_equals_one_after_the_other():
    data = ControlDataModule(env="InvertedDoublePendulum-v4")

    def policy(observations):
        return (observations @ torch.linspace(-0.5, 0.6, 11)[:, None]).clamp(-1, 1)

    seeds = list(range(5, 15))
    returns, lengths = data.play(policy, seeds)
    single = [data.play(policy, [seed]) for seed in seeds]
    assert lengths == [s[1][0] for s in single]
    assert returns == pytest.approx([s[0][0] for s in single], rel=1e-5)
    assert len(set(lengths)) > 1


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Pendulam-v1", r"cannot make the environment 'Pendulam-v1': .*[Dd]id you mean: 'Pendulum'"),
        ("InvertedDoublePendulum-v9", r"versioned environments: \[ 'v2', 'v4', 'v5' \]"),
        ("InvertedDoublePendulum-v2", r"cannot make the environment"),
        ("CartPole-v1", r"Discrete\(2\); an agent of this kind gives continuous ones"),
    ],
)
def test_environments_that_cannot_be_used(env, message):
    with pytest.raises(DataError, match=message):
        _ = ControlDataModule(env=env).obs_dim


def test_actions_of_unequal_limits(toy):
    with pytest.raises(DataError, match="RescaleAction"):
        _ = ControlDataModule(env=toy("Lopsided-v0", low=-1.0)).act_limit
    with pytest.raises(DataError, match=r"Discrete\(3\)"):
        _ = ControlDataModule(env=toy("Lever-v0", entry=Lever)).act_limit


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan reward", r"gave the reward nan in step 3 of episode 1; nothing of this step is kept"),
        ("nan observation", r"gave the observation \[3.0, nan\] in step 3"),
        ("size", r"an observation of 3 numbers in step 3 of episode 1; its space says 2"),
    ],
)
def test_steps_that_cannot_be_learnt_from(toy, fault, message):
    data = begun(toy("Faulty-v0", fault=fault))
    data.act([0.0])
    data.act([0.0])
    with pytest.raises(DataError, match=message):
        data.act([0.0])
    assert data.replay.total == 2
    assert np.isfinite(data.replay.rows[:2]).all()
    with pytest.raises(DataError, match="in step 3 of an evaluation"):
        data.play(lambda x: torch.zeros(len(x), 1), [0])


def test_another_version_than_the_published_row():
    data = ControlDataModule(env="InvertedDoublePendulum-v5", published_env="InvertedDoublePendulum-v4")
    with pytest.warns(UserWarning, match=r"row .* is of InvertedDoublePendulum-v4.*do not compare"):
        data.setup("fit")
    same = ControlDataModule(env="InvertedDoublePendulum-v4", published_env="InvertedDoublePendulum-v4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same.setup("fit")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(DataError, match=r"pip install 'fulgurite\[rl\]'"):
        _ = ControlDataModule(env="Pendulum-v1").obs_dim


@pytest.mark.parametrize(
    "name",
    [
        "capacity",
        "eval_episodes",
        "steps_per_epoch",
        "test_episodes",
        "batch_size",
        "store_replay_every_n_steps",
    ],
)
def test_numbers_below_one(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ControlDataModule(env="Pendulum-v1", **{name: 0})
