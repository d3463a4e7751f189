"""Adding Gaussians where the image asks for more, and taking away what nobody sees (as splatfacto does).

Source: splatfacto of nerfstudio 1.0.3, with the settings of BAD-Gaussians (arXiv 2403.11831), which
USP-Gaussian (arXiv 2411.10504) builds on. Axes: V views, N Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.usp_gaussian.projection import rotation_matrices

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from zoo.models.usp_gaussian.gaussians import Gaussians
    from zoo.models.usp_gaussian.rasterizer import Rendering

SHRINK = 1.6  # what the halves of a Gaussian are smaller by
HALVES = 2


class NoGaussiansError(RuntimeError):
    """Nothing is left of the scene."""


@dataclass(frozen=True, kw_only=True)
class Densification:
    """When Gaussians are added and taken away; the defaults are the authors', for 13 virtual views.

    Attributes:
        start: steps before the first time.
        every: steps between two times.
        stop: from this step on the number stays.
        min_opacity: what is fainter goes.
        gradient: of the centre on the image, in half images a unit of loss, mean over views: above it a
            Gaussian is cloned or split.
        size: standard deviation, units of the scene, that parts clones (below) from splits.
        max_size: what is larger goes, once opacities have been reset.
        screen_split: share of the image above which a Gaussian is split, too.
        screen_max: share of the image above which it goes, once opacities have been reset.
        screen_stop: from this step on shares of the image do not matter.
        reset_every: opacities are reset once in so many times; to twice ``min_opacity``.
    """

    start: int = 500
    every: int = 100
    stop: int = 15_000
    min_opacity: float = 0.005
    gradient: float = 4e-4 / 13
    size: float = 0.01
    max_size: float = 0.5
    screen_split: float = 0.05
    screen_max: float = 0.15
    screen_stop: int = 4000
    reset_every: int = 30

    def __post_init__(self) -> None:
        for name in ("every", "reset_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"densification: {name} must be at least 1, got {getattr(self, name)!r}")
        if not 0 <= self.min_opacity < 0.5:
            raise ValueError(f"densification: min_opacity must be in [0, 0.5), got {self.min_opacity!r}")


class Count(NamedTuple):
    """What one refinement did."""

    cloned: int = 0
    split: int = 0
    pruned: int = 0


class Densifier(nn.Module):
    """Watches the gradients of the centres, and refines the Gaussians by them.

    Args:
        settings: when and how.
        count: N.

    Attributes:
        gradients: sums over the views that show a Gaussian, since the last refinement ``[N]``.
        seen: their number ``[N]``.
        screen: largest share of an image ``[N]``.
    """

    gradients: Tensor
    seen: Tensor
    screen: Tensor

    def __init__(self, settings: Densification, count: int) -> None:
        super().__init__()
        self.settings = settings
        for name in ("gradients", "seen", "screen"):
            self.register_buffer(name, torch.zeros(count))

    def resize(self, count: int) -> None:
        """Begin to watch ``count`` Gaussians."""
        for name, value in list(self.named_buffers()):
            setattr(self, name, value.new_zeros(count))

    @torch.no_grad()
    def watch(self, rendering: Rendering, step: int) -> None:
        """Take note of a rendering after its backward, whose ``means`` have kept their gradient.

        Args:
            rendering: V views.
            step: optimiser steps done.
        """
        grad = rendering.means.grad
        if step >= self.settings.stop or grad is None:
            return
        drawn = rendering.radii > 0
        longest = max(rendering.image.shape[1:3])
        self.gradients += (grad.norm(dim=-1) * drawn).sum(0) * (0.5 * longest)
        self.seen += drawn.sum(0)
        self.screen.copy_(torch.maximum(self.screen, rendering.radii.amax(dim=0) / longest))

    @torch.no_grad()
    def refine(self, gaussians: Gaussians, optimizer: Optimizer, step: int, views: int) -> Count | None:
        """Clone, split, prune and reset opacities if it is time to.

        Args:
            gaussians: the scene.
            optimizer: whose state follows its parameters.
            step: optimiser steps done.
            views: of the training; so many steps after a reset nothing is added.

        Returns:
            What was done; None if it was not the time.

        Raises:
            NoGaussiansError: all of them would go.
        """
        s = self.settings
        if step <= s.start or step % s.every or step >= s.stop:
            return None
        cycle, count = s.reset_every * s.every, None
        if step % cycle > views + s.every:
            count = self._renew(gaussians, optimizer, step)
        if step % cycle == s.every:
            _reset_opacities(gaussians, optimizer, 2 * s.min_opacity)
        self.resize(len(gaussians))
        return count or Count()

    def _renew(self, gaussians: Gaussians, optimizer: Optimizer, step: int) -> Count:
        s = self.settings
        device, present = self.seen.device, len(gaussians)
        wanted = self.gradients / self.seen.clamp_min(1) > s.gradient
        large = gaussians.scales.amax(dim=1) > s.size
        split = wanted & (large | (self.screen > s.screen_split) & (step < s.screen_stop))
        clone = wanted & ~large
        halves = split.nonzero()[:, 0].repeat(HALVES)
        source = torch.cat([torch.arange(present, device=device), halves, clone.nonzero()[:, 0]])
        changes = _Halves(gaussians, halves, first=present)
        fresh = torch.arange(len(source), device=device) >= present
        sizes, screen = gaussians.scales.amax(dim=1)[source], self.screen[source] * ~fresh
        sizes[present : present + len(halves)] /= SHRINK
        kept = gaussians.opacities[source] >= s.min_opacity
        if step > s.reset_every * s.every:
            kept &= sizes <= s.max_size
            if step < s.screen_stop:
                kept &= screen <= s.screen_max
        kept[:present] &= ~split
        if not bool(kept.any()):
            raise NoGaussiansError(
                f"no Gaussians are left at step {step}: all {present} were pruned (opacity below"
                f" {s.min_opacity:g}, or larger than {s.max_size:g}); lower densification.min_opacity, raise"
                " max_size, or begin later with start. The last checkpoint is whole"
            )
        rearrange(gaussians, optimizer, source[kept], fresh[kept], changes.of(kept))
        pruned = int((~kept[:present] & ~split).sum())
        return Count(int(clone.sum()), int(split.sum()), pruned)


class _Halves:
    """Means and sizes of the parts of split Gaussians."""

    def __init__(self, gaussians: Gaussians, which: Tensor, first: int) -> None:
        sizes, turns = gaussians.scales[which], rotation_matrices(gaussians.quaternions[which])
        away = torch.einsum("nij,nj->ni", turns, sizes * torch.randn_like(sizes))
        self.values = {"means": gaussians.means[which] + away, "log_scales": (sizes / SHRINK).log()}
        self.first = first

    def of(self, kept: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Per parameter: places among the Gaussians that are kept, and values there."""
        last = self.first + len(self.values["means"])
        mine = kept[self.first : last]
        places = (kept.cumsum(0) - 1)[self.first : last][mine]
        return {name: (places, value[mine]) for name, value in self.values.items()}


