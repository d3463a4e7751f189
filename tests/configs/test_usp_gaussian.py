"""The runs of USP-Gaussian: trained for a few steps, tested, and predicted from, on small made-up scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cli.main import main
from datamodules.spike_camera import write_dat
from datamodules.spike_camera.points import read_points
from datamodules.spike_camera.synthetic import Recipe, make_scene

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "usp_gaussian").glob("*.yaml"))
STEPS = 4
SIZE = {"views": 2, "height": 16, "width": 20, "gaussians": 8}


def scene_folder(root: Path) -> None:
    """A made-up scene in the layout of the authors' data."""
    scene, views = make_scene(Recipe(**SIZE))
    fx, fy, cx, cy = scene.intrinsics
    for name, view in zip(scene.names, views, strict=True):
        write_dat(root / "spike_data" / f"{name}.dat", view.stream)
        (root / "sharp_data").mkdir(exist_ok=True)
        pixels = (255 * view.images[6]).round().astype(np.uint8)
        Image.fromarray(pixels).save(root / "sharp_data" / f"{name}.png")
    facts = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": SIZE["width"], "h": SIZE["height"]}
    facts["frames"] = [
        {"file_path": f"sharp_data/{name}.png", "transform_matrix": pose.tolist()}
        for name, pose in zip(scene.names, scene.camera_to_world, strict=True)
    ]
    (root / "transforms.json").write_text(json.dumps(facts))
    sparse = root / "colmap" / "sparse" / "0"
    sparse.mkdir(parents=True)
    rows = [f"{i} {x} {y} {z} 128 128 128 0.5" for i, (x, y, z) in enumerate(scene.points.tolist())]
    (sparse / "points3D.txt").write_text("\n".join(rows))


def shrunk(config: dict, root: Path) -> dict:
    """The same run on a small scene: data, widths and length change, the method does not."""
    model = config["model"]["init_args"]
    arguments = model.setdefault("model_args", {})
    arguments["recon_net"] = {**arguments.get("recon_net", {}), "channels": [4, 8, 4, 4]}
    data = config["data"]["init_args"]
    if "root" in data:
        scene_folder(root / data["root"])
        data["num_workers"] = 0
    else:
        data |= SIZE
    config["checkpoint_every_n_steps"] = 2
    config["trainer"] |= {
        "accelerator": "cpu",
        "max_steps": STEPS,
        "val_check_interval": 2,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    }
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_trains_tests_and_predicts(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = shrunk(yaml.safe_load(path.read_text(encoding="utf-8")), tmp_path)
    copy = tmp_path / "usp_gaussian" / path.name
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(copy)])
    run = tmp_path / "runs" / f"usp_gaussian-{path.stem}"
    table = (run / "metrics.csv").read_text()
    assert "train/loss" in table
    assert "val/psnr" in table
    assert "nan" not in table
    report = json.loads((run / "report.json").read_text())
    assert report["metrics"]["test/psnr"] > 5
    main(["predict", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--output", "out"])
    out = tmp_path / "out"
    points, _ = read_points(out / "scene.ply")
    assert len(points) == SIZE["gaussians"]
    poses = json.loads((out / "transforms.json").read_text())["frames"]
    assert len(poses) == SIZE["views"]
    times = config["model"]["init_args"]["virtual_views"]
    for kind in ("rendered", "reconstructed"):
        for view in range(SIZE["views"]):
            folder = out / kind / f"view_{view:02d}"
            assert len(list(folder.glob("*.png"))) == times
            with Image.open(next(folder.glob("*.gif"))) as film:
                assert film.size == (SIZE["width"], SIZE["height"])


@pytest.mark.parametrize("mode", ["static", "recon_only"])
def test_modes_by_an_override(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = ROOT / "configs" / "usp_gaussian" / "synthetic.yaml"
    config = shrunk(yaml.safe_load(path.read_text(encoding="utf-8")), tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**config, "test_after_fit": False}))
    main(["fit", "--config", "small.yaml", "--model.init_args.mode", mode])
    (table,) = (tmp_path / "runs").glob("*/metrics.csv")
    assert "train/loss" in table.read_text()
    written = ["rendered", "scene.ply", "transforms.json"] if mode == "static" else ["reconstructed"]
    main(["predict", "--config", str(table.parent / "config.yaml"), "--ckpt_path", "last", "--output", "out"])
    assert sorted(path.name for path in Path("out").iterdir()) == written


def test_bad_data_are_told_in_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = ROOT / "configs" / "usp_gaussian" / "scene.yaml"
    config = shrunk(yaml.safe_load(path.read_text(encoding="utf-8")), tmp_path)
    (tmp_path / "scene.yaml").write_text(yaml.safe_dump(config))
    stream = tmp_path / "data" / "wine" / "spike_data" / "view_01.dat"
    whole = stream.read_bytes()

    def told(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["fit", "--config", "scene.yaml", *words])
        assert ended.value.code
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return " ".join(error.split())

    stream.write_bytes(whole[:-1])
    assert "view_01.dat has 7,079 bytes, which is no whole number of frames of 40 bytes" in told()
    stream.write_bytes(whole)
    assert "7,080 bytes, which is no whole number of frames of 43 bytes" in told(
        "--data.init_args.height", "17"
    )
    facts = json.loads((tmp_path / "data/wine/transforms.json").read_text())
    one = {**facts, "frames": facts["frames"][:1]}
    (tmp_path / "data/wine/transforms.json").write_text(json.dumps(one))
    assert "a scene needs at least 2 views, got 1" in told()
    facts["frames"][0]["transform_matrix"][0][0] = 5
    (tmp_path / "data/wine/transforms.json").write_text(json.dumps(facts))
    assert "the pose of view_00 is no rotation" in told()
    assert "there is no folder nowhere" in told("--data.init_args.root", "nowhere")
