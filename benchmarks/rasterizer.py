"""How fast the rasteriser in PyTorch draws, and what it needs, against the plain formula and up to its limit.

The plain formula lets every pixel meet every Gaussian in whole tensors and leaves the backward to autograd. A
case is forward and backward of one view in degree 1; memory is the peak of the tensors alive at once.
"""

from __future__ import annotations

import argparse
import statistics
from typing import TYPE_CHECKING, Any

import torch
from _timing import arguments, environment, measure, milliseconds, peak, table

from zoo.models.usp_gaussian import Cameras, Intrinsics, Splats, TorchRasterizer, harmonics
from zoo.models.usp_gaussian.projection import project

if TYPE_CHECKING:
    from torch import Tensor

COMPARED = ((100, 32), (1_000, 64), (3_000, 128), (10_000, 128))
LIMITS = ((10_000, 128, 128), (10_000, 400, 600), (100_000, 128, 128), (100_000, 400, 600))
NAMES = ("means", "quaternions", "scales", "opacities", "harmonics")
MIB = 2**20


def scene(count: int) -> Splats:
    """Random Gaussians that fill the image, the smaller the more there are; leaves of a graph."""
    g = torch.Generator().manual_seed(0)
    size = 0.5 * count ** (-1 / 3)
    made = Splats(
        means=torch.randn(count, 3, generator=g) * torch.tensor([1.0, 0.7, 0.6]),
        quaternions=torch.randn(count, 4, generator=g),
        scales=size * torch.rand(count, 3, generator=g) + 0.1 * size,
        opacities=0.05 + 0.9 * torch.rand(count, generator=g),
        harmonics=0.5 * torch.randn(count, 4, 3, generator=g),
    )
    for name in NAMES:
        getattr(made, name).requires_grad_()
    return made


def camera(height: int, width: int) -> Cameras:
    """One that sees all of it."""
    pose = torch.eye(4).unsqueeze(0)
    pose[:, 2, 3] = 4.0
    lens = Intrinsics(fx=1.1 * width, fy=1.1 * width, cx=width / 2, cy=height / 2)
    return Cameras(world_to_camera=pose, intrinsics=lens, height=height, width=width)


def plain(splats: Splats, cameras: Cameras) -> Tensor:
    """The formula in whole tensors ``[pixels, N]``."""
    seen = project(
        splats.means, splats.quaternions, splats.scales, cameras.world_to_camera, cameras.intrinsics
    )
    order = seen.depths[0].argsort()
    xx, xy, yy = seen.covariances[0][order].unbind(-1)
    determinant = xx * yy - xy * xy
    y, x = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    dx = x.reshape(-1, 1) + 0.5 - seen.means[0, order, 0]
    dy = y.reshape(-1, 1) + 0.5 - seen.means[0, order, 1]
    form = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant
    opacity = (splats.opacities * seen.compensation[0])[order]
    alpha = (opacity * torch.exp(-0.5 * form)).clamp(max=0.99)
    ones = torch.ones_like(alpha[:, :1])
    before = torch.cumprod(torch.cat([ones, 1 - alpha[:, :-1]], dim=1), dim=1)
    color = harmonics.colors(splats.harmonics, splats.means, cameras.world_to_camera, 1)[0][order]
    return (alpha * before) @ color


def step(draw: Any, splats: Splats) -> list[Tensor]:
    """Forward and backward; the gradients."""
    return list(torch.autograd.grad(draw().square().sum(), [getattr(splats, name) for name in NAMES]))


def compare(rounds: int, largest: int) -> list[list[str]]:
    """Ours beside the plain formula."""
    rows = []
    for count, side in COMPARED:
        if count * side * side > largest:
            continue
        splats, view, ours = scene(count), camera(side, side), TorchRasterizer()
        exact = TorchRasterizer(min_alpha=1e-6)
        with torch.no_grad():
            drawn = exact(splats, view, degree=1).image.reshape(-1, 3)
            gap = float((drawn - plain(splats, view)).abs().max())
        cases = {
            "ours": lambda s=splats, v=view, o=ours: step(lambda: o(s, v, degree=1).image, s),
            "plain": lambda s=splats, v=view: step(lambda: plain(s, v), s),
        }
        heavy = count * side * side > 20_000_000
        times = measure(cases, 1 if heavy else rounds, warm_up=0 if heavy else 1)
        watched = {name: run for name, run in cases.items() if not (heavy and name == "plain")}  # minutes
        memory = {name: f"{peak(run)[0] / MIB:,.0f}" for name, run in watched.items()}
        ratio = statistics.median(times["plain"]) / statistics.median(times["ours"])
        rows.append(
            [
                f"{count:,}",
                f"{side} x {side}",
                *(milliseconds(times[name]) for name in cases),
                f"{ratio:.0f}",
                *(memory.get(name, "-") for name in cases),
                f"{gap:.0e}",
            ]
        )
    return rows


def limits(rounds: int) -> list[list[str]]:
    """Ours alone, at sizes where the plain formula does not fit."""
    rows = []
    for count, height, width in LIMITS:
        splats, view, ours = scene(count), camera(height, width), TorchRasterizer()

        def run(s: Splats = splats, v: Cameras = view, o: TorchRasterizer = ours) -> list[Tensor]:
            return step(lambda: o(s, v, degree=1).image, s)

        times = measure({"ours": run}, rounds, warm_up=1)
        memory = peak(run)[0] / MIB
        pairs = count * height * width * 4 / MIB
        size = f"{height} x {width}"
        rows.append([f"{count:,}", size, milliseconds(times["ours"]), f"{memory:,.0f}", f"{pairs:,.0f}"])
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--largest", type=int, default=200_000_000, help="pixels times Gaussians, of the plain"
    )
    args = arguments(parser)
    torch.set_num_threads(1)
    print(environment(args), "\n")
    head = ["Gaussians", "pixels", "ours, ms", "plain, ms", "ratio", "ours, MiB", "plain, MiB", "largest gap"]
    print(table(head, compare(args.rounds, args.largest)), "\n")
    head = ["Gaussians", "pixels", "ours, ms", "ours, MiB", "one number a pair, MiB"]
    print(table(head, limits(max(2, args.rounds // 2))))


if __name__ == "__main__":
    main()