@torch.no_grad()
def rearrange(
    gaussians: Gaussians,
    optimizer: Optimizer,
    source: Tensor,
    fresh: Tensor,
    values: dict[str, tuple[Tensor, Tensor]] | None = None,
) -> None:
    """Replace the Gaussians by some of them, and have the optimiser go on with the new parameters.

    Args:
        gaussians: the scene.
        optimizer: moments of Gaussians that stay are kept, those of new ones are 0.
        source: numbers of the present Gaussians that the new ones are made of ``[N']``.
        fresh: which of them are new ``[N']``.
        values: by parameter, places among the new ones and values there.
    """
    old = dict(gaussians.named_parameters())
    for name, value in old.items():
        chosen = value[source]
        if values and name in values:
            places, given = values[name]
            chosen[places] = given
        new = gaussians.put(name, chosen)
        for group in optimizer.param_groups:
            group["params"] = [new if p is value else p for p in group["params"]]
        state = optimizer.state.pop(value, None)
        if state is not None:
            optimizer.state[new] = {
                key: _moments(moment, value, source, fresh) for key, moment in state.items()
            }


def _moments(moment: object, parameter: Tensor, source: Tensor, fresh: Tensor) -> object:
    """A moment of an optimiser for the new parameter; what is no tensor of its shape stays."""
    if not isinstance(moment, Tensor) or moment.shape != parameter.shape or not moment.dim():
        return moment
    chosen = moment[source]
    chosen[fresh] = 0
    return chosen


def _reset_opacities(gaussians: Gaussians, optimizer: Optimizer, most: float) -> None:
    """Hold opacities down, so that those which matter have to rise again."""
    logits = gaussians.opacity_logits
    logits.clamp_(max=float(torch.tensor(most).logit()))
    for moment in optimizer.state.get(logits, {}).values():
        if isinstance(moment, Tensor) and moment.shape == logits.shape:
            moment.zero_()
