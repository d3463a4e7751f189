"""Learning rates of a scene's parts, and knots that move once in many steps (USP-Gaussian, 2411.10504)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spiking.arguments import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zoo.models.usp_gaussian import USPGaussian

# by part: the learning rate, or those of the first and the last step; the authors'
RATES: dict[str, float | tuple[float, float]] = {
    "means": (1.6e-4, 1.6e-6),
    "base": 2.5e-3,
    "rest": 1.25e-4,
    "opacity_logits": 0.05,
    "log_scales": 5e-3,
    "quaternions": 1e-3,
    "knots": (1e-3, 1e-5),
    "recon_net": (1e-3, 1e-5),
}
OF_GAUSSIANS = ("means", "base", "rest", "opacity_logits", "log_scales", "quaternions")


def rates_of(given: Mapping[str, float | Sequence[float]] | None) -> dict[str, tuple[float, float]]:
    """First and last learning rate of every part.

    Args:
        given: by part, a rate or two; the others are the authors'.

    Raises:
        ValueError: an unknown part, or what is no positive rate.
    """
    for name, value in (given or {}).items():
        if name not in RATES:
            hint = did_you_mean(name, RATES)
            raise ValueError(f"rates has no part {name!r}; {hint}parts: {', '.join(RATES)}")
        pair = list(value) if isinstance(value, list | tuple) else [value]
        if len(pair) not in (1, 2) or not all(_is_rate(v) for v in pair):
            raise ValueError(
                f"rates: {name} is a positive rate, or those of the first and the last step, got {value!r}"
            )
    merged: dict[str, Any] = {**RATES, **(given or {})}
    pairs = {k: v if isinstance(v, list | tuple) else (v,) for k, v in merged.items()}
    return {name: (float(pair[0]), float(pair[-1])) for name, pair in pairs.items()}


def _is_rate(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def groups(
    model: USPGaussian, parts: Iterable[str], rates: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """The parameters of these parts as an optimiser takes them, one group a part."""
    found = []
    for part in parts:
        if part == "recon_net":
            parameters = list(model.recon_net.parameters())
        elif part == "knots":
            parameters = [model.trajectory.knots]
        else:
            parameters = [model.gaussians.get_parameter(part)]
        parameters = [p for p in parameters if p.numel()]  # degree 0 has no further harmonics
        if parameters:
            first, last = rates[part]
            found.append({"params": parameters, "lr": first, "final_lr": last, "name": part})
    return found


class HeldGradient(nn.Module):
    """Sums the gradient of a parameter that an optimiser steps once in ``every`` steps.

    It is a buffer, so that a run which is resumed in between loses nothing.

    Args:
        parameter: whose gradient is summed.
        every: steps.
    """

    total: Tensor

    def __init__(self, parameter: Tensor, every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"knots_every must be at least 1, got {every!r}")
        self.every = every
        self.register_buffer("total", torch.zeros_like(parameter, requires_grad=False))

    def resize(self, parameter: Tensor) -> None:
        """Begin anew if the parameter has another shape."""
        if parameter.shape != self.total.shape:
            self.total = torch.zeros_like(parameter, requires_grad=False)

    @torch.no_grad()
    def hold(self, parameter: nn.Parameter, step: int) -> None:
        """Keep the gradient back, or hand out the sum; without a gradient an optimiser passes over it.

        Args:
            parameter: after the backward.
            step: the optimiser step that comes, counted from 1.
        """
        if parameter.grad is None:
            return
        self.total += parameter.grad
        if step % self.every:
            parameter.grad = None
            return
        parameter.grad = self.total.clone()
        self.total.zero_()
