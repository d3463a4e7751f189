"""Environments that show what a test wants to see; made by ``tests.datamodules.control.toys:NAME``."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete


class Counter(gymnasium.Env):
    """Counts its steps; terminates after ``end`` of them, and does what ``fault`` says in step 3."""

    def __init__(self, end=5, fault=None, low=-2.0, high=2.0, render_mode=None):
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(low, high, (1,), np.float32)
        self.end, self.fault, self.render_mode = end, fault, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.array([0, self.np_random.random()], np.float32), {}

    def step(self, action):
        self.steps += 1
        observation = np.array([self.steps, self.np_random.random()], np.float32)
        reward = float(action[0])
        if self.steps == 3 and self.fault == "nan reward":
            reward = float("nan")
        if self.steps == 3 and self.fault == "nan observation":
            observation[1] = np.nan
        if self.steps == 3 and self.fault == "size":
            observation = np.zeros(3, np.float32)
        return observation, reward, self.steps >= self.end, False, {}


class Lever(Counter):
    """Its actions are numbers of things to do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.action_space = Discrete(3)


def register(name, *, time_limit=None, entry=Counter, **options):
    gymnasium.register(name, entry_point=entry, max_episode_steps=time_limit, kwargs=options)
    return name
