"""Every shipped conversion is parsed as it stands, and run on a small source with random weights."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import yaml

import conversion
from cli.main import main
from tests.configs.kinds import one_of_each

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "conversion").glob("*.yaml"))
TINY = {  # what stands for the source: the same family in a small size
    "qcfs": ("qcfs_resnet20", {"planes": [4, 8, 8], "levels": 4, "v_threshold": 1.0}, 3, 32),
    "fashion": ("qcfs_vgg16", {"plan": [[4], [8]], "hidden": 16, "pool_size": 7, "v_threshold": 1.0}, 1, 28),
    "resnet": ("timm/resnet10t", {}, 3, 64),
    "vgg16_bn": ("timm/vgg11_bn", {}, 3, 64),
    "vit": ("timm/vit_tiny_patch16_224", {"img_size": 32, "depth": 2, "embed_dim": 48}, 3, 32),
    "eva02": ("timm/eva02_tiny_patch14_224", {"img_size": 28, "depth": 2}, 3, 28),
    "eva_giant": ("timm/eva02_tiny_patch14_224", {"img_size": 28, "depth": 2}, 3, 28),
}
QUICK = ("dcgs_vit_small", "dcgs_resnet18", "ecmt_eva02_base", "parallel_resnet34_training_free")


def name(path: Path) -> str:
    return path.stem


def is_quick(path: Path) -> bool:
    return path.stem in QUICK or "fashion_mnist" in path.stem


def marked(path: Path):
    return pytest.param(path, id=path.stem, marks=[] if is_quick(path) else [pytest.mark.slow])


def shrunk(config: dict) -> dict:
    """The same conversion of a small network on a few made-up images."""
    model = config["source"]["model"]
    key = "fashion" if "fashion" in model else "qcfs"
    if model.startswith("timm/"):
        found = [k for k in TINY if model.removeprefix("timm/").startswith(k)]
        key = max(found, key=len)
    small, arguments, channels, size = TINY[key]
    data = {"num_classes": 4, "in_chans": channels, "image_size": size, "batch_size": 4}
    data |= {"train_samples": 8, "val_samples": 2, "test_samples": 4, "num_workers": 0}
    return {
        **config,
        "source": {"model": small, "model_args": arguments, "pretrained": False},
        "time_steps": 2,
        "evaluate_at": [1, 2],
        "calibration": {"samples": 4},
        "energy_batches": 1,
        "data": {"class_path": "SyntheticDataModule", "init_args": data},
    }


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_parses_as_it_stands(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = path.read_text(encoding="utf-8")
    comment = text.split("\nseed_everything")[0].replace("\n# ", " ")
    for word in ("Published:", "Ours:", "Hardware:"):
        assert word in comment
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(["convert", "--config", str(path), "--print_config"])
    assert ended.value.code in (0, None)
    written = yaml.safe_load(text)
    assert yaml.safe_load(out.getvalue())["source"]["model"] == written["source"]["model"]
    method = conversion.get_method(written["method"], written.get("method_args", {}))
    method.check_time_steps(written["time_steps"])


# of those that are the same conversion once they are shrunk, one
CASES = one_of_each(sorted(CONFIGS, key=lambda path: not is_quick(path)), shrunk)


@pytest.mark.parametrize("path", [marked(p) for p in CASES])
def test_converts(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "conversion" / path.name
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(shrunk(yaml.safe_load(path.read_text(encoding="utf-8")))))
    main(["convert", "--config", str(copy)])
    folder = tmp_path / "runs" / f"conversion-{path.stem}"
    report = json.loads((folder / "report.json").read_text())
    assert report
    assert (folder / "model.safetensors").is_file()
    assert (folder / "figures" / "accuracy_over_time.png").is_file()
