"""Images from noise: the chains of PLMS, DDIM and DPM-Solver with guidance, as diffusers computes them.

Axes: N images, C H W channels and pixels, h w pixels of the latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from spiking.arguments import integer
from zoo.models.up_diff.extra import require
from zoo.models.up_diff.noise import SETTINGS, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from zoo.models.up_diff.network import UpDiff

    Predict = Callable[[Tensor, Tensor, bool], Tensor]
    Progress = Callable[[int, int], object]

SamplerName = Literal["plms", "ddim", "dpm"]


def build_sampler(name: SamplerName, steps: int, prediction: Prediction = "epsilon") -> Any:
    """The scheduler of diffusers, set to ``steps``: t = 981, 961 ... 1 for 50 steps.

    Args:
        name: ``"plms"`` (arXiv 2202.09778), ``"ddim"`` (2010.02502) or ``"dpm"`` (DPM-Solver++, 2211.01095).
        steps: of the chain; PLMS evaluates the first one twice.
        prediction: what the network predicts.

    Raises:
        ValueError: another name, or a number of steps that makes no chain.
    """
    require("diffusers")
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

    if name not in get_args(SamplerName):
        raise ValueError(f"sampler must be 'plms', 'ddim' or 'dpm', got {name!r}")
    if integer("steps", steps) > (most := SETTINGS["num_train_timesteps"] // 2):
        raise ValueError(f"steps must be at most {most}, got {steps}")
    common = {**SETTINGS, "prediction_type": prediction, "steps_offset": 1}
    scheduler: Any
    if name == "plms":
        scheduler = PNDMScheduler(**common, skip_prk_steps=True, set_alpha_to_one=False)
    elif name == "ddim":
        scheduler = DDIMScheduler(**common, set_alpha_to_one=False, clip_sample=False)
    else:
        scheduler = DPMSolverMultistepScheduler(**common, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def denoise(
    predict: Predict,
    noise: Tensor,
    *,
    steps: int = 50,
    guidance: float = 5.0,
    sampler: SamplerName = "plms",
    prediction: Prediction = "epsilon",
    progress: Progress | None = None,
) -> Tensor:
    """Follow a chain from noise to latents ``[N, C, h, w]``.

    Args:
        predict: ``f(latents, t [N], conditional) -> [N, C, h, w]``.
        noise: ``[N, C, h, w]``.
        steps: of the chain.
        guidance: g of ``e_u + g (e_c - e_u)``; with 1 only the conditional prediction is asked for.
        sampler: see `build_sampler`.
        prediction: what ``predict`` predicts.
        progress: ``f(done, total)`` after every evaluation.

    Raises:
        ValueError: see `build_sampler`.
    """
    scheduler = build_sampler(sampler, steps, prediction)
    latents = noise
    total = len(scheduler.timesteps)
    for done, step in enumerate(scheduler.timesteps, 1):
        t = step.to(noise.device).expand(len(noise))
        made = predict(latents, t, True)
        if guidance != 1.0:
            unconditional = predict(latents, t, False)
            made = unconditional + guidance * (made - unconditional)
        latents = scheduler.step(made, step, latents, return_dict=False)[0]
        if progress is not None:
            progress(done, total)
    return latents


@torch.no_grad()
def sample(
    model: UpDiff,
    before: Tensor,
    change: Tensor,
    *,
    steps: int = 50,
    guidance: float = 5.0,
    sampler: SamplerName = "plms",
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The images after the change, ``[N, 3, H, W]`` in [-1, 1].

    The unconditional prediction takes the empty caption and the null layout, and the true input branch.

    Args:
        model: in evaluation mode.
        before: images ``[N, 3, H, W]`` in [-1, 1].
        change: ``[N, 1, H, W]``, 1 where something changes and -1 elsewhere.
        steps: of the chain.
        guidance: how strongly the layout is followed; 1 halves the work.
        sampler: see `build_sampler`.
        noise: ``[N, C, h, w]`` to start from.
        generator: draws it where it is missing.
        progress: ``f(done, total)`` after every evaluation.

    Raises:
        RuntimeError: the model has no captions yet.
        ValueError: a shape, the sampler or the number of steps is wrong.
    """
    model.require_ready()
    shown = model.condition(before, change)
    plain = shown if guidance == 1.0 else model.condition(before, change, layout=False, caption=False)
    shape = (len(before), *model.latent_shape(*before.shape[-2:]))
    if noise is None:
        where = generator.device if generator is not None else before.device
        noise = torch.randn(shape, generator=generator, device=where).to(before)
    if noise.shape != shape:
        raise ValueError(f"expected noise {shape}, got {tuple(noise.shape)}")

    def predict(latents: Tensor, t: Tensor, conditional: bool) -> Tensor:
        return model.predict(latents, t, shown if conditional else plain)

    latents = denoise(
        predict,
        noise,
        steps=steps,
        guidance=guidance,
        sampler=sampler,
        prediction=model.schedule.prediction,
        progress=progress,
    )
    return model.decode(latents).clamp(-1, 1)
