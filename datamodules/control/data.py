"""An environment of gymnasium as data: steps to act in, what came of them, and episodes to evaluate."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader
from typing_extensions import override

from datamodules.base import BaseDataModule
from datamodules.control.episodes import Episodes, Outcome, TrainingEnvironment
from datamodules.control.film import Film, film
from datamodules.control.replay import ReplayBuffer, ReplayLog, Transitions
from datamodules.control.spaces import Spaces, licence_of, make_env, read_spaces
from datamodules.loading.datasets import BatchDataset, Key, split_keys
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

VALIDATION, TEST = 100, 10_000  # what is added to the run's seed for the first episode
LOG = "replay.bin"


class EpisodeSeeds(BatchDataset):
    """Seeds of episodes; a batch is (seeds ``[E]``, numbers of the episodes ``[E]``)."""

    def __init__(self, first: int, count: int) -> None:
        self.seeds = torch.arange(first, first + count)
        self.transform = None

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor]:
        numbers = torch.from_numpy(split_keys(keys)[0])
        return self.seeds[numbers], numbers


class StepLoader(DataLoader[Any]):
    """Counts the environment steps of an epoch; the steps are all alike, so it can go on anywhere."""

    def __init__(self, steps: int) -> None:
        super().__init__(range(steps), batch_size=None)  # type: ignore[arg-type]  # a range is no Dataset

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class ControlDataModule(BaseDataModule):
    """A continuous-control environment: an agent acts in it, and learns from a buffer of past steps.

    A batch of training is one step in the environment, which the task takes with `act`; what it learns from,
    it takes from `sample`. A batch of evaluation holds seeds of whole episodes for `play`. An epoch is the
    number of steps between two evaluations. A checkpoint holds random states and the episode so far; the
    transitions go to ``replay.bin`` beside it, each once, whenever a checkpoint is written. A run that
    goes on from any checkpoint of its folder equals one that was never interrupted, in an environment
    that draws from its own generator alone. ``store_replay_every_n_steps`` writes the transitions less often:
    a checkpoint in between refers to those of the last one that wrote them.

    Args:
        env: id of an environment of gymnasium with continuous actions, ``MODULE:ID`` for foreign ones.
        published_env: the environment of the published numbers to compare with; another version is another
            task, and a warning says so.
        steps_per_epoch: steps in the environment between two evaluations.
        capacity: transitions that the buffer holds.
        eval_episodes: episodes of an evaluation; the first has the seed ``seed`` + 100, as the paper's.
        test_episodes: episodes of a test, none of which chose the checkpoint; the first has ``seed`` +
            10,000; as many as ``eval_episodes`` if missing.
        store_replay: whether checkpoints keep the buffer, so that a run can go on exactly; without it a
            resumed run begins with an empty one.
        store_replay_every_n_steps: steps in the environment from one writing of the buffer to the next, at
            least; 1 is with every checkpoint. A run that goes on from a checkpoint in between has lost the
            transitions since the last writing, says how many, and differs from an undisturbed one.
        batch_size: transitions in a batch of the learner.
        eval_batch_size: episodes that are played side by side; all if missing.
        seed: of environment, exploration and sampling; that of ``seed_everything`` if missing.

    Raises:
        ValueError: a number below 1.
    """

    linked_facts: ClassVar[tuple[str, ...]] = ("obs_dim", "act_dim", "act_limit")

    def __init__(
        self,
        *,
        env: str,
        published_env: str | None = None,
        steps_per_epoch: int = 5000,
        capacity: int = 1_000_000,
        eval_episodes: int = 10,
        test_episodes: int | None = None,
        store_replay: bool = True,
        store_replay_every_n_steps: int = 1,
        batch_size: int = 256,
        eval_batch_size: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=0, seed=seed)
        numbers = {
            "steps_per_epoch": steps_per_epoch,
            "capacity": capacity,
            "eval_episodes": eval_episodes,
            "test_episodes": test_episodes,
            "store_replay_every_n_steps": store_replay_every_n_steps,
        }
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.env, self.published_env = env, published_env
        self.steps_per_epoch, self.capacity = steps_per_epoch, capacity
        self.eval_episodes, self.test_episodes = eval_episodes, test_episodes or eval_episodes
        self.store_replay, self.store_every = store_replay, store_replay_every_n_steps
        self.title = env
        self._spaces: Spaces | None = None
        self._training: TrainingEnvironment | None = None
        self._episodes = Episodes(env)
        self._stored: dict[str, Any] | None = None

    # -- facts ---------------------------------------------------------------------------------

    @property
    def spaces(self) -> Spaces:
        """Sizes of the environment, which is made for that once and let go.

        Raises:
            DataError: there is no such environment, or not one for agents of this kind.
        """
        if self._spaces is None:
            env = make_env(self.env)
            self._spaces = read_spaces(env, self.env)
            env.close()
        return self._spaces

    @property
    def obs_dim(self) -> int:
        """D, numbers in an observation."""
        return self.spaces.obs_dim

    @property
    def act_dim(self) -> int:
        """A, numbers in an action."""
        return self.spaces.act_dim

    @property
    def act_limit(self) -> float:
        """L: actions lie in [-L, L]."""
        return self.spaces.act_limit

    @override
    def facts(self) -> dict[str, Any]:
        sizes = {"obs_dim": self.obs_dim, "act_dim": self.act_dim}
        return {**super().facts(), "licence": licence_of(self.env), **sizes}

    @override
    def described(self) -> dict[str, str]:
        return {
            "environment": self.env,
            "observations": f"[{self.obs_dim}]",
            "actions": f"[{self.act_dim}] in [-{self.act_limit:g}, {self.act_limit:g}]",
        }

    # -- loaders -------------------------------------------------------------------------------

    @override
    def setup(self, stage: str) -> None:
        if self.published_env is not None and self.env != self.published_env:
            warnings.warn(
                f"the published row of this configuration is of {self.published_env}, and this run is of"
                f" {self.env}: observations and rewards differ, so the numbers do not compare",
                stacklevel=2,
            )
        if stage == "fit" and self._processes()[1] > 1:
            raise DataError("an agent is trained by one process: set trainer.devices to 1")
        self._require_spaces()
        self.val_set = EpisodeSeeds(self.seed + VALIDATION, self.eval_episodes)
        self.test_set = EpisodeSeeds(self.seed + TEST, self.test_episodes)

    def _require_spaces(self) -> None:
        _ = self.spaces

    @override
    def train_dataloader(self) -> Any:
        """Return a loader that counts the steps of an epoch."""
        return StepLoader(self.steps_per_epoch)

    @override
    def predict_dataloader(self) -> Any:
        """Return a loader of one episode, the first of the test."""
        first = EpisodeSeeds(self.seed + TEST, 1)
        return DataLoader(first, batch_size=1, collate_fn=lambda batch: batch)

    # -- acting --------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingEnvironment:
        """The environment that is trained in.

        Raises:
            DataError: `begin` was not called.
        """
        if self._training is None:
            raise DataError("ControlDataModule.begin() makes the environment to train in; call it first")
        return self._training

    def begin(self, checkpoint: Path | None = None) -> None:
        """Make environment, buffer and generator, new or as ``checkpoint`` left them.

        Args:
            checkpoint: file of which Lightning loaded the state.
        """
        self._training = TrainingEnvironment(self.env, self.seed)
        self.replay = ReplayBuffer(self.capacity, self.obs_dim, self.act_dim)
        self.random = np.random.default_rng(np.random.SeedSequence((self.seed, 0)))
        self._log = ReplayLog(self._checkpoints / LOG, self.replay.width)
        stored, self._stored = self._stored, None
        if stored is not None:
            self._go_on(stored, checkpoint)

    @property
    def _checkpoints(self) -> Path:
        root = "." if self.trainer is None else self.trainer.default_root_dir
        return Path(root) / "checkpoints"

    def _go_on(self, stored: dict[str, Any], checkpoint: Path | None) -> None:
        if stored["env"] != self.env:
            raise DataError(
                f"the checkpoint is of {stored['env']}, the run of {self.env}; start anew without --ckpt_path"
            )
        kept = stored["replay"]
        if self.store_replay and kept is not None:
            source = (checkpoint.parent if checkpoint is not None else self._checkpoints) / LOG
            self.replay.put(self._log.read(source, kept["rows"], kept["checksum"]), kept["rows"])
            if lost := kept.get("seen", kept["rows"]) - kept["rows"]:
                warnings.warn(
                    f"the last {lost:,} transitions before the checkpoint were not written"
                    f" (store_replay_every_n_steps): this run goes on with the {kept['rows']:,} before them,"
                    " and will differ from an undisturbed one",
                    stacklevel=2,
                )
        else:
            warnings.warn(
                "the checkpoint's replay buffer is not kept or not asked for (store_replay): this run goes on"
                " with an empty one, and will differ from an undisturbed one",
                stacklevel=2,
            )
        self.random.bit_generator.state = json.loads(stored["random"])
        if not self.training.restore(stored["episode"]):
            warnings.warn(
                f"{self.env} did not come back to where it was by the same actions, so it draws on more than"
                " its own generator: the run goes on with a new episode, which an undisturbed one would not",
                stacklevel=2,
            )

    def act(self, action: Any) -> Outcome:
        """Take a step in the environment and remember it.

        Args:
            action: ``[A]``.

        Raises:
            DataError: the environment gave what cannot be learnt from.
        """
        outcome = self.training.step(action)
        self.replay.add(
            outcome.observation,
            outcome.action,
            outcome.next_observation,
            outcome.reward,
            outcome.terminated,
        )
        if self.store_replay and self.replay.total - self._log.written >= self.capacity:
            self._write_log()  # the next step overwrites what no file has yet
        return outcome

    def sample(self) -> Transitions:
        """A batch of past transitions, each drawn from all that are remembered."""
        return self.replay.sample(self.batch_size, self.random)

    def play(self, policy: Callable[[Tensor], Tensor], seeds: Sequence[int]) -> tuple[list[float], list[int]]:
        """Play whole episodes side by side; see `Episodes.play`."""
        return self._episodes.play(policy, seeds)

    def film(self, policy: Callable[[Tensor], Tensor], seed: int) -> Film:
        """Play an episode and keep what it looks like.

        Raises:
            DataError: this machine cannot draw the environment.
        """
        return film(self.env, self.spaces, policy, seed)

    @override
    def teardown(self, stage: str) -> None:
        self._episodes.close()

    # -- resuming ------------------------------------------------------------------------------

    def _write_log(self) -> None:
        self._log.append(self.replay.since(self._log.written))

    @override
    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to go on; transitions it refers to are on the disk before it returns."""
        state: dict[str, Any] = {"seed": self.seed, "batch_size": self.batch_size, "env": self.env}
        if self._training is None:
            return state
        replay = None
        if self.store_replay:
            if self.replay.total - self._log.written >= self.store_every:
                self._write_log()
            rows = self._log.written
            replay = {"rows": rows, "checksum": self._log.checksum, "seen": self.replay.total}
        random = json.dumps(self.random.bit_generator.state)
        return {**state, "replay": replay, "random": random, "episode": self._training.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state for `begin`; a test or prediction needs none of it."""
        trainer = self.trainer
        fitting = trainer is None or trainer.state.fn == TrainerFn.FITTING
        self._stored = dict(state_dict) if fitting and "episode" in state_dict else None
