"""Names of models, ours and timm's."""

from __future__ import annotations

from zoo.registry import list_entries, normalize_name
from zoo.timm_bridge.names import PREFIX, list_timm, timm_family


def list_models(
    pattern: str = "*",
    *,
    pretrained: bool = False,
    task: str | None = None,
    family: str | None = None,
    paper: str | None = None,
) -> list[str]:
    """Sorted names of entries, or of timm's classifiers.

    Args:
        pattern: shell-style pattern; ``-`` and ``_`` are the same. ``"timm/*resnet*"`` looks into timm.
        pretrained: only what has weights, as ``name.tag``.
        task: only entries of this task, e.g. ``"classification"``.
        family: only entries written in this file of the zoo, e.g. ``"sew_resnet"``.
        paper: only entries of this paper, an arXiv id.
    """
    pattern = normalize_name(pattern)
    if not pattern.startswith(PREFIX):
        return list_entries(pattern, pretrained=pretrained, task=task, family=family, paper=paper)
    wanted = task in (None, "classification") and paper is None
    found = list_timm(pattern.removeprefix(PREFIX), pretrained) if wanted else []
    return [n for n in found if family is None or timm_family(n.removeprefix(PREFIX)) == family]
