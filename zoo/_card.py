"""The model card: a YAML header for machines, a table for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_card(model: Any, config: Mapping[str, Any], size: int) -> str:
    own = config["fulgurite"]
    name = config["architecture"]
    parameters = sum(p.numel() for p in model.parameters())
    header = ["---", "library_name: fulgurite", "pipeline_tag: image-classification"]
    header += [f"license: {own['licence']}"] if own["licence"] else []
    header += ["tags: [spiking-neural-network, image-classification, timm]", f"model_name: {name}"]
    if own["metrics"] and own["dataset"]:
        header += ["model-index:", f"- name: {name}", "  results:", "  - task:"]
        header += ["      type: image-classification", "    dataset:"]
        header += [f"      name: {json.dumps(own['dataset'])}"]
        header += [f"      type: {json.dumps(own['dataset'].lower().replace(' ', '-'))}"]
        header += ["    metrics:"]
        for key, value in own["metrics"].items():
            header += [f"    - type: {json.dumps(key)}", f"      value: {value}"]
    header += ["---", ""]
    input_size = config["pretrained_cfg"].get("input_size", ())
    rows = [
        ("Parameters", f"{parameters:,} ({size / 1e6:.2f} MB)"),
        ("Time steps", f"T = {own['time_steps']}"),
        ("Input", "C, H, W = " + ", ".join(map(str, input_size))),
        ("Classes", f"K = {config['num_classes']}"),
        ("Paper", f"arXiv {own['paper']}" if own["paper"] else "-"),
        ("Trained on", own["dataset"] or "-"),
        ("Measured", ", ".join(f"{k} {v:g}" for k, v in own["metrics"].items()) or "-"),
        ("Published", ", ".join(f"{k} {v:g}" for k, v in own["published"].items()) or "-"),
        ("Command", f"`{own['command']}`" if own["command"] else "-"),
        ("Seed", str(own["seed"]) if own["seed"] is not None else "-"),
        ("Licence of the weights", own["licence"] or "-"),
        ("SHA-256", f"`{own['sha256']}`"),
    ]
    body = [f"# {name}", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows), ""]
    body += ["```python", "import zoo", "", 'model = zoo.load("local-dir:PATH")', "```", ""]
    return "\n".join(header + body)
