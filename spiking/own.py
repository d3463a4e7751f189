"""Classes of the user's by their path, ``my_net.Net``: code of theirs runs only where they asked for it."""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")


def is_path(name: Any) -> bool:
    """Whether a name is the path of a class: ``my_net.Net``.

    >>> is_path("my_net.Net"), is_path("lif"), is_path("resnet18.a1_in1k")
    (True, False, False)
    """
    parts = str(name).split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts) and parts[-1][0].isupper()


def import_class(path: str, base: type[C]) -> type[C]:
    """The class of a path that the user wrote, as a configuration of theirs does; imports its module.

    Args:
        path: ``MODULE.CLASS``.
        base: what it must derive from.

    Raises:
        ValueError: there is no such module or class, or it derives from something else.
    """
    name = path.rpartition(".")[0]
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {name!r} for {path}; it is looked for in the working directory, beside"
                " the YAML file, and among what is installed"
            ) from error
        raise
    return own_class(path, base)


def own_class(path: str, base: type[C]) -> type[C]:
    """The class of a path that may come from elsewhere, as from a checkpoint.

    Its module must have been imported already, or lie in the working directory: a description never makes
    other code run.

    Args:
        path: ``MODULE.CLASS``.
        base: what it must derive from.

    Raises:
        ValueError: the module is neither, or has no such class.
    """
    name, _, cls = path.rpartition(".")
    if name not in sys.modules:
        if not _is_here(name.partition(".")[0]):
            raise ValueError(f"{path} is a class of its author's own: import {name} first, if you trust it")
        importlib.import_module(name)
    found = getattr(sys.modules[name], cls, None)
    if found is None:
        raise ValueError(f"the module {name} ({_file(name)}) has no class {cls!r}")
    if not isinstance(found, type) or not issubclass(found, base):
        raise ValueError(f"{path} must be a class that derives from {base.__module__}.{base.__name__}")
    return found


def accepted_arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a constructor by name, those of its bases behind ``**kwargs`` included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        own = inspect.signature(vars(base)["__init__"]).parameters.values()
        named = {p.name: p for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found = {**named, **found}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    found.pop("self", None)
    return found


def _is_here(module: str) -> bool:
    """Whether a module that has not been imported is a file or a folder of the working directory."""
    try:
        spec = find_spec(module)
    except ValueError:
        return False
    here = Path.cwd()
    return spec is not None and spec.origin is not None and here in Path(spec.origin).resolve().parents[:2]


def _file(module: str) -> str:
    return str(getattr(sys.modules[module], "__file__", None) or "built in")
