"""A run's folder into a folder of the zoo: the tested checkpoint and what the run wrote down."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import zoo
from cli.errors import CommandError
from cli.run.resume import BEST, CHECKPOINTS, LAST
from cli.shipped_configs import shipped_folder
from lightning_modules.record import REPORT, chosen_on_these
from zoo.files.description import preprocessing_of
from zoo.files.layout import FIGURES, SETTINGS_FILE, sha256_of
from zoo.hub.push import refuse_links

CONFIG = "config.yaml"


def export_run(
    run: Path,
    target: Path,
    *,
    licence: str | None = None,
    limits: str | None = None,
    figures: bool = True,
) -> Path:
    """Write weights, description, card and figures of a run.

    Args:
        run: ``runs/NAME``.
        target: folder to write.
        licence: of the weights.
        limits: what users must know beyond what the card says by itself.
        figures: whether the run's figures go with it.

    Raises:
        CommandError: there is no checkpoint, or it is not the one that was tested.
        HubError: what the run wrote down is a link to another place.
    """
    drawn = sorted((run / FIGURES).glob("*.png")) if figures else []
    refuse_links(run, (CONFIG, REPORT, FIGURES, *(f"{FIGURES}/{path.name}" for path in drawn)))
    report = _report(run / REPORT)
    checkpoint, metrics = _tested(run, report)
    training: dict[str, Any] = report.get("training") or {}
    data: dict[str, Any] = training.get("data") or {}
    model = zoo.load(str(checkpoint))
    if training:
        named: Any = model  # a network of timm has no such attribute by itself
        named.origin = training.get("origin") or {}
    settings = (run / CONFIG).read_text(encoding="utf-8") if (run / CONFIG).is_file() else None
    command = training.get("command") or (settings and f"fulgurite fit --config {SETTINGS_FILE}")
    return zoo.save(
        model,
        target,
        metrics=metrics,
        measured=_measured(report) if metrics else None,
        training=_training(training),
        source=training.get("source"),
        dataset={k: data.get(k) for k in ("name", "hub_id", "licence")},
        method=training.get("method"),
        command=anonymous(command),
        settings=anonymous(settings),
        seed=training.get("seed", report.get("seed")),
        hardware=training.get("hardware"),
        licence=licence,
        limits=limits,
        figures=drawn,
        label_names=data.get("class_names") or None,
        pretrained_cfg=preprocessing_of(data),
    )


def _measured(report: dict[str, Any]) -> dict[str, Any]:
    """On what the report's numbers were measured, without places on this machine."""
    told = {k: v for k, v in (report.get("measured") or {}).items() if k != "root"}
    if not told:
        return {}
    return {**told, "command": anonymous(told.get("command")), "chosen": chosen_on_these(report)}


def _training(training: dict[str, Any]) -> dict[str, Any]:
    told = {key: training[key] for key in ("minutes", "versions", "part") if training.get(key)}
    if resumed := training.get("resumed"):
        told["resumed"] = [anonymous(command) for command in resumed]
    if samples := (training.get("train") or {}).get("samples"):
        told["samples"] = samples
    return told


def _report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CommandError(f"{path} is damaged: {error}; test the run again") from error
    return content if isinstance(content, dict) else {}


def _tested(run: Path, report: dict[str, Any]) -> tuple[Path, dict[str, float]]:
    """The checkpoint that the report is about, and its results; the best one if nothing was tested."""
    inside = run / CHECKPOINTS
    tested = Path(str(report.get("checkpoint") or "")).name
    names = [name for name in (tested, BEST, LAST) if name and (inside / name).is_file()]
    if not names:
        raise CommandError(f"{run} has no checkpoint in {inside}; is it the folder of a finished run?")
    path = inside / names[0]
    metrics = {k: v for k, v in (report.get("metrics") or {}).items() if not k.endswith("/loss")}
    recorded = report.get("checkpoint_sha256")
    if metrics and (path.name != tested or (recorded and sha256_of(path) != recorded)):
        raise CommandError(
            f"the results in {run / REPORT} are not those of {path}, which was written later; test it again:"
            f" fulgurite test --config {run / CONFIG} --ckpt_path {path}"
        )
    return path, metrics


def anonymous(text: str | None) -> str | None:
    """``text`` without places on this machine: the user's home folder, and where we are installed."""
    home, shipped = str(Path.home()), shipped_folder()
    if text and shipped is not None:
        text = text.replace(f"{shipped}{os.sep}", "")  # names of shipped files are found anywhere
    return text.replace(home, "~") if text and len(home) > 1 else text
