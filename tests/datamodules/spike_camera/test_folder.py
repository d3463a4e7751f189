"""Scenes on disk, written byte by byte in the layout of nerfstudio, COLMAP and spike cameras."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, SpikeSceneDataModule
from datamodules.spike_camera import write_dat
from datamodules.spike_camera.points import read_points
from datamodules.spike_camera.synthetic import rigid

H, W, T = 6, 8, 181
POINTS = np.array([[0.0, 1.0, 2.0], [3.0, -4.0, 5.5]])
COLORS = np.array([[255, 0, 0], [0, 51, 255]], dtype=np.uint8)
NAMES = ("000006", "000020", "000034")


def poses():
    return [rigid([x, 0.5, 2.0, 0.0, 0.1 * x, 0.0]) for x in (-1.0, 0.0, 3.0)]


def streams():
    draw = np.random.default_rng(0)
    return [draw.integers(0, 2, (T, H, W), dtype=np.uint8) for _ in NAMES]


def ascii_ply(path):
    lines = ["ply", "format ascii 1.0", "comment by hand", f"element vertex {len(POINTS)}"]
    lines += [f"property float {a}" for a in "xyz"] + [
        f"property uint8 {c}" for c in ("red", "green", "blue")
    ]
    rows = [" ".join(map(str, (*p, *c))) for p, c in zip(POINTS, COLORS, strict=True)]
    path.write_text("\n".join([*lines, "end_header", *rows, ""]))


def binary_ply(path):
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 2\n"
    head += "property double x\nproperty double y\nproperty double z\n"
    head += "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    body = b"".join(struct.pack("<3d3B", *p, *c) for p, c in zip(POINTS, COLORS, strict=True))
    path.write_bytes(head.encode() + body)


def colmap_text(path):
    rows = [
        f"{i} {' '.join(map(str, (*p, *c)))} 0.5 1 2 3 4"
        for i, (p, c) in enumerate(zip(POINTS, COLORS, strict=True))
    ]
    path.write_text("\n".join(["# 3D point list", *rows, ""]))


def colmap_binary(path):
    content = struct.pack("<Q", len(POINTS))
    for i, (p, c) in enumerate(zip(POINTS, COLORS, strict=True)):
        content += (
            struct.pack("<Q3d3Bd", i, *p, *c, 0.5) + struct.pack("<Q", i) + i * struct.pack("<2i", 7, 8)
        )
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    """A scene of three views."""
    for name, spikes in zip(NAMES, streams(), strict=True):
        write_dat(tmp_path / "spike_data" / f"{name}.dat", spikes)
        (tmp_path / "sharp_data").mkdir(exist_ok=True)
        red = np.zeros((H, W, 3), dtype=np.uint8)
        red[0, 0] = [255, 0, 0]
        Image.fromarray(red).save(tmp_path / "sharp_data" / f"{name}.png")
    facts = {
        **{"fl_x": 9.0, "fl_y": 9.5, "cx": 4.0, "cy": 3.0, "w": W, "h": H, "k1": 0.0},
        "frames": [
            {"file_path": f"images/{name}.png", "transform_matrix": pose.tolist()}
            for name, pose in list(zip(NAMES, poses(), strict=True))[::-1]  # in any order
        ],
        "ply_file_path": "sparse_pc.ply",
    }
    (tmp_path / "transforms.json").write_text(json.dumps(facts))
    ascii_ply(tmp_path / "sparse_pc.ply")
    return tmp_path


def change(folder, **facts):
    path = folder / "transforms.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def loaded(folder, **arguments):
    data = SpikeSceneDataModule(root=str(folder), num_workers=0, **arguments)
    data.prepare_data()
    data.setup("fit")
    return data


def test_a_scene_is_read(folder):
    data = loaded(folder, normalize=False)
    scene = data.scene
    assert scene.names == NAMES
    assert scene.intrinsics == (9.0, 9.5, 4.0, 3.0)
    assert (scene.height, scene.width, scene.scale) == (H, W, 1.0)
    torch.testing.assert_close(scene.camera_to_world.double(), torch.from_numpy(np.stack(poses())))
    assert scene.points.tolist() == POINTS.tolist()
    assert scene.colors[1].tolist() == pytest.approx([0, 0.2, 1])
    for v, batch in enumerate(data.test_dataloader()):
        assert torch.equal(batch["spikes"][0], torch.from_numpy(streams()[v][2:179]))  # the central 177
        assert batch["sharp_frames"].tolist() == [[88]]
        assert batch["sharp"][0, 0, 0, 0] == pytest.approx(0.2989)
    assert data.title == folder.name


def test_cameras_are_centred_and_scaled(folder):
    scene = loaded(folder).scene
    places = scene.camera_to_world[:, :3, 3]
    assert places.abs().max() == 1
    torch.testing.assert_close(places.mean(0), torch.zeros(3), rtol=0, atol=1e-6)
    back = places.double() / scene.scale + torch.tensor(scene.offset, dtype=torch.float64)
    torch.testing.assert_close(back, torch.from_numpy(np.stack(poses())[:, :3, 3]), rtol=0, atol=1e-6)
    points = scene.points.double() / scene.scale + torch.tensor(scene.offset, dtype=torch.float64)
    torch.testing.assert_close(points, torch.from_numpy(POINTS), rtol=0, atol=1e-5)


def test_real_scenes_have_placeholders_instead_of_images(folder):
    batch = next(iter(loaded(folder, sharp=False).test_dataloader()))
    assert batch["sharp"].shape == (1, 0, H, W)
    assert batch["sharp_frames"].shape == (1, 0)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (ascii_ply, "a.ply"),
        (binary_ply, "a.ply"),
        (colmap_text, "points3D.txt"),
        (colmap_binary, "points3D.bin"),
    ],
)
def test_points(tmp_path, write, name):
    write(tmp_path / name)
    points, colors = read_points(tmp_path / name)
    assert points.tolist() == POINTS.tolist()
    assert (colors * 255).round().astype(np.uint8).tolist() == COLORS.tolist()
    content = (tmp_path / name).read_bytes()
    cut = tmp_path / f"cut.{name.split('.')[1]}"
    cut.write_bytes(content[: -len(content) // 4])
    with pytest.raises(DataError, match=r"cut\."):
        read_points(cut)


def test_points_of_colmap_are_brought_into_the_coordinates_of_the_poses(folder):
    (folder / "sparse_pc.ply").unlink()
    sparse = folder / "colmap" / "sparse" / "0"
    sparse.mkdir(parents=True)
    colmap_binary(sparse / "points3D.bin")
    change(folder, ply_file_path=None, applied_transform=[[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 2]])
    assert loaded(folder, normalize=False).scene.points.tolist() == [[0, 2, 1], [3, 5.5, 6]]
    (sparse / "points3D.bin").unlink()
    with pytest.raises(
        DataError, match=r"no sparse points; looked for sparse_pc.ply, colmap/sparse/0/points3D"
    ):
        loaded(folder)


def test_streams_are_found_by_name_number_or_order(folder):
    def renamed(names):
        frames = json.loads((folder / "transforms.json").read_text())["frames"]
        frames.sort(key=lambda frame: frame["file_path"])
        for frame, name in zip(frames, names, strict=False):
            frame["file_path"] = f"images/{name}.png"
        change(folder, frames=frames[: len(names)])

    renamed(["frame_00001", "frame_00003"])  # COLMAP could not place the second one
    batches = list(loaded(folder).test_dataloader())
    assert torch.equal(batches[1]["spikes"][0], torch.from_numpy(streams()[2][2:179]))
    renamed(["a", "b"])
    with pytest.raises(DataError, match=r"has 3 .dat files for 2 frames .* names differ: 000006, a"):
        loaded(folder)


ROTATED = np.diag([1.0, 1.0, -1.0, 1.0])
SHEARED = np.eye(4) + np.eye(4, k=1) * [0, 0.3, 0, 0]


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (ROTATED, r"the pose of 000034 is no rotation: .* det R = -1; see transform_matrix"),
        (SHEARED, r"the pose of 000034 is no rotation: R R\^T differs from 1 by 0.3"),
        (2 * np.eye(4), r"is no rotation: R R\^T differs from 1 by 3, det R = 8"),
        (np.full((4, 4), np.nan), "the pose of 000034 is not finite"),
        (np.eye(4)[[0, 1, 2, 2]], "the last row of the pose of 000034"),
        (np.eye(3), r"transform_matrix of 000034 has the shape \(3, 3\), not 4 x 4"),
    ],
)
def test_poses_that_are_none(folder, pose, message):
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    frames[0]["transform_matrix"] = pose.tolist()
    change(folder, frames=frames)
    with pytest.raises(DataError, match=message):
        loaded(folder)


def test_a_scene_with_one_view(folder):
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    change(folder, frames=frames[-1:])
    with pytest.raises(DataError, match="a scene needs at least 2 views, got 1: one image has no depth"):
        loaded(folder)


def test_other_faults_are_told(folder, tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        loaded(tmp_path / "none")
    with pytest.raises(
        DataError, match=r"1,086 bytes, .* frames of 7 bytes \(7 x 8 pixels\); it is truncated"
    ):
        loaded(folder, height=7)
    with pytest.raises(DataError, match="frames of 12 bytes"):
        loaded(folder, width=16)
    path = folder / "spike_data" / f"{NAMES[1]}.dat"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=rf"{NAMES[1]}.dat has 1,085 bytes"):
        loaded(folder)
    path.write_bytes(whole[: 6 * 100])
    with pytest.raises(DataError, match=r"has 100 frames, 177 are needed; see height and width"):
        loaded(folder)
    path.write_bytes(whole)
    image = folder / "sharp_data" / f"{NAMES[0]}.png"
    Image.new("RGB", (W, H + 1)).save(image)
    with pytest.raises(DataError, match="has 7 x 8 pixels, its stream 6 x 8"):
        next(iter(loaded(folder).test_dataloader()))
    image.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="cannot be read as an image"):
        next(iter(loaded(folder).test_dataloader()))
    change(folder, k1=0.2)
    Image.new("RGB", (W, H)).save(image)
    with pytest.warns(UserWarning, match=r"the lens distorts \(k1 = 0.2\); it is taken for a pinhole"):
        loaded(folder)
    change(folder, k1=0.0, fl_x=None)
    with pytest.raises(DataError, match="lacks fl_x: one camera for all frames"):
        loaded(folder)
    (folder / "transforms.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        loaded(folder)
    (folder / "transforms.json").unlink()
    with pytest.raises(DataError, match=r"No such file.*; a scene is a folder with spike_data"):
        loaded(folder)
