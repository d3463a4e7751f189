"""What a reconstructed scene leaves on disk, read back."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.spike_camera.points import read_points
from lightning_modules import scene_outputs

FACTS = SimpleNamespace(
    intrinsics=(30.0, 31.0, 16.0, 12.0),
    height=24,
    width=32,
    names=("a", "b"),
    scale=0.5,
    offset=(1.0, 2.0, 3.0),
)


def gaussians(count=7, rest=15):
    draw = torch.Generator().manual_seed(0)
    shapes = ((3,), (3,), (4,), (), (3,), (rest, 3))
    return [torch.randn(count, *shape, generator=draw) for shape in shapes]


def read_ply(path):
    """Header and a table by property, written from the format's description."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float ")]
    count = int(lines[2].removeprefix("element vertex "))
    table = np.frombuffer(body, "<f4").reshape(count, len(names))
    return {name: torch.from_numpy(table[:, i].copy()) for i, name in enumerate(names)}


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_gaussians_come_back(tmp_path, degree):
    means, log_scales, turned, opacity, dc, rest = gaussians(rest=(degree + 1) ** 2 - 1)
    path = tmp_path / "scene.ply"
    scene_outputs.write_ply(path, means, log_scales, turned, opacity, dc, rest)
    read = read_ply(path)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * rest.shape[1])]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert list(read) == names  # the order of the reference implementation

    def stacked(prefix, count):
        return torch.stack([read[f"{prefix}_{i}"] for i in range(count)], -1)

    assert torch.equal(torch.stack([read[a] for a in "xyz"], -1), means)
    assert torch.equal(stacked("scale", 3), log_scales)
    assert torch.equal(read["opacity"], opacity)
    torch.testing.assert_close(stacked("rot", 4), turned / turned.norm(dim=-1, keepdim=True))
    assert torch.equal(stacked("f_dc", 3), dc)
    flat = stacked("f_rest", 3 * rest.shape[1]) if rest.shape[1] else torch.zeros(7, 0)
    assert torch.equal(flat.reshape(7, 3, -1).transpose(1, 2), rest)
    assert np.array_equal(read_points(path)[0], means.numpy())  # any reader of PLY files finds the points


def test_they_are_where_the_files_have_them(tmp_path):
    means, log_scales, turned, opacity, dc, _ = gaussians()
    path = tmp_path / "scene.ply"
    scene_outputs.write_ply(
        path, means, log_scales, turned, opacity, dc[:, :1], scale=FACTS.scale, offset=FACTS.offset
    )
    read = read_ply(path)
    torch.testing.assert_close(read["y"], means[:, 1] / 0.5 + 2.0)
    torch.testing.assert_close(read["scale_1"].exp(), log_scales[:, 1].exp() / 0.5)
    assert torch.equal(read["f_dc_0"], read["f_dc_2"])  # grey


def test_they_are_as_bright_as_the_scene(tmp_path):
    *values, dc, rest = gaussians(rest=3)
    scene_outputs.write_ply(tmp_path / "scene.ply", *values, dc, rest, brightness=2.0)
    read = read_ply(tmp_path / "scene.ply")
    for c in range(3):
        before, after = (0.5 + 0.28209479 * base for base in (dc[:, c], read[f"f_dc_{c}"]))
        torch.testing.assert_close(after, 2 * before)
    assert torch.equal(read["f_rest_1"], 2 * rest[:, 1, 0])


def test_gaussians_that_cannot_be_written(tmp_path):
    means, log_scales, turned, opacity, dc, rest = gaussians()
    path = tmp_path / "scene.ply"
    for changed, message in (
        ((means[:0], log_scales[:0], turned[:0], opacity[:0], dc[:0]), "no Gaussians"),
        ((means, log_scales[:, :2], turned, opacity, dc), r"log_scales has the shape \(7, 2\)"),
        ((means, log_scales, turned, opacity, dc, rest[:, :4]), r"expected \[7, d\^2 - 1, 3\]"),
        ((means / 0, log_scales, turned, opacity, dc), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            scene_outputs.write_ply(path, *changed)
    assert not path.exists()


def test_poses(tmp_path):
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, :3, 3] = torch.tensor([0.25, -1.0, 0.5])
    scene_outputs.write_poses(tmp_path / "transforms.json", FACTS, poses)
    facts = json.loads((tmp_path / "transforms.json").read_text())
    assert (facts["fl_x"], facts["fl_y"], facts["cx"], facts["cy"]) == FACTS.intrinsics
    assert (facts["w"], facts["h"]) == (32, 24)
    assert [f["file_path"] for f in facts["frames"]] == ["sharp_data/a.png", "sharp_data/b.png"]
    moved = torch.tensor(facts["frames"][1]["transform_matrix"])
    assert moved[:3, 3].tolist() == [1.5, 0.0, 4.0]
    assert torch.equal(moved[:3, :3], torch.eye(3))
    with pytest.raises(ValueError, match=r"expected \[2, 4, 4\] poses, got \(1, 4, 4\)"):
        scene_outputs.write_poses(tmp_path / "transforms.json", FACTS, poses[:1])


@pytest.mark.parametrize("shape", [(5, 8, 9), (5, 3, 8, 9), (1, 8, 9)])
def test_film(tmp_path, shape):
    images = torch.linspace(0, 1, shape[0]).reshape(-1, *(1,) * (len(shape) - 1)).expand(shape)
    scene_outputs.write_sequence(tmp_path, images, "view")
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["view.gif", *(f"view_{m:03d}.png" for m in range(shape[0]))]
    for m in range(shape[0]):
        pixels = np.asarray(Image.open(tmp_path / f"view_{m:03d}.png"))
        assert pixels.shape == ((8, 9, 3) if len(shape) == 4 else (8, 9))
        assert (pixels == round(255 * float(images[m].max()))).all()
    with Image.open(tmp_path / "view.gif") as film:
        assert film.n_frames == max(1, 2 * shape[0] - 2)
        assert film.info["loop"] == 0
