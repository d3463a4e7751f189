"""The model card: a YAML header for machines, tables for people; only what was recorded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AT_T = re.compile(r"(?:^|/)acc1_t(\d+)$")
SHARES = {
    "acc1": "top-1 accuracy",
    "acc5": "top-5 accuracy",
    "ann_acc1": "top-1 accuracy of the ANN",
    "agreement": "same top-1 as the ANN",
}
ENERGY = {
    "firing_rate": ("firing rate", "spikes per neuron and step"),
    "sops": ("synaptic operations", "per sample"),
    "macs": ("multiply-accumulates", "per sample"),
    "energy_mj": ("energy", "mJ per sample"),
    "ann_energy_mj": ("energy of the same network as an ANN", "mJ per sample"),
}
# https://huggingface.co/docs/hub/repositories-licenses: identifiers that a header may carry as they are
LICENCES = (
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc", "cc0-1.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "gpl",
    "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "unlicense",
    "wtfpl", "zlib", "openrail", "creativeml-openrail-m", "apple-ascl", "apple-amlr", "gemma",
)  # fmt: skip


def write_card(
    config: Mapping[str, Any],
    *,
    size: int,
    figures: Sequence[str] = (),
    repo_id: str | None = None,
) -> str:
    """The card of a folder, from its ``config.json``.

    Args:
        config: the description that ``zoo.save`` writes.
        size: bytes of the weights.
        figures: names of the images in ``figures/``.
        repo_id: where it is published; missing: the examples say where to put it.
    """
    parts = [
        f"---\n{_header(config).to_yaml()}\n---",
        f"# {repo_id.rpartition('/')[2] if repo_id else config['architecture']}",
        _summary(config),
        _table([("", ""), *_facts(config, size)]),
        "## Use",
        _use(repo_id),
        *_measured(config),
        *_published(config),
        *_training(config),
        "## Licences and origin",
        _licences(config),
        "## Limits",
        _limits(config),
        *_figures(figures),
        "## Citation",
        _citation(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence_fields(licence: str | None) -> dict[str, str]:
    """How the header of a card states a licence that may be none of the Hub's own list."""
    if not licence:
        return {}
    plain = licence.strip().lower()
    return {"license": plain} if plain in LICENCES else {"license": "other", "license_name": _slug(plain)}


def _header(config: Mapping[str, Any]) -> Any:
    from huggingface_hub import ModelCardData

    own = config["fulgurite"]
    conversion = own.get("conversion") or {}
    tags = ["spiking-neural-network", "image-classification", "timm"]
    if conversion:
        tags += ["ann-to-snn-conversion", _slug(str(config["model_args"]["method"]))]
    if own.get("paper"):
        tags.append(f"arxiv:{own['paper']}")
    results = _results(config)
    base = str((own.get("origin") or {}).get("name") or "")
    hub = re.fullmatch(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@\w+)?", base)
    licence: dict[str, Any] = licence_fields(own.get("licence"))
    return ModelCardData(
        library_name="fulgurite",
        pipeline_tag="image-classification",
        tags=tags,
        datasets=[own["dataset_id"]] if own.get("dataset_id") else None,
        metrics=["accuracy"] if results else None,
        base_model=hub.group(1) if hub else None,
        model_name=config["architecture"],
        eval_results=results or None,
        **licence,
    )


def _results(config: Mapping[str, Any]) -> list[Any]:
    """Measured accuracy, the one at every T, and energy, for the header's ``model-index``."""
    from huggingface_hub import EvalResult

    own = config["fulgurite"]
    if not own.get("dataset"):
        return []
    steps = own.get("time_steps")
    at = f", T = {steps}" if steps else ""
    kinds: list[tuple[str, str, float]] = []
    for key, value in (own.get("metrics") or {}).items():
        short = key.rpartition("/")[2]
        if short == "acc1":
            kinds.append(("accuracy", f"top-1 accuracy{at}", value))
        elif short == "acc5":
            kinds.append(("accuracy", f"top-5 accuracy{at}", value))
        elif (found := AT_T.search(key)) and not steps:
            continue  # an ANN has one step
        elif found and not own.get("conversion"):
            kinds.append(("accuracy", f"top-1 accuracy after {found.group(1)} of {steps} steps", value))
        elif found and found.group(1) != str(steps):  # a converted network was run, or made, for this T
            kinds.append(("accuracy", f"top-1 accuracy, T = {found.group(1)}", value))
        elif short in ENERGY:
            kinds.append((short, ", ".join(ENERGY[short]), value))
    kinds.sort(key=lambda kind: kind[0] != "accuracy")
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=own.get("dataset_id") or _slug(own["dataset"]),
            dataset_name=own["dataset"],
            dataset_split="test",
            metric_type=kind,
            metric_name=name,
            metric_value=float(f"{value:.6g}"),
        )
        for kind, name, value in kinds
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _summary(config: Mapping[str, Any]) -> str:
    own = config["fulgurite"]
    conversion = own.get("conversion") or {}
    kind = "An image classifier" if own.get("time_steps") is None else "A spiking image classifier"
    made = ""
    if conversion:
        source = (own.get("origin") or {}).get("name") or config["model_args"]["source"]["architecture"]
        made = f", converted from {source} by {conversion['method']}"
    elif own.get("dataset"):
        made = f", trained on {own['dataset']}"
    return (
        f"{kind} ({config['architecture']}){made}. Made with Fulgurite, a framework and model zoo for"
        " spiking neural networks."
    )


