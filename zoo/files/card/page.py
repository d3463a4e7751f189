"""A card as a page: what it is, how it is used, what was measured, how it was made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoo.files.card.header import header
from zoo.files.card.licences import licence_table
from zoo.files.card.markdown import table
from zoo.files.card.measured import measured, published, where
from zoo.tasks import get_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.files.description import Description, Record
    from zoo.tasks import Task

ARXIV = re.compile(r"\b\d{4}\.\d{4,5}\b")  # ids in a text


def write_card(
    described: Description, *, size: int, figures: Sequence[str] = (), repo_id: str | None = None
) -> str:
    """The card of a folder.

    Args:
        described: the folder's ``config.json``.
        size: bytes of the weights.
        figures: names of the images in ``figures/``.
        repo_id: where it is published; missing: the examples say where to put it.
    """
    own = described.recorded
    task = get_task(own.task)
    parts = [
        f"---\n{header(described, task)}\n---",
        f"# {repo_id.rpartition('/')[2] if repo_id else described.architecture}",
        _summary(described, task),
        table([("", ""), *_facts(described, task, size)]),
        "## Use",
        _use(described.pretrained_cfg.get("call") or task.call, task, repo_id),
        *measured(own, task),
        *published(own),
        *_training(own),
        "## Licences and origin",
        licence_table(own),
        "## Limits",
        _limits(described, task),
        *_figures(figures),
        "## Citation",
        _citation(own),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(described: Description, task: Task) -> str:
    own = described.recorded
    kind = task.noun_phrase.capitalize() if own.time_steps is None else f"A spiking {task.noun}"
    made = ""
    if own.conversion:
        named = (own.origin.name if own.origin else None) or (own.source or {}).get("name")
        source = named or described.model_args["source"]["architecture"]
        made = f", converted from {source} by {own.conversion['method']}"
    elif own.dataset:
        made = f", trained on {own.dataset}"
    return (
        f"{kind} ({described.architecture}){made}. Made with Fulgurite, a framework and model zoo for"
        " spiking neural networks."
    )


def _facts(described: Description, task: Task, size: int) -> list[tuple[str, str]]:
    own = described.recorded
    conversion = f"conversion, {own.conversion.get('method')}" if own.conversion else ""
    rows = [
        ("Architecture", f"`{described.architecture}`"),
        ("Parameters", f"{own.parameters:,} ({size / 1e6:.2f} MB)" if own.parameters else ""),
        ("Time steps", f"T = {own.time_steps}" if own.time_steps else "none (an ANN)"),
        *task.facts(described.pretrained_cfg),
        ("Source", _source(own)),
        ("Method", own.method or conversion or "not recorded"),
        ("Paper", f"[arXiv {own.paper}](https://arxiv.org/abs/{own.paper})" if own.paper else ""),
        ("SHA-256", f"`{own.sha256}`"),
    ]
    return [row for row in rows if row[1]]


def _source(own: Record) -> str:
    """The network that a conversion started from, its weights, and what it reaches itself."""
    if not own.source:
        return ""
    told, name, weights = own.source, own.source.get("name"), own.source.get("weights")
    text = f"`{name}`" if name else "an ANN without a name"
    text += f", weights {weights}" if weights and weights != name else ""
    text += f", SHA-256 `{told['sha256']}`" if told.get("sha256") else ""
    reached = own.metrics.get("test/ann_acc1")
    if reached is not None:
        return f"{text}; top-1 accuracy {reached:.2%} on the same samples"
    if told.get("accuracy") is not None:
        return f"{text}; top-1 accuracy {told['accuracy']:.2%}, {told.get('on')}"
    return text


def _use(call: str, task: Task, repo_id: str | None) -> str:
    where = f"hf-hub:{repo_id}" if repo_id else "local-dir:PATH"
    lines = ["```python", "import zoo", "", f'model = zoo.load("{where}")', call]
    if task.timm:
        lines += ["", "import timm  # knows the network once zoo is imported", ""]
        lines += [f'model = timm.create_model("{where}", pretrained=True)']
    return "\n".join([*lines, "```"])


def _training(own: Record) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "")]
    rows += [("Command", f"`{own.command}`")] if own.command else []
    rows += [("Continued by", f"`{command}`") for command in own.training.get("resumed") or []]
    rows += [("Settings", f"[{own.settings}]({own.settings})")] if own.settings else []
    rows += [("Seed", str(own.seed))] if own.seed is not None else []
    rows += [("Hardware", own.hardware)] if own.hardware else []
    made = own.training
    rows += [("Trained on", f"{made['samples']:,} samples")] if made.get("samples") else []
    rows += [("Time", f"{made['minutes']:g} minutes")] if made.get("minutes") is not None else []
    programs = made.get("versions") or {"fulgurite": own.version}
    rows += [("Version", ", ".join(f"{name} {version}" for name, version in programs.items()))]
    return ["## How it was made", table(rows)]


def _limits(described: Description, task: Task) -> str:
    own, size = described.recorded, described.pretrained_cfg.get("input_size")
    lines = [f"* {own.limits}"] if own.limits else []
    if own.metrics and (sentence := where(own, task)):
        lines.append(f"* Measured {sentence[0].lower()}{sentence[1:]} only; {task.unknown}.")
    if own.metrics and own.measured.get("chosen"):
        lines.append(f"* {task.same_samples.format(task.quality)}")
    seen, of = own.measured.get("samples"), own.measured.get("of")
    if own.metrics and seen is not None and of not in (None, seen):
        lines.append(f"* Only {seen:,} of the {of:,} samples were measured.")
    if part := own.training.get("part"):
        told = ", ".join(f"{name} = {value}" for name, value in part.items())
        lines.append(f"* Trained or validated on part of the data: {told}.")
    if own.metrics and own.seed is not None:
        lines.append(f"* One run (seed {own.seed}); how far other seeds scatter was not measured.")
    if size:
        lines.append(f"* Meant for inputs of {' x '.join(map(str, size))}, preprocessed as above.")
    if own.time_steps:
        lines.append(f"* Made for T = {own.time_steps}; more or fewer steps change the {task.quality}.")
    return "\n".join(lines)


def _figures(figures: Sequence[str]) -> list[str]:
    if not figures:
        return []
    images = [f"![{name.rpartition('.')[0].replace('_', ' ')}](figures/{name})" for name in figures]
    return ["## Figures", "\n".join(images)]


def _citation(own: Record) -> str:
    """The paper, those that the method names, and this project."""
    texts = [own.method, own.conversion.get("paper") if own.conversion else None]
    papers = [own.paper, *ARXIV.findall(" ".join(filter(None, texts)))]
    lines = ["```bibtex"]
    for paper in dict.fromkeys(filter(None, papers)):
        key = "arxiv_" + paper.replace(".", "_")
        lines += [f"@misc{{{key},", f"  eprint = {{{paper}}},", "  archivePrefix = {arXiv},"]
        lines += [f"  url = {{https://arxiv.org/abs/{paper}}}", "}"]
    lines += ["@software{fulgurite,", "  title = {Fulgurite: training, conversion and a model zoo for"]
    lines += ["           spiking neural networks},", "  author = {{The Fulgurite maintainers}}"]
    return "\n".join([*lines, "}", "```"])
