"""What an exported file says about its network: enough to feed it and to read its answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from conversion import ConvertedModel
from zoo.files.description import PREPROCESSING
from zoo.rebuild import architecture_of, runs_over_time
from zoo.registry import get_entry, is_registered, task_of
from zoo.saving import version_of

if TYPE_CHECKING:
    from torch import nn


def metadata_of(model: nn.Module, step: bool = False) -> dict[str, str]:
    """Names and values, JSON where a value is more than a word; what is not known is left out.

    ``name``, ``task``, ``version``, ``form`` (``"all steps"`` or ``"one step"``), ``time_steps``,
    ``class_names``, ``input_size`` (C, H, W), ``mean``, ``std``, ``interpolation``, ``crop_pct``, ``method``
    of a conversion, ``paper`` (arXiv id), ``source`` and ``licence`` of the weights.
    """
    name = architecture_of(model)
    told: dict[str, Any] = {
        "name": name or type(model).__name__,
        "task": task_of(model).name,
        "version": f"fulgurite {version_of()}",
    }
    if runs_over_time(model):
        told |= {
            "form": "one step" if step else "all steps",
            "time_steps": getattr(model, "time_steps", None),
        }
    cfg = getattr(model, "pretrained_cfg", None)
    cfg = cfg if isinstance(cfg, dict) else {}
    told |= {key: cfg.get(key) for key in PREPROCESSING}
    told["class_names"] = getattr(model, "label_names", None) or cfg.get("label_names")
    if isinstance(model, ConvertedModel):
        told |= {"name": source_name(model), "method": model.method.name, "paper": model.method.paper}
    elif is_registered(name):
        told["paper"] = get_entry(name).paper
    origin = getattr(model, "origin", None) or {}
    told |= {"source": origin.get("url") or origin.get("name"), "licence": origin.get("licence")}
    return {key: as_text(value) for key, value in told.items() if value not in (None, "", [], ())}


def source_name(model: ConvertedModel) -> str:
    """What a converted network was made of, and that it was converted."""
    source = model.recipe.get("source") or {}
    return f"{source.get('architecture') or 'network'}, converted"


def as_text(value: Any) -> str:
    """``value`` as it is if it is a word, as JSON otherwise."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
