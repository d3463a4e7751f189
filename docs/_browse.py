"""The zoo as one page that searches and filters itself: style, script and data in one file, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

import zoo
from cli.shipped_configs import read_comment

TEMPLATE = Path(__file__).parent / "browse.html"
PLACE = "/*DATA*/"


def read_run(config: Path, folder: Path) -> dict[str, Any]:
    """What a shipped run is of, the published number and ours, kept apart as its first comment has them."""
    told = read_comment(config)
    content = yaml.safe_load(config.read_text()) or {}
    task = (content.get("model") or {}).get("init_args") or {}
    return {
        "config": f"configs/{config.relative_to(folder)}",
        "entry": task.get("model"),
        "what": told.what,
        "published": told.published,
        "ours": told.measured,
        "rest": told.remarks,
    }


def collect(configs: Path) -> list[dict[str, Any]]:
    """Every entry that is listed or has weights, these, and its runs."""
    runs = [read_run(path, configs) for path in sorted(configs.rglob("*.yaml"))]
    entries = []
    trained = {name.partition(".")[0] for name in zoo.list_models(pretrained=True)}
    for name in sorted({*zoo.list_models(), *trained}):
        told = zoo.describe(name)
        entries.append(
            {
                "name": name,
                "family": told.family,
                "task": told.task,
                "parameters": told.parameters,
                "macs": told.macs,
                "sops": told.sops,
                "steps": told.time_steps if told.spiking else None,
                "input": "x".join(map(str, told.input_size or ())) or "-",
                "classes": told.num_classes,
                "paper": told.paper,
                "weights": [
                    {
                        "name": f"{name}.{tag}",
                        "dataset": cfg.dataset,
                        "licence": cfg.licence,
                        "published": cfg.published,
                        "measured": cfg.metrics,
                    }
                    for tag, cfg in told.weights.items()
                ],
                "runs": [run for run in runs if run["entry"] == name],
            }
        )
    return entries


def write_browser(configs: Path, path: Path) -> None:
    """Write the page."""
    data = json.dumps(collect(configs), ensure_ascii=False).replace("</", "<\\/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.read_text().replace(PLACE, data, 1))
