"""What the configurations owe to the authors' codes: the values of their files, each from where it says."""

from pathlib import Path

import pytest
import timm
import yaml

import datamodules
import zoo
from spiking.qcfs import QCFS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
HALF = ([0.5] * 3, [0.5] * 3)


def read(name: str) -> dict:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))


def names(pattern: str) -> list[str]:
    return [p.relative_to(CONFIGS).with_suffix("").as_posix() for p in sorted(CONFIGS.glob(pattern))]


def options(name: str) -> dict:
    return read(name)["data"]["init_args"]


def comment(name: str) -> str:
    text = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")
    return text.partition("\nseed_everything")[0].replace("\n# ", " ")


TIMM = [n for n in names("conversion/*.yaml") if read(n)["source"]["model"].startswith("timm/")]


@pytest.mark.parametrize("name", TIMM)
def test_images_are_prepared_as_the_weights_were_trained(name, tmp_path):
    """By timm's record of the weights; a difference is named in the comment with both values."""
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
    given = {**options(name), "root": str(tmp_path)}
    data = datamodules.ImageNetDataModule(**given)
    cfg = timm.get_pretrained_cfg(read(name)["source"]["model"].removeprefix("timm/"))
    assert data.mean == pytest.approx(cfg.mean, abs=1e-3)
    assert data.std == pytest.approx(cfg.std, abs=1e-3)
    assert data.input_size == tuple(cfg.input_size)
    for key in ("crop_pct", "interpolation"):
        if given[key] != getattr(cfg, key):
            assert f"{given[key]}" in comment(name)
            assert f"{getattr(cfg, key)}" in comment(name)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [("*_vit_*", HALF), ("dcgs_eva02_*", CLIP), ("ecmt_eva02_*", CLIP)],
)
def test_statistics_of_transformers(pattern, wanted):
    found = [n for n in names(f"conversion/{pattern}.yaml") if n in TIMM]
    assert found
    for name in found:
        assert (options(name)["mean"], options(name)["std"]) == wanted


def test_eva_giant_is_the_row_of_89_62():
    name = "conversion/ecmt_eva_giant"
    assert read(name)["source"]["model"] == "timm/eva_giant_patch14_336.m30m_ft_in22k_in1k"
    assert "89.62" in comment(name)
    assert "0.4815" in comment(name)  # what the authors normalise with


@pytest.mark.parametrize(
    ("name", "n", "T", "c"),
    [
        ("vit_small", 6, 16, 8.0),
        ("vit_base", 6, 16, 8.0),
        ("vit_large", 6, 16, 8.0),
        ("eva02_small", 4, 16, 8.0),
        ("eva02_base", 6, 8, 8.0),
        ("vit_small_n8", 8, 8, 4.0),
        ("vit_base_n8", 8, 8, 4.0),
        ("eva02_small_n8", 8, 8, 4.0),
        ("eva02_base_n8", 8, 8, 4.0),
        ("vgg16", 1, 64, None),
        ("vgg16_n4", 4, 8, None),
        ("resnet18", 4, 32, None),
        ("resnet34", 4, 64, None),
        ("resnet34_n1", 1, 64, None),
    ],
)
def test_dcgs_has_a_file_for_the_authors_settings_and_for_each_published_row(name, n, T, c):
    config = read(f"conversion/dcgs_{name}")
    arguments = config["method_args"]
    assert (arguments["levels"], config["time_steps"], arguments.get("threshold_scale")) == (n, T, c)
    assert f"n = {n}" in comment(f"conversion/dcgs_{name}")
    assert max(config["evaluate_at"]) == T


@pytest.mark.parametrize("name", names("qcfs/*.yaml"))
def test_qcfs_clips_before_it_floors_in_every_source(name):
    init = read(name)["model"]["init_args"]
    assert init["model_args"]["order"] == "clip_first"
    small = {k: v for k, v in init["model_args"].items() if k in ("levels", "order")}
    model = zoo.create(init["model"], num_classes=2, **small)
    assert {m.order for m in model.modules() if isinstance(m, QCFS)} == {"clip_first"}
    assert {m.order for m in zoo.create(init["model"]).modules() if isinstance(m, QCFS)} == {"clip_first"}


@pytest.mark.parametrize(
    ("name", "batch", "cutout"),
    [("cifar10_vgg16", 128, 16), ("cifar100_vgg16", 100, 8), ("cifar100_resnet20", 100, 8)],
)
def test_srp_and_cos_have_sources_of_their_own(name, batch, cutout):
    init = read(f"qcfs/{name}_srp_cos")["model"]["init_args"]
    assert (init["lr"], init["model_args"]["levels"]) == (0.02, 4)
    given = options(f"qcfs/{name}_srp_cos")
    assert (given["batch_size"], given["cutout"]) == (batch, cutout)
    assert options(f"qcfs/{name}")["batch_size"] == 300  # QCFS's own
    data, _, network = name.partition("_")
    for method in ("srp", "cos") if data == "cifar100" else ():
        source = read(f"conversion/{method}_{network}_{data}")["source"]
        assert source["model"] == f"runs/qcfs-{name}_srp_cos"


@pytest.mark.parametrize("name", names("conversion/parallel_*.yaml"))
def test_parallel_calibrates_on_all_training_images(name):
    calibration = read(name)["calibration"]
    if "runs/qcfs-fashion" in read(name)["source"]["model"] or "jpeg" in name:
        assert "2,048" in comment(name)
        assert "samples: 0" in comment(name)
        return
    assert calibration == {"samples": 0, "batch_size": 64}
    assert options(name)["val"] in ("test", "val")  # nothing held out


def test_lmht_on_imagenet_and_tiny_imagenet():
    assert options("lmht/imagenet_ms_resnet34")["auto_augment"] == "imagenet"
    assert "5e-4" in comment("lmht/imagenet_ms_resnet34")
    assert read("lmht/imagenet_ms_resnet34")["model"]["init_args"]["weight_decay"] == 0.0
    for name in names("lmht/tiny_imagenet_*.yaml"):
        assert options(name)["interpolation"] == "bilinear"


@pytest.mark.parametrize("name", names("hybrid/cifar100_*.yaml"))
def test_hybrid_training_names_what_the_script_has(name):
    assert read(name)["model"]["init_args"]["lr"] == 5e-4
    for words in ("lr 0.1", "batch 64", "8 levels", "Nesterov", "5e-4"):
        assert words in comment(name)
