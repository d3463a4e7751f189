"""What is told of inputs and outputs by kind of network, from the plain facts of an entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = list[tuple[str, str]]


def plain_facts(cfg: Mapping[str, Any]) -> Rows:
    """Rows of a table about inputs and outputs: what the entry's ``cfg`` says in plain values."""
    hidden = ("architecture", "paper_ids", "call")
    return [
        (
            key.replace("_", " ").capitalize(),
            _listed(value) if isinstance(value, list | tuple) else str(value),
        )
        for key, value in cfg.items()
        if key not in hidden and value is not None
    ]


def image_facts(cfg: Mapping[str, Any]) -> Rows:
    """Rows about an image classifier: ``(C, H, W)``, K, and how images are brought into that form."""
    steps = [f"mean {_listed(cfg['mean'])}"] if cfg.get("mean") else []
    steps += [f"std {_listed(cfg['std'])}"] if cfg.get("std") else []
    steps += [f"{cfg['interpolation']} resizing"] if cfg.get("interpolation") else []
    steps += [f"centre crop of {cfg['crop_pct']:g}"] if cfg.get("crop_pct") else []
    rows = [
        ("Input", "C, H, W = " + ", ".join(map(str, cfg.get("input_size") or ("?",)))),
        ("Classes", f"K = {cfg['num_classes']}" if cfg.get("num_classes") is not None else ""),
        ("Preprocessing", ", ".join(steps)),
    ]
    return [row for row in rows if row[1]]


def estimate_facts(cfg: Mapping[str, Any]) -> Rows:
    """Rows about a network of images that estimates numbers."""
    return [("Numbers" if label == "Classes" else label, value) for label, value in image_facts(cfg)]


def agent_facts(cfg: Mapping[str, Any]) -> Rows:
    """Rows about an agent: D numbers in, A numbers out. An entry may say it in names of its own."""
    if "obs_dim" not in cfg or "act_dim" not in cfg:
        return plain_facts(cfg)
    limit, known = cfg.get("act_limit"), ("obs_dim", "act_dim", "act_limit")
    action = f"A = {cfg['act_dim']}" + (f", each in [-{limit:g}, {limit:g}]" if limit is not None else "")
    rows = [("Observation", f"D = {cfg['obs_dim']}"), ("Action", action)]
    return [*rows, *plain_facts({k: v for k, v in cfg.items() if k not in known})]


def _listed(values: Sequence[Any]) -> str:
    return f"({', '.join(map(_text, values))})"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _listed(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
