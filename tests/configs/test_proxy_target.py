"""Every shipped run of an agent acts, learns, is evaluated and tested, on a smaller scale."""

import json
from pathlib import Path

import gymnasium
import pytest
import yaml

from cli.main import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs" / "proxy_target").glob("*.yaml"))
ENVIRONMENTS = ("InvertedDoublePendulum", "Ant", "HalfCheetah", "Hopper", "Walker2d")


def shrunk(config: dict) -> dict:
    """The same run, shorter and narrower: environment, neuron, target and order of steps do not change."""
    model, data, trainer = config["model"]["init_args"], config["data"]["init_args"], config["trainer"]
    model |= {"random_steps": 2, "proxy_hidden": [8, 8], "critic_hidden": [8, 8]}
    model["model_args"] = {**model.get("model_args", {}), "hidden": [8, 8]}
    data |= {"steps_per_epoch": 5, "capacity": 8, "batch_size": 4, "eval_episodes": 1, "test_episodes": 1}
    trainer |= {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False}
    return config


def test_all_cells_are_there():
    told = {yaml.safe_load(path.read_text())["data"]["init_args"]["env"] for path in CONFIGS}
    assert told == {"Pendulum-v1", *(f"{name}-v4" for name in ENVIRONMENTS)}
    assert len(CONFIGS) == 1 + 4 * len(ENVIRONMENTS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_trains_for_some_steps(path, tmp_path, monkeypatch):
    config = shrunk(yaml.safe_load(path.read_text(encoding="utf-8")))
    if path.stem == "half_cheetah_clif":
        config["model"]["init_args"]["target"] = "polyak"
    # some episodes would last a thousand steps, whatever the agent does
    monkeypatch.setattr(gymnasium.spec(config["data"]["init_args"]["env"]), "max_episode_steps", 4)
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "proxy_target" / path.name
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(copy)])
    run = tmp_path / "runs" / f"proxy_target-{path.stem}"
    table = (run / "metrics.csv").read_text()
    assert "train/critic_loss" in table
    assert "val/return" in table
    assert "nan" not in table
    report = json.loads((run / "report.json").read_text())
    assert {"test/return", "test/return_std", "test/energy_mj", "test/paper_energy_mj"} <= set(
        report["metrics"]
    )
    assert "figures/curves.png" in report["figures"]
