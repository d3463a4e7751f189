"""Acting in environments: one that is trained in, and many side by side that are evaluated."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datamodules.control.spaces import check_step, make_env, read_spaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from datamodules.control.spaces import Env

    Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step led to.

    Attributes:
        observation: before it, ``[D]``.
        action: ``[A]``.
        next_observation: after it, ``[D]``, of this episode also where it ended.
        reward: of the step.
        terminated: whether the episode ended by itself.
        truncated: whether a time limit cut it.
    """

    observation: Vector
    action: Vector
    next_observation: Vector
    reward: float
    terminated: bool
    truncated: bool


class TrainingEnvironment:
    """An environment that starts again at the end of each episode, and whose state is a list of actions.

    Where an episode stands is told by the random state it began with and by what was done since; done once
    more, it leads to the same place in every environment that draws from its own generator alone.

    Args:
        env_id: of gymnasium.
        seed: of the first episode; later ones go on with its generator.

    Attributes:
        observation: the present one, ``[D]``.
        finished: sum of rewards of the last whole episode, None before there is one.
        episodes: whole ones so far.
    """

    def __init__(self, env_id: str, seed: int) -> None:
        self.env_id, self.seed = env_id, seed
        self.env: Env = make_env(env_id)
        self.spaces = read_spaces(self.env, env_id)
        self.finished: float | None = None
        self.episodes = 0
        self._began: str | None = None
        self._actions: list[Vector] = []
        self.observation = self._begin(None)

    def _begin(self, random: str | None) -> Vector:
        """Start an episode: the first of all, or one from a random state."""
        self._began, self._actions, self._sum = random, [], 0.0
        if random is None:
            observation, _ = self.env.reset(seed=self.seed)
        else:
            self.env.unwrapped.np_random.bit_generator.state = json.loads(random)
            observation, _ = self.env.reset()
        return check_step(self.env_id, self.spaces, observation, 0.0, "at the start of an episode")

    def _random(self) -> str:
        return json.dumps(self.env.unwrapped.np_random.bit_generator.state, default=lambda x: x.tolist())

    def step(self, action: Vector) -> Outcome:
        """Act, and start a new episode where this one ends.

        Raises:
            DataError: the environment gave an observation or a reward that cannot be learnt from.
        """
        outcome = self._advance(action)
        if outcome.terminated or outcome.truncated:
            self.finished, self.episodes = self._sum, self.episodes + 1
            self.observation = self._begin(self._random())
        else:
            self.observation = outcome.next_observation
        return outcome

    def _advance(self, action: Vector) -> Outcome:
        action = np.asarray(action, dtype=np.float32)
        where = f"in step {len(self._actions) + 1} of episode {self.episodes + 1}"
        after, reward, terminated, truncated, _ = self.env.step(action.reshape(self.env.action_space.shape))
        after = check_step(self.env_id, self.spaces, after, reward, where)
        self._actions.append(action)
        self._sum += float(reward)
        return Outcome(
            observation=self.observation,
            action=action,
            next_observation=after,
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def state(self) -> dict[str, Any]:
        """Plain values and tensors from which `restore` leads back here."""
        actions = np.stack(self._actions) if self._actions else np.zeros((0, self.spaces.act_dim), np.float32)
        return {
            "began": self._began,
            "actions": torch.from_numpy(actions),
            "observation": torch.from_numpy(self.observation.copy()),
            "finished": self.finished,
            "episodes": self.episodes,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Go where ``state`` was taken.

        Returns:
            Whether that was possible; if not, the environment is not deterministic, and a new episode begins.
        """
        self.finished, self.episodes = state["finished"], state["episodes"]
        self.observation = self._begin(state["began"])
        for action in state["actions"].numpy():
            outcome = self._advance(action)
            if outcome.terminated or outcome.truncated:
                self.observation = self._begin(self._random())
                return False
            self.observation = outcome.next_observation
        same = bool((self.observation == state["observation"].numpy()).all())
        if not same:
            self.observation = self._begin(self._random())
        return same


class Episodes:
    """Environments side by side, in which whole episodes are played in lock-step.

    Args:
        env_id: of gymnasium.
    """

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id
        self._envs: list[Env] = []

    def play(self, policy: Callable[[Tensor], Tensor], seeds: Sequence[int]) -> tuple[list[float], list[int]]:
        """Play one episode for each seed.

        Args:
            policy: observations ``[B, D]`` of the episodes that are not over to actions ``[B, A]``.
            seeds: of the environments' first states.

        Returns:
            Sums of rewards and numbers of steps.
        """
        while len(self._envs) < len(seeds):
            self._envs.append(make_env(self.env_id))
        spaces = read_spaces(self._envs[0], self.env_id)
        shape = self._envs[0].action_space.shape
        returns, lengths = [0.0] * len(seeds), [0] * len(seeds)
        present: dict[int, Vector] = {}
        for k, seed in enumerate(seeds):
            observation, _ = self._envs[k].reset(seed=int(seed))
            present[k] = check_step(self.env_id, spaces, observation, 0.0, "at the start of an episode")
        while present:
            actions = policy(torch.from_numpy(np.stack(list(present.values())))).cpu().numpy()
            for k, action in zip(list(present), actions, strict=True):
                after, reward, terminated, truncated, _ = self._envs[k].step(action.reshape(shape))
                lengths[k] += 1
                where = f"in step {lengths[k]} of an evaluation"
                present[k] = check_step(self.env_id, spaces, after, reward, where)
                returns[k] += float(reward)
                if terminated or truncated:
                    del present[k]
        return returns, lengths

    def close(self) -> None:
        """Let the environments go."""
        for env in self._envs:
            env.close()
        self._envs = []
