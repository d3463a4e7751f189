"""What ``fulgurite convert`` made, from its YAML file to another process that loads it from the Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import zoo
from cli.main import main
from tests.zoo.hub.test_push_and_load import RELOAD

MODEL = {"layers": [1, 1], "planes": [4, 8], "v_threshold": 2.0, "levels": 4, "num_classes": 4, "in_chans": 1}
DATA = {
    "class_path": "SyntheticDataModule",
    "init_args": {"image_size": 8, "in_chans": 1, "num_classes": 4, "batch_size": 16, "train_samples": 64},
}
FOLDER = Path("runs/conversion-small")


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Converts somebody's file of weights."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save({"model": zoo.create("qcfs_resnet18", **MODEL).state_dict()}, "theirs.pth")
    source = {"model": "qcfs_resnet18", "model_args": MODEL, "weights": "theirs.pth"}
    settings = {"source": source, "time_steps": 4, "evaluate_at": [1, 2, 4, 8], "data": DATA}
    Path("conversion").mkdir()
    path = Path("conversion/small.yaml")
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def own_part(hub, repo_id):
    return json.loads(hub.files(repo_id)["config.json"])["fulgurite"]


def test_it_comes_back_bit_for_bit(config, hub, client, python, tmp_path, capsys):
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected, words = {}, []
    for method, calibrated in (("qcfs", False), ("srp", False), ("cos", True), ("parallel", True)):
        more = ["--calibration.samples", "32"] if calibrated else []
        main(["convert", "--config", config, "--method", method, *more])
        main(["publish", str(FOLDER), "--repo-id", f"me/{method}", "--licence", "mit"])
        commit = hub.repositories[f"me/{method}"].branches["main"]
        assert f"hf-hub:me/{method}@{commit[:12]}" in capsys.readouterr().out
        with torch.no_grad():
            expected[method] = zoo.load(f"local-dir:{FOLDER}")(images, steps=True)
        torch.save(images, tmp_path / f"images_{method}.pt")
        words += [f"hf-hub:me/{method}@{commit}", "timm" if method == "qcfs" else "zoo", method]
        shutil.rmtree(FOLDER)
    shutil.rmtree(client, ignore_errors=True)
    ran = python("-c", RELOAD, *words)
    assert ran.returncode == 0, ran.stderr
    for method, logits in expected.items():
        assert torch.equal(torch.load(tmp_path / f"logits_{method}.pt"), logits), method


def test_what_the_card_says(config, hub, client):
    main(["convert", "--config", config])
    report = json.loads((FOLDER / "report.json").read_text())
    main(["publish", str(FOLDER), "--repo-id", "me/snn", "--licence", "cc-by-nc-4.0"])
    files = hub.files("me/snn")
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "training.yaml",
        "figures/accuracy_over_time.png",
        "figures/firing_rates.png",
    }
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "cc-by-nc-4.0"
    assert {"ann-to-snn-conversion", "qcfs"} <= set(card.data.tags)
    measured = {(r.metric_type, r.metric_name): r.metric_value for r in card.data.eval_results}
    for point in report["comparison"]["points"]:
        key = ("accuracy", f"top-1 accuracy, T = {point['time_steps']}")
        assert measured[key] == pytest.approx(point["accuracy"], rel=1e-5)
    four = report["comparison"]["points"][2]
    for text in (
        "converted from theirs.pth by qcfs",
        "T = 4",
        "| T | 1 | 2 | 4 | 8 |",
        f"{four['accuracy']:.2%}",
        f"{four['energy_mj'] * 1e6:.6g} nJ per sample",
        "energy of the same network as an ANN",
        "theirs.pth, licence: unknown",
        "arXiv 2303.04347",
        "fulgurite convert --config conversion/small.yaml",
        "Hardware | ",
        "Seed | 0",
        "hf-hub:me/snn",
        "figures/accuracy_over_time.png",
    ):
        assert text in card.text, text
    assert own_part(hub, "me/snn")["licence"] == "cc-by-nc-4.0"
    assert yaml.safe_load(files["training.yaml"])["time_steps"] == 4


def test_weights_of_others_need_a_licence(config, hub, client, capsys):
    main(["convert", "--config", config])
    capsys.readouterr()
    for words in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as ended:
            main(["publish", str(FOLDER), "--repo-id", "me/snn", *words])
        assert ended.value.code == 2
        assert "come from theirs.pth, whose licence is unknown" in capsys.readouterr().err
    assert not hub.requests


def test_the_licence_of_the_source_is_carried(config, hub, client, tmp_path):
    torch.manual_seed(0)
    source = zoo.save(zoo.create("qcfs_resnet18", **MODEL), tmp_path / "ann", licence="bsd-3-clause")
    words = ["--source.model", f"local-dir:{source}", "--source.weights", "null", "--source.model_args", "{}"]
    main(["convert", "--config", config, *words])
    main(["publish", str(FOLDER), "--repo-id", "me/snn"])
    assert own_part(hub, "me/snn")["licence"] == "bsd-3-clause"
    assert ModelCard(hub.files("me/snn")["README.md"].decode()).data.license == "bsd-3-clause"


def test_a_published_ann_is_converted_and_published(config, hub, client):
    torch.manual_seed(0)
    zoo.push(zoo.create("qcfs_resnet18", **MODEL), "they/ann", licence="apache-2.0")
    words = ["--source.model", "hf-hub:they/ann", "--source.weights", "null", "--source.model_args", "{}"]
    main(["convert", "--config", config, *words])
    main(["publish", str(FOLDER), "--repo-id", "me/snn", "--revision", "v1", "--token-from", "env"])
    assert "model.safetensors" not in hub.files("me/snn")
    files = hub.files("me/snn", "v1")
    own = json.loads(files["config.json"])["fulgurite"]
    assert own["origin"]["name"].startswith("hf-hub:they/ann@")
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "they/ann")
    assert zoo.load("hf-hub:me/snn@v1").time_steps == 4
