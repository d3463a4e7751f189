"""``fulgurite publish``: what a run leaves behind, in a repository on a loopback Hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

import zoo
from cli.main import main
from tests.zoo.hub.server import WRITER

CONFIG = {
    "seed_everything": 3,
    "test_after_fit": True,
    "model": {
        "class_path": "ClassificationTask",
        "init_args": {
            "model": "spiking_cnn_nano",
            "model_args": {"time_steps": 2, "channels": [4, 8], "pool_size": 1},
        },
    },
    "data": {
        "class_path": "DigitsDataModule",
        "init_args": {"batch_size": 256, "eval_batch_size": 500},
    },
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "Energy", "init_args": {"batches": 1}}],
    },
}
RUN = Path("runs/method-run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one epoch on real digits; the tests work on copies."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("method").mkdir()
        Path("method/run.yaml").write_text(yaml.safe_dump(CONFIG))
        main(["fit", "--config", "method/run.yaml"])
    finally:
        os.chdir(before)
    return folder / RUN


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, RUN)
    return RUN


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["publish", *words])
    assert ended.value.code == 2
    text = capsys.readouterr().err.rpartition("fulgurite: ")[-1]
    assert "Traceback" not in text
    return text


def test_a_run_is_published_and_comes_back(run, hub, client, capsys):
    main(["publish", str(run), "--repo-id", "me/digits", "--licence", "apache-2.0", "--limits", "Small."])
    out = capsys.readouterr().out
    commit = hub.repositories["me/digits"].branches["main"]
    assert f"{hub.url}/me/digits, commit {commit}" in out
    files = hub.files("me/digits")
    assert {"config.json", "model.safetensors", "README.md", "training.yaml"} <= set(files)
    assert "figures/curves.png" in files
    report = json.loads((run / "report.json").read_text())
    config = json.loads(files["config.json"])
    own = config["fulgurite"]
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["mean"] == [0.3053]
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]
    assert own["metrics"]["test/acc1_t1"] == report["metrics"]["test/acc1_t1"]
    assert own["metrics"]["test/energy_mj"] > 0
    assert own["command"] == "fulgurite fit --config method/run.yaml"
    assert (own["seed"], own["licence"], own["settings"]) == (3, "apache-2.0", "training.yaml")
    assert "surrogate gradients" in own["method"]
    assert "CPU" in own["hardware"]
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert {r.dataset_name for r in card.data.eval_results} == {own["dataset"]}
    for text in ("| T | 1 | 2 |", "figures/curves.png", "BSD-3-Clause", "Small.", "1706_02609"):
        assert text in card.text, text
    model = zoo.load(f"hf-hub:me/digits@{commit}")
    tested = zoo.load(str(run / "checkpoints" / "best.ckpt"))
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x, steps=True), tested(x, steps=True))


def test_a_dry_run_sends_nothing(run, hub, client, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    main(["publish", str(run), "--repo-id", "me/digits", "--dry-run"])
    assert not hub.requests
    assert "nothing was sent" in capsys.readouterr().out
    assert "hf-hub:me/digits" in (run / "hub" / "README.md").read_text()
    assert "ask the owner" in (run / "hub" / "README.md").read_text()
    assert zoo.load(f"local-dir:{run / 'hub'}").num_classes == 10


def test_a_folder_is_published(hub, client, tmp_path):
    folder = zoo.save(zoo.load("spiking_cnn_nano"), tmp_path / "out")
    main(["publish", str(folder), "--repo-id", "me/nano", "--private", "--revision", "v1"])
    assert hub.repositories["me/nano"].private
    assert "model.safetensors" in hub.files("me/nano", "v1")
    assert "model.safetensors" not in hub.files("me/nano", "main")


def test_results_of_another_checkpoint(run, capsys):
    torch.save({"another": torch.zeros(1)}, run / "checkpoints" / "best.ckpt")
    text = refused(capsys, str(run), "--repo-id", "me/digits", "--dry-run")
    assert "are not those of" in text
    assert "fulgurite test --config" in text


def test_what_cannot_be_published(run, hub, client, monkeypatch, capsys, tmp_path):
    assert "no such file or folder: nothing" in refused(capsys, "nothing", "--repo-id", "me/x")
    assert "expected OWNER/NAME" in refused(capsys, str(run), "--repo-id", "no name")
    (tmp_path / "empty").mkdir()
    assert "is no folder of zoo.save" in refused(capsys, "empty", "--repo-id", "me/x")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    assert "has no checkpoint" in refused(capsys, str(run), "--repo-id", "me/x")
    assert not hub.requests


def test_fine_tuned_weights_need_the_licence_of_their_source(run, hub, client, capsys):
    report = json.loads((run / "report.json").read_text())
    report["training"]["origin"] = {"name": "spikingresformer_s.pth", "licence": None, "url": None}
    (run / "report.json").write_text(json.dumps(report))
    text = refused(capsys, str(run), "--repo-id", "me/digits")
    assert "come from spikingresformer_s.pth, whose licence is unknown" in text
    main(["publish", str(run), "--repo-id", "me/digits", "--licence", "mit"])
    assert "spikingresformer_s.pth, licence: unknown" in hub.files("me/digits")["README.md"].decode()


@pytest.mark.slow
def test_the_command_shows_no_token(run, hub, python):
    words = ("-m", "cli", "publish", str(run.resolve()), "--repo-id", "me/digits")
    ran = python(*words, "--token-from", "env", HF_TOKEN=WRITER, HF_DEBUG="1", HF_HUB_VERBOSITY="debug")
    assert ran.returncode == 0, ran.stderr
    assert WRITER not in ran.stdout + ran.stderr
    ran = python(*words, "--token-from", "login", HF_TOKEN=WRITER)
    assert ran.returncode == 2
    assert "no token is stored" in ran.stderr
