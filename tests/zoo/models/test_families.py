"""What the architectures share: inputs of their entries, stages, and twins in another form."""

import ast
from pathlib import Path

import pytest
import torch

import zoo
from zoo import layers, models
from zoo.layers.preprocessing import IMAGENET, event_frames
from zoo.models.ge2mst import Ge2mST
from zoo.registry import get_entry

FILES = sorted(Path(models.__file__).parent.glob("*.py")) + sorted(Path(layers.__file__).parent.glob("*.py"))


def test_image_statistics_are_written_once():
    numbers = {*IMAGENET.mean, *IMAGENET.std}
    holders = {
        path.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and node.value in numbers
    }
    assert holders == {"preprocessing.py"}


@pytest.mark.parametrize("name", zoo.list_models(task="classification"))
def test_statistics_fit_the_channels(name):
    cfg = get_entry(name).cfg
    assert len(cfg["mean"]) == len(cfg["std"]) == cfg["input_size"][0]
    assert 0.8 < cfg["crop_pct"] <= 1.0


def test_event_frames_are_not_normalised():
    inputs = event_frames(2, 64, 11)
    assert inputs.input_size == (2, 64, 64)
    assert inputs.statistics() == {"mean": (0.0, 0.0), "std": (1.0, 1.0), "crop_pct": 1.0}


@pytest.mark.parametrize("name", ["sew_resnet18", "ms_resnet18", "spiking_resnet18", "qcfs_resnet18"])
def test_stages_need_a_width_each(name):
    with pytest.raises(ValueError, match="one number a stage each"):
        zoo.create(name, layers=(1, 1), planes=(8, 8, 8))


@pytest.mark.parametrize(
    "name", [n for n in zoo.list_models(task="classification") if n.endswith(("_nano", "resnet20"))]
)
def test_feature_info_names_the_stages(name):
    with torch.device("meta"):
        model = zoo.create(name)
    assert [model.get_submodule(info["module"]) for info in model.feature_info] == list(model.stages())


def test_only_an_entry_has_a_twin():
    sizes = {"dims": (8, 8, 8, 8), "depths": (1,) * 5, "num_heads": (2, 2), "group_size": 8}
    model = Ge2mST(**sizes, num_classes=2).eval()
    with pytest.raises(ValueError, match="an entry of the zoo built"):
        model.to_spiking()
