"""A scene is built, saved and loaded with as many Gaussians as it has by then."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.models.usp_gaussian import Intrinsics
from zoo.models.usp_gaussian.gaussians import distances

SMALL = {"num_gaussians": 5, "num_views": 2, "sh_degree": 1, "recon_net": {"channels": [4, 8, 4, 4]}}
LENS = Intrinsics(fx=20.0, fy=20.0, cx=8.0, cy=6.0)


def build(**kwargs):
    torch.manual_seed(0)
    return zoo.create("usp-gaussian", **{**SMALL, **kwargs})


def pose():
    """A camera at (0, 0, 4) that looks back along -z, nerfstudio's way."""
    found = torch.eye(4)
    found[2, 3] = 4.0
    return found


def test_it_draws_what_is_in_front_of_it():
    model = build(num_gaussians=1)
    points = torch.tensor([[0.3, 0.3, 0.0]])
    model.gaussians.start_from(points, torch.ones(1, 3), opacity=0.9, scale=0.1)
    with torch.no_grad():
        model.trajectory.knots.zero_()
    seen = model.cameras(pose(), 0, [0.0, 1.0], LENS, (12, 16))
    drawn = model(seen)
    assert drawn.image.shape == (2, 12, 16, 3)
    torch.testing.assert_close(drawn.means[0, 0], torch.tensor([8 + 20 * 0.3 / 4, 6 - 20 * 0.3 / 4]))
    brightest = int(drawn.image[0, :, :, 0].flatten().argmax())
    assert divmod(brightest, 16) == (4, 9)  # to the right, and above the middle


def test_poses_get_gradients():
    model = build()
    seen = model.cameras(pose(), 1, [0.0, 0.5, 1.0], LENS, (12, 16))
    model(seen).image.square().sum().backward()
    assert model.trajectory.knots.grad[1].abs().sum() > 0
    assert not model.trajectory.knots.grad[0].any()


def test_a_point_cloud_becomes_gaussians():
    model = build()
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [5, 5, 5]])
    model.gaussians.start_from(points, torch.full((5, 3), 0.25), opacity=0.1)
    torch.testing.assert_close(model.gaussians.scales[0], torch.ones(3))
    torch.testing.assert_close(model.gaussians.opacities, torch.full((5,), 0.1))
    model.note_sizes()
    assert (model.num_gaussians, model.model_args["num_gaussians"]) == (5, 5)
    with pytest.raises(ValueError, match=r"starts from finite points \[P, 3\] with P of at least 1"):
        model.gaussians.start_from(torch.zeros(0, 3), torch.zeros(0, 3))
    assert distances(torch.zeros(1, 3)).tolist() == [1.0]
    assert distances(torch.zeros(4, 3)).gt(0).all()


def test_it_comes_back_from_its_folder(tmp_path):
    model = build()
    model.resize(9, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    again = zoo.load(f"local-dir:{zoo.save(model, tmp_path / 'scene')}")
    assert (again.num_gaussians, again.num_views) == (9, 3)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_state_of_another_size_makes_room_for_itself():
    model, other = build(num_gaussians=7, num_views=4), build()
    other.load_state_dict(model.state_dict())
    assert (other.num_gaussians, other.num_views) == (7, 4)
    assert other.model_args["num_gaussians"] == 7
    assert torch.equal(other.gaussians.means, model.gaussians.means)


def test_a_spiking_recon_net_is_an_argument():
    model = build(recon_net={"channels": [4, 8, 4, 4], "neuron": "lif", "time_steps": 3})
    assert model.takes_time_steps
    assert model.time_steps == 3
    assert not build().takes_time_steps


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_gaussians": 0}, "num_gaussians must be at least 1, got 0"),
        ({"sh_degree": 4}, "sh_degree must be from 0 to 3, got 4"),
        ({"rasterizer": "cpu"}, "rasterizer must be 'auto', 'torch' or 'gsplat', got 'cpu'"),
        ({"trajectory": "spline"}, "unknown trajectory 'spline'"),
        ({"num_views": 0}, "views must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)
