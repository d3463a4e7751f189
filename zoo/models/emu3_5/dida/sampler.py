"""An image drawn at once: all its codes begin as noise and are refined together in a few passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.models.emu3_5.dida.path import NoisePath, draw, jump, time_grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator


@dataclass(frozen=True, kw_only=True)
class Denoising:
    """How an image is refined.

    Attributes:
        passes: of the network; the last one draws the image.
        form: what happens between two passes. ``"jump"``: codes jump towards the drawn image at the rates of
            the path (URSA's step). ``"renoise"``: the drawn image is corrupted anew, to the next time.
        temperature: of the drawing; below 1 favours likely codes.
        guidance: scale of classifier-free guidance; 1 is without.
        guided_until: time from which on no guidance is used.
        shift: of the times, see `time_grid`.

    Raises:
        ValueError: a value that makes no sense, named.
    """

    passes: int = 8
    form: Literal["jump", "renoise"] = "renoise"
    temperature: float = 1.0
    guidance: float = 1.0
    guided_until: float = 0.9
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.form not in ("jump", "renoise"):
            raise ValueError(f"form must be 'jump' or 'renoise', got {self.form!r}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        time_grid(self.passes, self.shift)


def denoise(
    predict: Callable[[Tensor, float], Tensor],
    path: NoisePath,
    shape: tuple[int, int],
    settings: Denoising,
    generator: Generator | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw images.

    Args:
        predict: logits ``[B, N, K]`` of the clean codes, from noisy ones ``[B, N]`` and the time.
        path: of the noise.
        shape: (B, N).
        settings: how.
        generator: of the random numbers.
        device: where the codes live.
        progress: told the passes done and their number after each.

    Returns:
        Codes ``[B, N]``, counted from 0.
    """
    times = torch.cat([time_grid(settings.passes, settings.shift), torch.ones(1, dtype=torch.float64)])
    codes = torch.randint(path.codes, shape, generator=generator, device=device)
    for step in range(settings.passes):
        now, ahead = float(times[step]), float(times[step + 1])
        logits = predict(codes, now).float() / settings.temperature
        clean = draw(torch.softmax(logits, -1), generator)
        if step + 1 == settings.passes:
            codes = clean
        elif settings.form == "renoise":
            codes = path.corrupt(clean, torch.tensor(ahead, device=device), generator)
        else:
            t, dt = torch.tensor([now, ahead - now], device=device)
            codes = jump(path, codes, clean, t, dt, generator)
        if progress is not None:
            progress(step + 1, settings.passes)
    return codes
