"""Names: which entries exist, what they are, and how a name that somebody typed is found."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from zoo.errors import UnknownModelError
from zoo.files.layout import WeightsCfg, find_weights
from zoo.timm_bridge.models import PREFIX, list_timm, timm_family

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    FilterFn = Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]

F = TypeVar("F", bound="Callable[..., nn.Module]")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A registered model: the function that builds it and what is known without building it."""

    name: str
    fn: Callable[..., nn.Module]
    paper: str | None
    task: str
    cfg: Mapping[str, Any]
    declared: Mapping[str, WeightsCfg]
    note: str | None
    checkpoint_filter_fn: FilterFn | None
    listed: bool = True

    @property
    def family(self) -> str:
        """Name of the file that registers it."""
        return self.fn.__module__.rpartition(".")[2]

    @property
    def weights(self) -> dict[str, WeightsCfg]:
        """Weights by tag: those declared in the code, then those found in the weights folders."""
        return {**find_weights(self.name), **self.declared}


_ENTRIES: dict[str, Entry] = {}


def normalize_name(name: str) -> str:
    """Canonical form of a model name: lower case, ``-`` becomes ``_``; the tag keeps its place.

    >>> normalize_name("SpikingResformer-L.imagenet1k_t4")
    'spikingresformer_l.imagenet1k_t4'
    """
    return name.strip().lower().replace("-", "_")


def split_tag(name: str) -> tuple[str, str | None]:
    """``"name.tag"`` -> ``("name", "tag")``, ``"name"`` -> ``("name", None)``, normalised."""
    base, _, tag = normalize_name(name).partition(".")
    return base, tag or None


@overload
def register_model(fn: F, /) -> F: ...
@overload
def register_model(
    *,
    paper: str | None = None,
    task: str = "classification",
    input_size: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    cfg: Mapping[str, Any] | None = None,
    weights: Mapping[str, WeightsCfg] | None = None,
    note: str | None = None,
    checkpoint_filter_fn: FilterFn | None = None,
    listed: bool = True,
) -> Callable[[F], F]: ...
def register_model(
    fn: F | None = None,
    /,
    *,
    paper: str | None = None,
    task: str = "classification",
    input_size: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    cfg: Mapping[str, Any] | None = None,
    weights: Mapping[str, WeightsCfg] | None = None,
    note: str | None = None,
    checkpoint_filter_fn: FilterFn | None = None,
    listed: bool = True,
) -> F | Callable[[F], F]:
    """Register a function under its own name, here and with timm; use bare or with arguments.

    Args:
        fn: ``f(**kwargs) -> model`` that passes ``kwargs`` on to ``zoo.build_model``.
        paper: arXiv id of the architecture.
        task: what `list_models` filters by.
        input_size: ``(C, H, W)`` of the default input.
        num_classes: K of the default classifier.
        cfg: further fields of timm's ``pretrained_cfg`` (mean, std, crop_pct, first_conv, ...).
        weights: published weights by tag; files in the weights folders need no mention.
        note: where else weights can be had; part of the message when there are none.
        checkpoint_filter_fn: ``f(state_dict, model) -> state_dict``; maps the authors' own keys.
        listed: whether `list_models` shows the entry; not where it means nothing without arguments.

    Returns:
        The function, unchanged.
    """

    def register(function: F) -> F:
        name = function.__name__
        if name != normalize_name(name) or "." in name:
            raise ValueError(
                f"{name!r} is no valid entry name; use snake_case such as {split_tag(name)[0]!r}"
            )
        full_cfg = {"input_size": input_size, "num_classes": num_classes, **(cfg or {})}
        full_cfg["architecture"] = name
        if paper is not None:
            full_cfg.setdefault("paper_ids", f"arXiv:{paper}")
        entry = Entry(
            name=name,
            fn=function,
            paper=paper,
            task=task,
            cfg=full_cfg,
            declared=dict(weights or {}),
            note=note,
            checkpoint_filter_fn=checkpoint_filter_fn,
            listed=listed,
        )
        _register_with_timm(entry)  # first: it refuses a name that timm has
        _ENTRIES[name] = entry
        return function

    return register if fn is None else register(fn)


def _register_with_timm(entry: Entry) -> None:
    import timm.models
    from timm.models._pretrained import DefaultCfg, PretrainedCfg

    if entry.name in _ENTRIES:
        taken = _ENTRIES[entry.name].fn
        raise ValueError(f"the name {entry.name!r} is taken by {taken.__module__}; choose another")
    if timm.models.is_model(entry.name):
        # replacing timm's model would change the source of every conversion without a word
        raise ValueError(f"timm has a model named {entry.name!r}; prefix the family, e.g. 'spiking_'")

    @functools.wraps(entry.fn)
    def timm_entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from zoo.factory import build_for_timm  # _build imports this module

        return build_for_timm(entry, pretrained, kwargs)

    module = sys.modules[entry.fn.__module__]
    defaults = vars(module).setdefault("default_cfgs", {})  # where timm's decorator looks
    default = DefaultCfg()
    default.tags.append("")
    default.cfgs[""] = PretrainedCfg(**entry.cfg)
    defaults[entry.name] = default
    timm.models.register_model(timm_entry)


def get_entry(name: str) -> Entry:
    """The entry called ``name`` (any spelling of ``-`` and case, tag ignored)."""
    base, _ = split_tag(name)
    if base in _ENTRIES:
        return _ENTRIES[base]
    listed = [n for n, e in _ENTRIES.items() if e.listed]
    near = difflib.get_close_matches(base, listed, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else "zoo.list_models() lists all names"
    if not near:
        import timm

        if timm.is_model(base):
            hint = f"timm has it: 'timm/{name}'"
    raise UnknownModelError(f"unknown model {name!r}; {hint}")


def is_registered(name: str) -> bool:
    """Whether an entry of this name exists."""
    return split_tag(name)[0] in _ENTRIES


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
    if pattern.startswith(PREFIX):
        wanted = task in (None, "classification") and paper is None
        found = list_timm(pattern.removeprefix(PREFIX), pretrained) if wanted else []
        return [n for n in found if family is None or timm_family(n.removeprefix(PREFIX)) == family]
    names: list[str] = []
    for name in sorted(_ENTRIES):
        entry = _ENTRIES[name]
        facts = ((task, entry.task), (family, entry.family), (paper, entry.paper))
        if not entry.listed or any(asked is not None and asked != own for asked, own in facts):
            continue
        choices = [f"{name}.{tag}" for tag in entry.weights] if pretrained else [name]
        names += [n for n in choices if fnmatch.fnmatch(n, pattern) or fnmatch.fnmatch(name, pattern)]
    return names