def _facts(config: Mapping[str, Any], size: int) -> list[tuple[str, ...]]:
    own, cfg = config["fulgurite"], config.get("pretrained_cfg") or {}
    rows = [
        ("Architecture", f"`{config['architecture']}`"),
        ("Parameters", f"{own['parameters']:,} ({size / 1e6:.2f} MB)" if own.get("parameters") else ""),
        ("Time steps", f"T = {own['time_steps']}" if own.get("time_steps") else "none (an ANN)"),
        ("Input", "C, H, W = " + ", ".join(map(str, cfg.get("input_size") or ("?",)))),
        ("Classes", f"K = {config['num_classes']}"),
        ("Preprocessing", _preprocessing(cfg)),
        ("Method", own.get("method") or _conversion(own.get("conversion")) or "not recorded"),
        (
            "Paper",
            f"[arXiv {own['paper']}](https://arxiv.org/abs/{own['paper']})" if own.get("paper") else "",
        ),
        ("SHA-256", f"`{own['sha256']}`"),
    ]
    return [row for row in rows if row[1]]


def _paper(paper: str | None) -> str:
    return f"[arXiv {paper}](https://arxiv.org/abs/{paper})" if paper else ""


def _conversion(conversion: Any) -> str:
    return f"conversion, {conversion.get('method')}" if isinstance(conversion, dict) else ""


def _preprocessing(cfg: Mapping[str, Any]) -> str:
    parts = [f"mean {_list(cfg['mean'])}"] if cfg.get("mean") else []
    parts += [f"std {_list(cfg['std'])}"] if cfg.get("std") else []
    parts += [f"{cfg['interpolation']} resizing"] if cfg.get("interpolation") else []
    parts += [f"centre crop of {cfg['crop_pct']:g}"] if cfg.get("crop_pct") else []
    return ", ".join(parts)


def _list(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{v:g}" for v in values) + ")"


def _use(repo_id: str | None) -> str:
    where = f"hf-hub:{repo_id}" if repo_id else "local-dir:PATH"
    lines = ["```python", "import zoo", "", f'model = zoo.load("{where}")', "logits = model(images)", ""]
    lines += ["import timm  # knows the network once zoo is imported", ""]
    lines += [f'model = timm.create_model("{where}", pretrained=True)', "```"]
    return "\n".join(lines)


def _measured(config: Mapping[str, Any]) -> list[str]:
    """What we measured with these weights."""
    own = config["fulgurite"]
    metrics: dict[str, float] = own.get("metrics") or {}
    if not metrics:
        return ["## Measured", "Nothing was measured with these weights."]
    by_step = {int(m.group(1)): v for k, v in metrics.items() if (m := AT_T.search(k))}
    short = {k.rpartition("/")[2]: v for k, v in metrics.items() if not AT_T.search(k)}
    parts = ["## Measured", f"On the test set of {own['dataset']}." if own.get("dataset") else ""]
    if by_step:
        head = ("T", *(str(t) for t in sorted(by_step)))
        parts.append(_table([head, ("top-1 accuracy", *(f"{by_step[t]:.2%}" for t in sorted(by_step)))]))
    rows: list[tuple[str, ...]] = [("quantity", "value")]
    rows += [(label, f"{short[key]:.2%}") for key, label in SHARES.items() if key in short]
    rows += [(ENERGY[k][0], f"{v:.6g} {ENERGY[k][1]}") for k, v in short.items() if k in ENERGY]
    rest = [k for k in short if k not in ENERGY and k not in SHARES]
    rows += [(k, f"{short[k]:.6g}") for k in rest]
    parts.append(_table(rows))
    if "energy_mj" in short:
        parts.append(
            "Energy is an estimate from counted operations: 4.6 pJ a MAC, 0.9 pJ an addition (45 nm,"
            " Horowitz, ISSCC 2014), without memory traffic and neuron updates."
        )
    return parts


