"""Episodes as frames: rendering without a screen where there is none."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from datamodules.control.spaces import Spaces, check_step, make_env
from datamodules.loading.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from datamodules.control.spaces import Env

OFF_SCREEN = ("egl", "osmesa")  # on the graphics card or in software, in this order


@dataclass(frozen=True, kw_only=True)
class Film:
    """An episode.

    Attributes:
        frames: ``[N, H, W, 3]``, bytes.
        fps: frames a second, as the environment's time goes.
        score: sum of rewards.
        steps: in the environment.
    """

    frames: np.ndarray[Any, np.dtype[np.uint8]]
    fps: float
    score: float
    steps: int


def film(env_id: str, spaces: Spaces, policy: Callable[[Tensor], Tensor], seed: int, most: int = 250) -> Film:
    """Play an episode and keep what it looks like.

    Args:
        env_id: of gymnasium.
        spaces: its sizes.
        policy: observations ``[1, D]`` to actions ``[1, A]``.
        seed: of the first state.
        most: frames that are kept; of a longer episode, every second one, every third, ...

    Raises:
        DataError: this machine cannot draw the environment.
    """
    env = make_env(env_id, render_mode="rgb_array")
    try:
        observation, _ = env.reset(seed=seed)
        frames = [_first_frame(env, env_id)]
        every = max(1, -(-(spaces.time_limit or most) // most))
        score, steps, over = 0.0, 0, False
        while not over:
            seen = check_step(env_id, spaces, observation, 0.0, f"in step {steps} of a film")
            action = policy(torch.from_numpy(seen).unsqueeze(0))[0].cpu().numpy()
            observation, reward, terminated, truncated, _ = env.step(action.reshape(env.action_space.shape))
            score, steps, over = score + float(reward), steps + 1, bool(terminated or truncated)
            if steps % every == 0 or over:
                frames.append(np.asarray(env.render()))
        fps = float(env.metadata.get("render_fps") or 30) / every
    finally:
        env.close()
    return Film(frames=np.stack(frames).astype(np.uint8), fps=fps, score=score, steps=steps)


def _first_frame(env: Env, env_id: str) -> Any:
    """Draw the present state, which shows whether this machine can."""
    given = os.environ.get("MUJOCO_GL")
    headless = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    ways: tuple[str | None, ...] = (*OFF_SCREEN, None) if headless and given is None else (given,)
    faults = []
    for way in ways:
        if way is not None:
            os.environ["MUJOCO_GL"] = way  # MuJoCo's renderers are chosen by it; others do not read it
        try:
            return np.asarray(env.render())
        except Exception as error:  # each library has errors of its own, some of them plain Exceptions
            line = (str(error).splitlines() or [type(error).__name__])[0]
            if isinstance(error, ImportError) or type(error).__name__ == "DependencyNotInstalled":
                raise DataError(
                    f"{env_id} cannot be drawn: {line}; fulgurite test needs no drawing"
                ) from error
            faults.append(f"{way or 'default'}: {line}")
        finally:
            if given is None:
                os.environ.pop("MUJOCO_GL", None)
    raise DataError(
        f"{env_id} cannot be drawn on this machine ({'; '.join(dict.fromkeys(faults))}). MuJoCo needs EGL or"
        " OSMesa (apt install libegl1 libgl1-mesa-dri, or libosmesa6); fulgurite test needs no drawing"
    )
