"""The rasteriser is the plain formula, in less time and memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.oracles.splatting import splat
from zoo.models.usp_gaussian import harmonics
from zoo.models.usp_gaussian.backends import choose
from zoo.models.usp_gaussian.projection import Intrinsics
from zoo.models.usp_gaussian.rasterizer import Cameras, Splats, TorchRasterizer

NAMES = ("means", "quaternions", "scales", "opacities", "harmonics")


def random_splats(count, degree=1, seed=0, spread=(0.05, 0.3)):
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    low, high = spread
    return Splats(
        means=normal(count, 3) * torch.tensor([1.0, 0.7, 0.6]),
        quaternions=normal(count, 4),
        scales=low + (high - low) * uniform(count, 3),
        opacities=0.05 + 0.94 * uniform(count),
        harmonics=0.5 * normal(count, harmonics.count(degree), 3),
    )


def cameras(views=2, height=18, width=21, focal=20.0):
    poses = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    angle = torch.linspace(-0.2, 0.2, views, dtype=torch.float64) if views > 1 else torch.zeros(1)
    poses[:, 0, 0], poses[:, 2, 2] = angle.cos(), angle.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angle.sin(), -angle.sin()
    poses[:, 2, 3] = 4.0
    lens = Intrinsics(fx=focal, fy=1.1 * focal, cx=width / 2 + 0.3, cy=height / 2)
    return Cameras(world_to_camera=poses, intrinsics=lens, height=height, width=width)


def one(mean, *, opacity=0.9, scale=0.3, color=(1.0, 1.0, 1.0)):
    base = (torch.tensor([color], dtype=torch.float64) - 0.5) / harmonics.C0
    return Splats(
        means=torch.tensor([mean], dtype=torch.float64),
        quaternions=torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64),
        scales=torch.full((1, 3), scale, dtype=torch.float64),
        opacities=torch.tensor([opacity], dtype=torch.float64),
        harmonics=base.unsqueeze(1),
    )


def together(*parts):
    return Splats(**{name: torch.cat([getattr(p, name) for p in parts]) for name in NAMES})


@pytest.mark.parametrize("antialiased", [True, False])
@pytest.mark.parametrize("tile", [5, 8, 64])
def test_equals_the_plain_formula_and_its_gradients(antialiased, tile):
    splats, views = random_splats(25), cameras()
    leaves = [getattr(splats, name).requires_grad_() for name in NAMES]
    leaves.append(views.world_to_camera.requires_grad_())
    draw = TorchRasterizer(antialiased=antialiased, tile=tile)
    got = draw(splats, views, degree=1)
    colors = harmonics.colors(splats.harmonics, splats.means, views.world_to_camera, 1)
    want, total = splat(splats, views, colors, min_alpha=1 / 255, antialiased=antialiased)
    torch.testing.assert_close(got.image, want, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(got.alpha[..., 0], total, atol=1e-12, rtol=1e-10)
    weights = torch.randn_like(want)
    found = torch.autograd.grad((got.image * weights).sum() + (got.alpha[..., 0] ** 2).sum(), leaves)
    expected = torch.autograd.grad((want * weights).sum() + (total**2).sum(), leaves)
    for name, a, b in zip((*NAMES, "poses"), found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_gradients_against_differences():
    splats, views = random_splats(6, seed=3), cameras(views=1, height=7, width=6, focal=6.0)
    draw = TorchRasterizer(min_alpha=1e-9, tile=4)
    back = torch.tensor([0.3, 0.6, 0.1], dtype=torch.float64)

    def run(*values):
        *parts, poses, background = values
        scene = Splats(**dict(zip(NAMES, parts, strict=True)))
        drawn = draw(
            scene, dataclasses.replace(views, world_to_camera=poses), degree=1, background=background
        )
        return drawn.image, drawn.alpha

    leaves = [*(getattr(splats, name) for name in NAMES), views.world_to_camera, back]
    assert torch.autograd.gradcheck(run, [leaf.requires_grad_() for leaf in leaves], fast_mode=False)


def test_single_precision_stays_near():
    splats, views = random_splats(300), cameras(height=40, width=50, focal=50.0)
    single = Splats(**{name: getattr(splats, name).float() for name in NAMES})
    poses = dataclasses.replace(views, world_to_camera=views.world_to_camera.float())
    draw = TorchRasterizer(min_alpha=1e-6)
    near, exact = draw(single, poses, degree=1).image, draw(splats, views, degree=1).image
    torch.testing.assert_close(near.double(), exact, atol=2e-5, rtol=0)


def test_an_opaque_gaussian_hides_what_is_behind():
    views = cameras(views=1)
    front = one((0, 0, -1), opacity=1.0, scale=0.8, color=(1, 0, 0))
    behind = one((0, 0, 1), opacity=1.0, scale=0.5, color=(0, 1, 0))
    draw = TorchRasterizer()
    middle = (0, views.height // 2, views.width // 2)
    assert draw(behind, views).image[middle][1] > 0.9
    for order in ((front, behind), (behind, front)):
        seen = draw(together(*order), views).image[middle]
        assert seen[0] > 0.98
        assert seen[1] < 0.02  # alpha is held at 0.99, and the pixel is half a pixel off the centre


def test_order_of_the_gaussians_changes_nothing():
    splats, views = random_splats(80), cameras()
    order = torch.randperm(80)
    other = Splats(**{name: getattr(splats, name)[order] for name in NAMES})
    draw = TorchRasterizer()
    a, b = draw(splats, views, degree=1), draw(other, views, degree=1)
    torch.testing.assert_close(a.image, b.image, atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(a.radii[:, order], b.radii)


def test_weights_sum_to_at_most_one():
    drawn = TorchRasterizer()(random_splats(500, spread=(0.3, 0.6)), cameras())
    assert drawn.alpha.min() >= 0
    assert drawn.alpha.max() <= 1
    assert drawn.alpha.max() > 0.999


def test_a_camera_moved_by_a_pixel_moves_the_image_by_a_pixel():
    views = cameras(views=1, height=20, width=30)
    flat = together(*(one((x, y, 0), scale=0.15) for x, y in ((0, 0), (0.4, -0.3), (-0.5, 0.2))))
    draw = TorchRasterizer()
    moved = views.world_to_camera.clone()
    moved[:, 0, 3] += 4.0 / views.intrinsics.fx  # depth 4: one pixel to the right
    before = draw(flat, views).image
    after = draw(flat, dataclasses.replace(views, world_to_camera=moved)).image
    # perspective shears the ellipses a little, and contributions below 1/255 come and go
    torch.testing.assert_close(after[:, 6:-6, 7:-6], before[:, 6:-6, 6:-7], atol=1 / 255, rtol=0)
    assert (after - before).abs().max() > 0.05


def test_what_is_behind_the_camera_or_beside_the_image_is_not_drawn():
    views = cameras(views=1)
    lost = together(one((0, 0, -5)), one((0, 0, -4)), one((90, 0, 0)))
    means = lost.means.requires_grad_()
    drawn = TorchRasterizer()(lost, views, background=torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
    assert torch.equal(drawn.image[0, 3, 5], torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
    assert torch.equal(drawn.image, drawn.image[:, :1, :1].expand_as(drawn.image))
    assert drawn.radii[0, :2].tolist() == [0, 0]
    drawn.image.sum().backward()
    assert torch.equal(means.grad, torch.zeros_like(means))


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that an operation returned."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.most = max(self.most, value.numel())
        return out


def test_no_tensor_has_a_number_for_each_pixel_and_gaussian():
    splats, views = random_splats(3000, spread=(0.01, 0.05)), cameras(views=1, height=96, width=96, focal=90)
    leaves = [getattr(splats, name).requires_grad_() for name in NAMES]
    with Largest() as seen:
        torch.autograd.grad(TorchRasterizer()(splats, views).image.sum(), leaves)
    assert 100_000 < seen.most < 3000 * 96 * 96 / 50


def test_harmonics_are_orthonormal():
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=g), dim=-1)
    values = harmonics.functions(directions.double(), harmonics.MAX_DEGREE)
    products = values.T @ values * (4 * torch.pi / len(values))
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64), atol=0.02, rtol=0)
    for degree in range(3):
        assert torch.equal(harmonics.functions(directions.double(), degree), values[:, : (degree + 1) ** 2])


def test_wrong_settings_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="min_alpha must be between 0 and 1, got 0"):
        TorchRasterizer(min_alpha=0)
    with pytest.raises(ValueError, match="tile must be at least 1 pixel, got 0"):
        TorchRasterizer(tile=0)
    cpu = torch.device("cpu")
    assert isinstance(choose("auto", cpu), TorchRasterizer)
    with pytest.raises(ValueError, match="rasterizer must be 'auto', 'torch' or 'gsplat', got 'cuda'"):
        choose("cuda", cpu)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fulgurite\[splat\]'"):
        choose("gsplat", cpu)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device, and torch sees none"):
        choose("gsplat", cpu)
