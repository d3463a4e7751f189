"""Making environments of gymnasium, and what an agent can be trained on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    import gymnasium

    Env = gymnasium.Env[Any, Any]

MISSING = "gymnasium is not installed, which brings the environments: pip install 'fulgurite[rl]'"


@dataclass(frozen=True, kw_only=True)
class Spaces:
    """Sizes of an environment.

    Attributes:
        obs_dim: D, numbers in an observation.
        act_dim: A, numbers in an action.
        act_limit: L; every number of an action lies in [-L, L].
        time_limit: steps after which an episode is cut; None if it never is.
    """

    obs_dim: int
    act_dim: int
    act_limit: float
    time_limit: int | None


def make_env(env_id: str, render_mode: str | None = None) -> Env:
    """An environment by its id, ``MODULE:ID`` for one that a module registers.

    Raises:
        DataError: gymnasium or what the environment needs is missing, or there is no such environment.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise DataError(MISSING) from error
    try:
        with warnings.catch_warnings():
            # published rows are of old versions; `ControlDataModule` warns where an id is not that of the row
            warnings.simplefilter("ignore")
            # the checker looks at every step what `check_step` looks at
            return gymnasium.make(env_id, render_mode=render_mode, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise DataError(
            f"the environment {env_id!r} needs more: {_line(error)}; try pip install 'fulgurite[rl]'"
        ) from error
    except (gymnasium.error.Error, ImportError) as error:
        raise DataError(f"cannot make the environment {env_id!r}: {_line(error)}") from error


def licence_of(env_id: str) -> str | None:
    """The licence of the environments that gymnasium brings; None for foreign ones."""
    import gymnasium

    made = gymnasium.spec(env_id).entry_point
    return "MIT, an environment of gymnasium" if str(made).startswith("gymnasium.") else None


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].replace("`", "'")


def read_spaces(env: Env, env_id: str) -> Spaces:
    """Sizes of an environment.

    Raises:
        DataError: actions are not continuous, not of one limit, or observations are no vector of numbers.
    """
    from gymnasium.spaces import Box

    actions, observations = env.action_space, env.observation_space
    if not isinstance(actions, Box):
        raise DataError(
            f"{env_id} has the actions {actions}; an agent of this kind gives continuous ones (a Box), such"
            " as those of Pendulum-v1 or InvertedDoublePendulum-v4"
        )
    if not isinstance(observations, Box) or len(observations.shape) != 1:
        raise DataError(f"{env_id} has the observations {observations}; vectors [D] are needed, a Box")
    high, low = actions.high, actions.low
    limit = float(high.flat[0])
    if actions.dtype.kind != "f" or not (
        np.isfinite(limit) and (high == limit).all() and (low == -limit).all()
    ):
        raise DataError(
            f"{env_id} has the actions {actions}; all must lie between -L and L of one finite L:"
            " gymnasium.wrappers.RescaleAction brings them there"
        )
    spec = env.spec
    return Spaces(
        obs_dim=int(observations.shape[0]),
        act_dim=int(np.prod(actions.shape)),
        act_limit=limit,
        time_limit=None if spec is None else spec.max_episode_steps,
    )


def check_step(
    env_id: str, spaces: Spaces, observation: Any, reward: Any, where: str
) -> np.ndarray[Any, Any]:
    """The observation as float32 ``[D]``.

    Raises:
        DataError: it has another size, or it or the reward is NaN or infinite.
    """
    found = np.asarray(observation, dtype=np.float32).reshape(-1)
    if found.shape != (spaces.obs_dim,):
        raise DataError(
            f"{env_id} gave an observation of {found.size} numbers {where}; its space says {spaces.obs_dim}"
        )
    # one sum tells of all numbers at once; NaN and infinity stay
    if not np.isfinite(float(found.sum(dtype=np.float64)) + float(reward)):
        what = (
            f"the reward {reward}" if not np.isfinite(float(reward)) else f"the observation {found.tolist()}"
        )
        raise DataError(
            f"{env_id} gave {what} {where}; nothing of this step is kept, and the last checkpoint is whole"
        )
    return found
