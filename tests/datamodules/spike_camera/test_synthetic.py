"""The made-up scene: what is filmed, and what the data module hands out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import DataError, SyntheticSpikeSceneDataModule
from datamodules.spike_camera import simulate
from datamodules.spike_camera.render import Gaussians, render
from datamodules.spike_camera.synthetic import Recipe, make_scene, rigid
from spiking import camera
from zoo.models.usp_gaussian import harmonics
from zoo.models.usp_gaussian.projection import Intrinsics
from zoo.models.usp_gaussian.rasterizer import Cameras, Splats, TorchRasterizer

SMALL = {"views": 3, "height": 12, "width": 16, "gaussians": 10}


def test_its_renderer_is_that_of_the_zoo():
    draw = np.random.default_rng(0)
    count = 25
    scene = Gaussians(
        means=draw.normal(size=(count, 3)) * 0.7,
        scales=draw.uniform(0.05, 0.3, (count, 3)),
        quaternions=draw.normal(size=(count, 4)),
        opacities=draw.uniform(0.1, 0.95, count),
        grey=draw.uniform(size=count),
    )
    pose = rigid([0.1, -0.2, 4.0, 0.05, -0.1, 0.2])
    image = render(scene, pose, (30.0, 33.0, 15.0, 13.0), 24, 32)
    inside = np.linalg.inv(pose @ np.diag([1.0, -1, -1, 1]))
    splats = Splats(
        means=torch.from_numpy(scene.means),
        quaternions=torch.from_numpy(scene.quaternions),
        scales=torch.from_numpy(scene.scales),
        opacities=torch.from_numpy(scene.opacities),
        harmonics=torch.from_numpy(scene.grey - 0.5)[:, None, None] / harmonics.C0,
    )
    cameras = Cameras(
        world_to_camera=torch.from_numpy(inside)[None],
        intrinsics=Intrinsics(fx=30.0, fy=33.0, cx=15.0, cy=13.0),
        height=24,
        width=32,
    )
    drawn = TorchRasterizer(antialiased=False, min_alpha=1e-6)(splats, cameras).image[0, :, :, 0]
    assert image.max() > 0.2
    assert abs(drawn.numpy() - image).max() < 1e-4


def test_scenes_differ_by_their_seed_alone():
    (scene, views), (again, same) = (make_scene(Recipe(seed=3, **SMALL)) for _ in range(2))
    assert torch.equal(scene.camera_to_world, again.camera_to_world)
    assert torch.equal(scene.points, again.points)
    assert all(np.array_equal(a.stream, b.stream) for a, b in zip(views, same, strict=True))
    other, _ = make_scene(Recipe(seed=4, **SMALL))
    assert not torch.equal(scene.points, other.points)
    assert torch.equal(scene.camera_to_world, other.camera_to_world)
    wrong, moved = make_scene(Recipe(seed=3, pose_noise=(0.05, 0.01), **SMALL))
    assert np.array_equal(moved[1].stream, views[1].stream)  # only what is known of the poses differs
    off = torch.linalg.inv(scene.camera_to_world.double()) @ wrong.camera_to_world.double()
    assert 0.01 < off[:, :3, 3].norm(dim=-1).mean() < 0.2
    assert torch.equal(scene.points, wrong.points)


def test_cameras_look_at_the_scene():
    scene, _ = make_scene(Recipe(**SMALL))
    for pose in scene.camera_to_world:
        ahead = pose[:3, 3] - 4 * pose[:3, 2]  # along -z
        torch.testing.assert_close(ahead, torch.zeros(3), rtol=0, atol=1e-5)
        assert pose[1, 1] == 1  # upright
    first, second = scene.camera_to_world[:2, :3, 2]
    assert float(torch.acos(first @ second)) == pytest.approx(0.14, abs=1e-4)


def test_spikes_are_those_of_the_true_frames():
    _, views = make_scene(Recipe(noise_interval=None, **SMALL))
    stream, (images, frames) = views[1].spikes(), views[1].sharp()
    assert frames == tuple(camera.virtual_frames(13))
    assert images.min() >= 0
    assert images.max() <= 1
    rate = camera.tfp(torch.from_numpy(stream), 80, 96).numpy() / camera.RATE
    assert abs(rate - images[6]).mean() < 0.1
    assert abs(rate - images[6]).mean() < abs(rate - images[0]).mean()
    _, noisy = make_scene(Recipe(**SMALL))
    # before the first view's noise nothing differs, and noise only adds spikes
    extra = noisy[0].stream.astype(int) - views[0].stream
    assert extra.min() == 0
    assert extra.sum() == pytest.approx(views[0].stream.size / 140, rel=0.3)


def test_constants_agree_with_those_of_tasks():
    assert (simulate.GAIN, simulate.THRESHOLD) == (camera.GAIN, camera.THRESHOLD)


def test_the_data_module():
    data = SyntheticSpikeSceneDataModule(**SMALL, seed=1)
    with pytest.raises(DataError, match="call setup"):
        _ = data.scene
    data.setup("fit")
    data.setup("test")
    scene = data.scene
    assert scene.camera_to_world.shape == (3, 4, 4)
    assert scene.points.shape == (10, 3)
    seen = []
    for batch in data.train_dataloader():
        assert {k: (tuple(v.shape), v.dtype) for k, v in batch.items()} == {
            "spikes": ((1, 177, 12, 16), torch.uint8),
            "view": ((1,), torch.int64),
            "camera_to_world": ((1, 4, 4), torch.float32),
            "sharp": ((1, 13, 12, 16), torch.float32),
            "sharp_frames": ((1, 13), torch.int64),
        }
        assert torch.equal(batch["camera_to_world"][0], scene.camera_to_world[batch["view"][0]])
        seen.append(int(batch["view"]))
    assert sorted(seen) == [0, 1, 2]
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert [int(batch["view"]) for batch in loader] == [0, 1, 2]
    one = data.test_set[2]
    assert one["spikes"].shape == (177, 12, 16)
    told = data.describe()
    assert "3, 177 frames of 12x16" in told
    assert "points" in told
    assert data.facts()["name"] == "made-up spike camera scene"
    whole = next(iter(SyntheticSpikeSceneDataModule(**SMALL, batch_size=3).predict_dataloader()))
    assert whole["spikes"].shape == (3, 177, 12, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 1}, "views must be at least 2, got 1"),
        ({"gaussians": 0}, "gaussians must be at least 1, got 0"),
        ({"shake": (-1.0, 0.0)}, "shake must be at least 0, got -1.0"),
        ({"scene_seed": -1}, "scene_seed must be at least 0"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SyntheticSpikeSceneDataModule(**arguments)