def _published(config: Mapping[str, Any]) -> list[str]:
    """The paper's numbers, apart from ours: they belong to other weights."""
    own = config["fulgurite"]
    if not own.get("published"):
        return []
    rows: list[tuple[str, ...]] = [("quantity", "value")]
    rows += [(k, f"{v:.6g}") for k, v in own["published"].items()]
    source = f"arXiv {own['paper']}" if own.get("paper") else "its authors"
    text = f"Numbers of {source}, reached with the authors' own weights and runs, not with this file."
    return ["## Published by others", text, _table(rows)]


def _training(config: Mapping[str, Any]) -> list[str]:
    own = config["fulgurite"]
    rows: list[tuple[str, ...]] = [("", "")]
    rows += [("Command", f"`{own['command']}`")] if own.get("command") else []
    rows += [("Settings", f"[{own['settings']}]({own['settings']})")] if own.get("settings") else []
    rows += [("Seed", str(own["seed"]))] if own.get("seed") is not None else []
    rows += [("Hardware", own["hardware"])] if own.get("hardware") else []
    rows += [("Version", f"fulgurite {own['version']}")]
    return ["## How it was made", _table(rows)]


def _licences(config: Mapping[str, Any]) -> str:
    own = config["fulgurite"]
    origin = own.get("origin") or {}
    rows: list[tuple[str, ...]] = [("", "")]
    rows.append(("Weights", own.get("licence") or "not stated: ask the owner before you use them"))
    if origin:
        name = origin.get("name") or "unknown"
        link = f"[{name}]({origin['url']})" if origin.get("url") else name
        rows.append(("Derived from", f"{link}, licence: {origin.get('licence') or 'unknown'}"))
        if origin.get("sha256"):
            rows.append(("SHA-256 of it", f"`{origin['sha256']}`"))
    if own.get("dataset"):
        rows.append(("Data", f"{own['dataset']}, licence: {own.get('dataset_licence') or 'not stated'}"))
    return _table(rows)


def _limits(config: Mapping[str, Any]) -> str:
    own, cfg = config["fulgurite"], config.get("pretrained_cfg") or {}
    lines = [f"* {own['limits']}"] if own.get("limits") else []
    if own.get("dataset") and own.get("metrics"):
        lines.append(f"* Measured on {own['dataset']} only; accuracy on other images is unknown.")
    if own.get("metrics") and own.get("seed") is not None:
        lines.append(f"* One run (seed {own['seed']}); how far other seeds scatter was not measured.")
    if cfg.get("input_size"):
        size = " x ".join(map(str, cfg["input_size"]))
        lines.append(f"* Meant for inputs of {size}, preprocessed as above.")
    if own.get("time_steps"):
        lines.append(f"* Made for T = {own['time_steps']}; more or fewer steps change the accuracy.")
    return "\n".join(lines)


def _figures(figures: Sequence[str]) -> list[str]:
    if not figures:
        return []
    images = [f"![{name.rpartition('.')[0].replace('_', ' ')}](figures/{name})" for name in figures]
    return ["## Figures", "\n".join(images)]


def _citation(config: Mapping[str, Any]) -> str:
    own = config["fulgurite"]
    conversion = own.get("conversion")
    methods = [own.get("method"), conversion.get("paper") if isinstance(conversion, dict) else None]
    papers = [own.get("paper"), *re.findall(r"\b\d{4}\.\d{4,5}\b", " ".join(filter(None, methods)))]
    lines = ["```bibtex"]
    for paper in dict.fromkeys(filter(None, papers)):
        key = "arxiv_" + paper.replace(".", "_")
        lines += [f"@misc{{{key},", f"  eprint = {{{paper}}},", "  archivePrefix = {arXiv},"]
        lines += [f"  url = {{https://arxiv.org/abs/{paper}}}", "}"]
    lines += ["@software{fulgurite,", "  title = {Fulgurite: training, conversion and a model zoo for"]
    lines += ["           spiking neural networks},", "  author = {{The Fulgurite maintainers}}"]
    return "\n".join([*lines, "}", "```"])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    cells = [[c.replace("|", "\\|").replace("\n", " ") for c in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
