"""Names: which entries exist, what they are, and how a name that somebody typed is found."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from spiking.arguments import nearest
from zoo.errors import UnknownModelError
from zoo.files.layout import RUNS, runs
from zoo.files.weights import WeightsCfg, find_weights
from zoo.tasks import CLASSIFICATION, get_task, list_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from zoo.tasks import Task

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
    small: Mapping[str, Any] | None = None
    parameters: int | None = None
    parts: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Name of the file, or the folder in `zoo.models`, that registers it."""
        parts = self.fn.__module__.split(".")
        return parts[2] if parts[:2] == ["zoo", "models"] else parts[-1]

    @property
    def weights(self) -> dict[str, WeightsCfg]:
        """Weights by tag, of the weights folders and the code; those for the entry's own input come first."""
        found = {**find_weights(self.name), **self.declared}
        own = self.cfg.get("input_size")
        return dict(sorted(found.items(), key=lambda item: item[1].input_size != own))


_ENTRIES: dict[str, Entry] = {}
_LISTENERS: list[Callable[[Entry], None]] = []
_MADE: dict[str, Callable[[str], Entry]] = {}  # entries that are made of a name, by how it begins


def make_entries(prefix: str, make: Callable[[str], Entry]) -> None:
    """Let every name that begins with ``prefix`` be an entry, made when it is asked for."""
    _MADE[prefix] = make


def _maker(name: str) -> Callable[[str], Entry] | None:
    return next((make for prefix, make in _MADE.items() if name.startswith(prefix)), None)


def on_register(listener: Callable[[Entry], None]) -> None:
    """Show ``listener`` every entry: those that there are, and further ones before they are kept.

    An error of the listener refuses the entry.
    """
    for entry in _ENTRIES.values():
        listener(entry)
    _LISTENERS.append(listener)


def normalize_name(name: str) -> str:
    """Canonical form of a model name: lower case, ``-`` becomes ``_``; the tag keeps its place.

    >>> normalize_name("SpikingResformer-L.imagenet1k_t4")
    'spikingresformer_l.imagenet1k_t4'
    """
    return name.strip().lower().replace("-", "_")


def split_tag(name: str) -> tuple[str, str | None]:
    """``"name.tag"`` -> ``("name", "tag")``, ``"name"`` -> ``("name", None)``, normalised."""
    if _maker(name) is not None:  # the path of a class
        return name, None
    base, _, tag = normalize_name(name).partition(".")
    return base, tag or None


@overload
def register_model(fn: F, /) -> F: ...
@overload
def register_model(
    *,
    paper: str | None = None,
    task: str = "classification",
    input_size: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    cfg: Mapping[str, Any] | None = None,
    weights: Mapping[str, WeightsCfg] | None = None,
    note: str | None = None,
    checkpoint_filter_fn: FilterFn | None = None,
    listed: bool = True,
    small: Mapping[str, Any] | None = None,
    parameters: int | None = None,
    parts: Sequence[str] = (),
) -> Callable[[F], F]: ...
def register_model(
    fn: F | None = None,
    /,
    *,
    paper: str | None = None,
    task: str = "classification",
    input_size: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    cfg: Mapping[str, Any] | None = None,
    weights: Mapping[str, WeightsCfg] | None = None,
    note: str | None = None,
    checkpoint_filter_fn: FilterFn | None = None,
    listed: bool = True,
    small: Mapping[str, Any] | None = None,
    parameters: int | None = None,
    parts: Sequence[str] = (),
) -> F | Callable[[F], F]:
    """Register a function under its own name; use bare or with arguments. Who listens, hears of it.

    Args:
        fn: ``f(**kwargs) -> model`` that passes ``kwargs`` on to ``zoo.build_model``.
        paper: arXiv id of the architecture.
        task: name of a `zoo.tasks.Task`, which decides how inputs, metrics and usage are told.
        input_size: of an image classifier: ``(C, H, W)`` of the default input; missing: 3 x 224 x 224.
        num_classes: of an image classifier: K of the default head; missing: 1000.
        cfg: further plain facts about inputs and outputs; of an image classifier fields of timm's
            ``pretrained_cfg`` (mean, std, crop_pct, first_conv, ...).
        weights: published weights by tag; files in the weights folders need no mention.
        note: where else weights can be had; part of the message when there are none.
        checkpoint_filter_fn: ``f(state_dict, model) -> state_dict``; maps the authors' own keys.
        small: arguments of a member with the same code and a hundredth of the work, by which the entry is
            tested; one entry a family needs it.
        parameters: their number, of an analog network that is listed without the library that builds it.
        parts: state dicts of the authors' files, beside the network's own, that belong to it; their tensors
            reach ``checkpoint_filter_fn`` as ``NAME.KEY``.
        listed: whether `zoo.list_models` shows the entry; not where it means nothing without arguments, but
            its weights, which bring them, are shown.

    Returns:
        The function, unchanged.
    """

    def register(function: F) -> F:
        image = {"input_size": input_size, "num_classes": num_classes}
        given: dict[str, Any] = {key: value for key, value in image.items() if value is not None}
        given |= {} if paper is None else {"paper_ids": f"arXiv:{paper}"}
        entry = Entry(
            name=_valid_name(function),
            fn=function,
            paper=paper, task=task, note=note, listed=listed, small=small, parameters=parameters,
            cfg={**get_task(task).defaults, **given, **(cfg or {}), "architecture": function.__name__},
            declared=dict(weights or {}),
            checkpoint_filter_fn=checkpoint_filter_fn,
            parts=tuple(parts),
        )  # fmt: skip
        _add(entry)
        return function

    return register if fn is None else register(fn)


