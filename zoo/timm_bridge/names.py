"""Names of timm's own models, and what timm says about them without building one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spiking.arguments import nearest
from zoo.files.layout import UNKNOWN
from zoo.files.weights import WeightsCfg
from zoo.registry import is_registered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

PREFIX = "timm/"
PLACES = (  # of weights, in a cfg
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load",
)  # fmt: skip


def is_timm(name: str) -> bool:
    """Whether timm itself, not this zoo, has a model ``NAME`` or ``NAME.TAG``."""
    import timm

    base = name.split(".", 1)[0]
    return bool(timm.is_model(base)) and not is_registered(base)


def no_timm(name: str) -> str:
    """What is said of a name that timm does not have."""
    import timm

    near = nearest(name.partition(".")[0], timm.list_models())
    hint = f"did you mean '{PREFIX}{near}'?" if near else "zoo.list_models('timm/*') lists what it has"
    return f"timm has no model {name[:200]!r}; {hint}"


def list_timm(pattern: str, pretrained: bool) -> list[str]:
    """Names of timm's classifiers, as ``timm/NAME``, or with weights as ``timm/NAME.TAG``."""
    import timm

    found: list[str] = timm.list_models(pattern, pretrained=pretrained)
    names = [name for name in found if is_timm(name)]
    if pretrained:  # the others are backbones without a head, which classify nothing
        names = [name for name in names if pretrained_cfg(name).num_classes]
    return [PREFIX + name for name in sorted(names)]


def pretrained_cfg(name: str) -> Any:
    """The configuration in timm of the weights ``NAME.TAG``, which it has."""
    import timm

    return timm.get_pretrained_cfg(name)


def timm_family(name: str) -> str:
    """The file of timm that model ``NAME`` or ``NAME.TAG`` is written in."""
    import timm

    entry: Any = timm.models.model_entrypoint(name.partition(".")[0])
    return str(entry.__module__).rpartition(".")[2]


def timm_weights(name: str) -> dict[str, WeightsCfg]:
    """Weights of timm's model ``name``, by tag; timm's own choice comes first."""
    import timm

    found: dict[str, WeightsCfg] = {}
    for full in timm.list_pretrained(f"{name}.*"):
        if full.split(".", 1)[0] == name:
            cfg = pretrained_cfg(full)
            found[cfg.tag] = WeightsCfg(
                url=f"hf-hub:{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url or None,
                input_size=tuple(cfg.input_size),
                num_classes=cfg.num_classes,
                licence=None if cfg.license in UNKNOWN else cfg.license,
                paper=arxiv_id(cfg.paper_ids),
            )
    first = getattr(timm.get_pretrained_cfg(name), "tag", None)
    return {t: found[t] for t in sorted(found, key=lambda t: (t != first, t))}


def arxiv_id(ids: Any) -> str | None:
    """The first arXiv id in the ``paper_ids`` of a configuration."""
    names = [ids] if isinstance(ids, str) else list(ids or ())
    return next((n.partition(":")[2] for n in names if str(n).lower().startswith("arxiv:")), None)


def timm_origin(model: nn.Module) -> dict[str, str | None] | None:
    """Name, licence and address of the weights that a network of timm, or one made of it, came with.

    What its configuration says: whether they were loaded, or trained anew, timm does not record.
    """
    cfg: Mapping[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    architecture = str(cfg.get("architecture") or "")
    if not architecture or not is_timm(architecture):
        return None
    hub = cfg.get("hf_hub_id")
    return {
        "name": PREFIX + ".".join(filter(None, (architecture, cfg.get("tag")))),
        "licence": None if cfg.get("license") in UNKNOWN else str(cfg.get("license")),
        "url": f"https://huggingface.co/{hub}" if hub else cfg.get("origin_url") or cfg.get("url") or None,
    }
