"""Spiking agents for continuous control: TD3 whose target actor is a proxy network (2505.24161)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_modules.base import BaseTask
from lightning_modules.callbacks.episode_film import EpisodeFilm
from lightning_modules.start import build
from lightning_modules.td3 import Networks, Rule, at_least, update
from spiking.neurons import Neuron
from zoo.models.proxy_target import AnalogActor, TwinCritics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning.pytorch as pl

PROBES = 1024  # remembered observations on which target and online actor are compared


class ProxyTargetTask(BaseTask):
    """Trains an agent by TD3 (1802.09477), with a proxy network or a moving average as its target actor.

    A batch is one step in the environment of a `ControlDataModule`: the agent acts, remembers, and after
    ``random_steps`` learns once for each step. Any entry of the task ``control`` can be the actor; ``target:
    polyak`` with a spiking one is the vanilla baseline, with ``proxy_target_ann`` it is TD3 itself. An epoch
    ends with an evaluation, whose mean return is ``val/return``; the best of them is what the paper reports.
    Optimisers take several steps a batch: end runs by epochs.

    Args:
        model: name of an entry of the task ``control``, see ``zoo.list_models(task="control")``.
        model_args: its arguments (``hidden``, ``time_steps``, ...).
        obs_dim: D, taken from the data on the command line, like the next two.
        act_dim: A.
        act_limit: L: actions lie in [-L, L].
        target: ``"proxy"``, a ReLU network that imitates the actor, or ``"polyak"``, an averaged copy of it.
        proxy_hidden: widths of the proxy.
        proxy_lr: learning rate of the proxy.
        proxy_steps: K, imitation steps in each call, each on a batch of its own.
        critic_hidden: widths of both critics.
        actor_lr: learning rate of the actor.
        critic_lr: learning rate of the critics.
        discount: gamma.
        tau: share by which targets move at each actor step.
        policy_noise: standard deviation of the noise on target actions, in units of L.
        noise_clip: its largest amount, in units of L.
        exploration_noise: standard deviation of the noise on actions in training, in units of L.
        policy_delay: calls between two steps of the actor.
        random_steps: steps with uniformly random actions, before anything is learnt.

    Raises:
        ValueError: a number out of its range.

    Attributes:
        env_steps: steps taken in the environment.
        updates: calls of the update rule.
    """

    method: ClassVar[str] = "TD3 with a proxy target"
    paper: ClassVar[str | None] = "2505.24161"
    curves_over: ClassVar[Literal["epoch", "step"]] = "step"
    monitor: ClassVar[str] = "val/return"
    mode: ClassVar[Literal["min", "max"]] = "max"
    output: ClassVar[str] = "episode.gif"
    curves: ClassVar[dict[str, tuple[str, ...]]] = {
        "loss": ("train/critic_loss", "train/proxy_loss"),
        "return": ("train/return", "val/return"),
    }

    def __init__(
        self,
        model: str,
        model_args: dict[str, Any] | None = None,
        obs_dim: int = 3,
        act_dim: int = 1,
        act_limit: float = 1.0,
        target: Literal["proxy", "polyak"] = "proxy",
        proxy_hidden: Sequence[int] = (512, 512),
        proxy_lr: float = 1e-3,
        proxy_steps: int = 3,
        critic_hidden: Sequence[int] = (256, 256),
        actor_lr: float = 3e-4,
        critic_lr: float = 3e-4,
        discount: float = 0.99,
        tau: float = 0.005,
        policy_noise: float = 0.2,
        noise_clip: float = 0.5,
        exploration_noise: float = 0.1,
        policy_delay: int = 2,
        random_steps: int = 25_000,
    ) -> None:
        super().__init__(optimizer="adam", lr=actor_lr, weight_decay=0.0, schedule="constant")
        if target not in ("proxy", "polyak"):
            raise ValueError(f"target must be 'proxy' or 'polyak', got {target!r}")
        at_least(0, proxy_lr=proxy_lr, critic_lr=critic_lr, random_steps=random_steps)
        at_least(0, exploration_noise=exploration_noise)
        at_least(1, proxy_steps=proxy_steps)
        self.save_hyperparameters()
        self.automatic_optimization = False
        sizes = {"obs_dim": obs_dim, "act_dim": act_dim, "act_limit": act_limit}
        self.entry: dict[str, Any] = {"model": model, "model_args": {**sizes, **(model_args or {})}}
        self.model: Any = build(model, self.entry["model_args"])
        self.target_actor: Any = (
            AnalogActor(obs_dim, act_dim, act_limit, tuple(proxy_hidden))
            if target == "proxy"
            else copy.deepcopy(self.model)
        )
        self.critics: Any = TwinCritics(obs_dim, act_dim, tuple(critic_hidden))
        self.target_critics = copy.deepcopy(self.critics)
        for frozen in (self.target_critics, *(() if target == "proxy" else (self.target_actor,))):
            frozen.requires_grad_(False)
        self.rule = Rule(
            act_limit=act_limit,
            proxy=target == "proxy",
            discount=discount,
            tau=tau,
            policy_noise=policy_noise,
            noise_clip=noise_clip,
            policy_delay=policy_delay,
        )
        self.env_steps = self.updates = 0
        self._log_every = 50
        self._returns, self._lengths = list[float](), list[int]()

    # -- what it is ----------------------------------------------------------------------------

    @override
    def trained_by(self) -> tuple[str, str | None]:
        if self.hparams["target"] == "proxy":
            return super().trained_by()
        spiking = any(isinstance(module, Neuron) for module in self.model.modules())
        return f"TD3 with {'a spiking actor' if spiking else 'an ANN as actor'}", "1802.09477"

    @override
    def prediction_callbacks(
        self,
        output: Path,
        *,
        class_names: Sequence[str] = (),
        top_k: int = 5,
        explain: Literal["tokens"] | None = None,
    ) -> list[pl.Callback]:
        if explain is not None:
            raise ValueError(f"explain: {explain} needs images; an agent has none")
        return [EpisodeFilm(output)]

    @property
    def world(self) -> Any:
        """The data module that holds the environment.

        Raises:
            ValueError: the data are something else.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "act") or not hasattr(data, "play"):
            raise ValueError(
                f"an agent acts in an environment: take a ControlDataModule, not {type(data).__name__}"
            )
        return data

    # -- training ------------------------------------------------------------------------------

    @override
    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters())}]

    @override
    def configure_optimizers(self) -> Any:
        hyper = self.hparams
        learnt = [(self.parameter_groups(), "actor_lr"), (self.critics.parameters(), "critic_lr")]
        if hyper["target"] == "proxy":
            learnt.append((self.target_actor.parameters(), "proxy_lr"))
        # fused: one pass over a network's weights, not eleven
        return [torch.optim.Adam(parameters, lr=hyper[rate], fused=True) for parameters, rate in learnt]

    @override
    def on_train_start(self) -> None:
        """Make the environment, or bring it back to where the checkpoint left it."""
        super().on_train_start()
        if self.trainer.max_steps != -1:
            raise ValueError(
                "trainer.max_steps counts the steps of all optimisers, several for each one in the"
                " environment; set trainer.max_epochs, epochs of data.init_args.steps_per_epoch steps"
            )
        path = self.trainer.ckpt_path
        self._log_every = max(1, int(getattr(self.trainer, "log_every_n_steps", 50)))
        self.world.begin(Path(path) if path and "://" not in str(path) else None)

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Act once, and learn once when there is enough to learn from."""
        world, hyper = self.world, self.hparams
        episodes = world.training.episodes
        world.act(self._action(world))
        self.env_steps += 1
        losses = self._learn(world) if self.env_steps > hyper["random_steps"] else {}
        if world.training.episodes != episodes:
            self.log("train/return", world.training.finished, prog_bar=True)
        if losses and self.env_steps % self._log_every == 0:
            self.require_finite(torch.stack(list(losses.values())).sum())
            self.log_dict({f"train/{name}_loss": value for name, value in losses.items()})
            self.log("train/env_steps", float(self.env_steps))

    def _action(self, world: Any) -> Any:
        """What to do now: anything at first, then the actor's action with noise. ``[A]``, NumPy."""
        limit, size = float(self.hparams["act_limit"]), int(self.hparams["act_dim"])
        if self.env_steps < self.hparams["random_steps"]:
            return world.random.uniform(-limit, limit, size).astype(np.float32)
        with torch.no_grad():
            observation = torch.from_numpy(world.training.observation).to(self.device)
            action = self.model(observation.unsqueeze(0))[0].cpu().numpy()
        noise = world.random.normal(0.0, self.hparams["exploration_noise"] * limit, size)
        return np.clip(action + noise, -limit, limit).astype(np.float32)

    def _learn(self, world: Any) -> dict[str, Tensor]:
        """One call of the update rule."""
        steps = self.hparams["proxy_steps"] if self.rule.proxy else 1
        batches = [self._moved(world.sample()) for _ in range(steps)]
        drawn = world.random.standard_normal(batches[-1].action.shape, dtype=np.float32)
        optimizers: Any = self.optimizers()
        self.updates += 1
        return update(
            self.networks,
            self.rule,
            batches,
            torch.from_numpy(drawn).to(self.device),
            dict(zip(("actor", "critic", "proxy"), optimizers, strict=False)),
            self.updates,
        )

    @property
    def networks(self) -> Networks:
        """What takes part in the update rule."""
        return Networks(
            actor=self.model,
            target_actor=self.target_actor,
            critics=self.critics,
            target_critics=self.target_critics,
        )

    def _moved(self, batch: Any) -> Any:
        if self.device.type == "cpu":
            return batch
        return type(batch)(**{k: v.to(self.device, non_blocking=True) for k, v in vars(batch).items()})

    # -- evaluation ----------------------------------------------------------------------------

    def forward(self, observations: Tensor) -> Tensor:
        """Observations ``[B, D]`` -> actions ``[B, A]``."""
        actions: Tensor = self.model(observations.to(self.device))
        return actions

    @override
    def on_validation_epoch_start(self) -> None:
        self._returns, self._lengths = [], []

    @override
    def on_test_epoch_start(self) -> None:
        self._returns, self._lengths = [], []

    @override
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Play whole episodes side by side, without noise."""
        returns, lengths = self.world.play(self, batch[0].tolist())
        self._returns += returns
        self._lengths += lengths

    @override
    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The same as in validation."""
        self.validation_step(batch, batch_idx)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_episodes("val")
        if (gap := self._gap()) is not None:
            self.log("val/target_mse", gap)

    @override
    def on_test_epoch_end(self) -> None:
        self._log_episodes("test")

    def _log_episodes(self, stage: str) -> None:
        returns = np.asarray(self._returns)
        self.log(f"{stage}/return", float(returns.mean()), prog_bar=True)
        self.log(f"{stage}/return_std", float(returns.std()))
        self.log(f"{stage}/episode_steps", float(np.mean(self._lengths)))

    def _gap(self) -> float | None:
        """Mean squared difference of target and online actor on remembered observations."""
        replay = getattr(self.world, "replay", None)
        if replay is None or not len(replay) or not self.updates:
            return None
        probes = replay.sample(PROBES, np.random.default_rng(self.env_steps)).observation.to(self.device)
        with torch.no_grad():
            return float(nn.functional.mse_loss(self.target_actor(probes), self.model(probes)))

    @override
    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        """Play an episode that is filmed: frames ``[N, H, W, 3]``, bytes, and its return."""
        return self.world.film(self, int(batch[0][0]))

    # -- checkpoints ---------------------------------------------------------------------------

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["entry"] = self.restored_arguments(self.entry, {})
        checkpoint["origin"] = getattr(self.model, "origin", None) or {}
        checkpoint["logged_steps"] = self.env_steps
        checkpoint["updates"] = self.updates

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.env_steps, self.updates = checkpoint["logged_steps"], checkpoint["updates"]
        self.model.origin = checkpoint["origin"]