def _valid_name(function: Callable[..., Any]) -> str:
    name = function.__name__
    if name != normalize_name(name) or "." in name:
        raise ValueError(f"{name!r} is no valid entry name; use snake_case such as {split_tag(name)[0]!r}")
    if name in _ENTRIES:
        taken = _ENTRIES[name].fn.__module__
        raise ValueError(f"the name {name!r} is taken by {taken}; choose another")
    return name


def _add(entry: Entry) -> None:
    for listener in _LISTENERS:  # first: one of them refuses names that timm has
        listener(entry)
    _ENTRIES[entry.name] = entry


def task_of(model: nn.Module) -> Task:
    """What a network is for: what was noted when it was trained (``model.task``), else what its entry is for.

    Others are image classifiers of timm.
    """
    own = getattr(model, "task", None)
    if isinstance(own, str) and own in list_tasks():
        return get_task(own)
    name = str(getattr(model, "architecture", ""))
    return get_task(get_entry(name).task if name and is_registered(name) else CLASSIFICATION.name)


def get_entry(name: str) -> Entry:
    """The entry called ``name`` (any spelling of ``-`` and case, tag ignored)."""
    if (make := _maker(name)) is not None:
        return make(name)
    base, _ = split_tag(name)
    if base in _ENTRIES:
        return _ENTRIES[base]
    listed = [n for n, e in _ENTRIES.items() if e.listed]
    near = nearest(base, listed)
    run = None if near else nearest(name, runs())
    hint = f"did you mean {near or run!r}?" if near or run else "zoo.list_models() lists all names"
    if not near and (folder := next((p for p in (Path(name), Path(RUNS) / name) if p.is_dir()), None)):
        hint = f"the folder {folder} holds neither a network nor checkpoints of a run"
        hint += f"; did you mean {run!r}?" if run else ""
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        hint += f"; a class of your own is {{class_path: {name}}}"
    if _timm_has(base):
        ours = f"; the zoo has {near!r}" if near else ""
        hint = f"timm has it: 'timm/{name}'{ours}"
    raise UnknownModelError(f"unknown model {name!r}; {hint}")


def _timm_has(name: str) -> bool:
    import timm

    return bool(timm.is_model(name)) and name not in _ENTRIES


def is_registered(name: str) -> bool:
    """Whether an entry of this name exists."""
    return _maker(name) is not None or split_tag(name)[0] in _ENTRIES


def list_entries(
    pattern: str = "*",
    *,
    pretrained: bool = False,
    task: str | None = None,
    family: str | None = None,
    paper: str | None = None,
) -> list[str]:
    """Sorted names of our own entries; the arguments are those of `zoo.list_models`."""
    pattern = normalize_name(pattern)
    names: list[str] = []
    for name in sorted(_ENTRIES):
        entry = _ENTRIES[name]
        facts = ((task, entry.task), (family, entry.family), (paper, entry.paper))
        shown = entry.listed or pretrained  # weights bring the arguments that others would have to give
        if not shown or any(asked is not None and asked != own for asked, own in facts):
            continue
        choices = [f"{name}.{tag}" for tag in entry.weights] if pretrained else [name]
        names += [n for n in choices if fnmatch.fnmatch(n, pattern) or fnmatch.fnmatch(name, pattern)]
    return names
