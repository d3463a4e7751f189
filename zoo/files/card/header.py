"""The YAML header of a card, which the Hub reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from zoo.files.card.licences import licence_fields
from zoo.files.card.markdown import slug
from zoo.files.card.measured import index_entries

if TYPE_CHECKING:
    from zoo.files.description import Description
    from zoo.tasks import Task


def header(described: Description, task: Task) -> str:
    """The header, without the lines that fence it."""
    from huggingface_hub import ModelCardData

    own = described.recorded
    tags = [*(["spiking-neural-network"] if own.time_steps else []), *task.tags]
    if own.conversion:
        tags += ["ann-to-snn-conversion", slug(str(described.model_args["method"]))]
    if own.paper:
        tags.append(f"arxiv:{own.paper}")
    results = index_entries(own, task)
    base = (own.origin.name if own.origin else None) or ""
    hub = re.fullmatch(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@\w+)?", base)
    licence: dict[str, Any] = licence_fields(own.licence)
    headline = task.metrics[task.headline].hub
    return ModelCardData(
        library_name="fulgurite",
        pipeline_tag=task.pipeline_tag,
        tags=tags,
        datasets=[own.dataset_id] if own.dataset_id else None,
        metrics=[headline] if results and headline else None,
        base_model=hub.group(1) if hub else None,
        model_name=described.architecture,
        eval_results=results or None,
        **licence,
    ).to_yaml()
