"""Arguments of a network against the types that its constructor declares, before anything is built.

Values come from YAML files, where ``channels: 4`` for ``channels: [4]`` would otherwise end deep inside a
constructor, in an error that names neither the argument nor the way out.
"""

from __future__ import annotations

import collections.abc
import inspect
import numbers
import sys
import types
import typing
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from spiking.arguments import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

SIMPLE: dict[Any, tuple[type | tuple[type, ...], str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "true or false"),
    str: ((str, numbers.Integral), "a word"),  # which YAML reads as a number where it is one of digits
    dict: (collections.abc.Mapping, "a mapping {KEY: VALUE}"),
    collections.abc.Mapping: (collections.abc.Mapping, "a mapping {KEY: VALUE}"),
}
LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def check_types(name: str, cls: type, given: Mapping[str, Any]) -> None:
    """Refuse values of other types than the constructor declares.

    Numbers, words, truth values, lists and mappings are judged; choices and all other types are left to the
    constructor.

    Args:
        name: of the entry, for the message.
        cls: its class.
        given: what the caller asked for, by name; ``None`` is left alone, it means the default.

    Raises:
        ValueError: a value is of another type; the message names argument, value and what would do.
    """
    declared = inspect.signature(cls).parameters
    for key, value in given.items():
        if value is None or key not in declared:
            continue
        hint = _resolved(declared[key].annotation, cls)
        if _fits(value, hint):
            continue
        raise ValueError(f"{name}: {key} must be {_told(hint)}, got {shown(value)}")


def _resolved(annotation: Any, cls: type) -> Any:
    """The type behind an annotation; ``Any`` if its names are known to type checkers alone."""
    if not isinstance(annotation, str):
        return annotation
    known = {**vars(typing), **vars(collections.abc), **vars(sys.modules[cls.__module__])}
    try:
        return eval(annotation, known)  # our own source
    except (NameError, TypeError, AttributeError):
        return Any


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of which a value may be one."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, member) for member in _members(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (None, type(None)):
        return value is None
    if origin in SIMPLE:
        return isinstance(value, SIMPLE[origin][0]) and (origin is bool or not isinstance(value, bool))
    if origin in LISTS:
        if isinstance(value, str | numbers.Number | collections.abc.Mapping):
            return False
        if not isinstance(value, list | tuple):
            return True
        return _items_fit(value, get_args(hint), of_length=origin is tuple)
    return True


def _items_fit(value: list[Any] | tuple[Any, ...], kinds: tuple[Any, ...], *, of_length: bool) -> bool:
    if not kinds:
        return True
    if of_length and kinds[-1] is not Ellipsis:
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    return all(_fits(item, kinds[0]) for item in value)


def _told(hint: Any) -> str:
    """What would do, in words."""
    told: dict[str, None] = {}
    for member in _members(hint):
        origin = get_origin(member) or member
        if origin in SIMPLE:
            told[SIMPLE[origin][1]] = None
        elif origin in LISTS:
            told[_told_list(origin, get_args(member))] = None
        elif member not in (None, type(None)):
            told[getattr(member, "__name__", str(member))] = None
    return " or ".join(told)


def _told_list(origin: Any, kinds: tuple[Any, ...]) -> str:
    if not kinds:
        return "a list"
    if origin is tuple and kinds[-1] is not Ellipsis:
        return f"a list of {len(kinds)}: {', '.join(map(_told, kinds))}"
    items = _told(kinds[0])
    for one, many in (("a whole number", "whole numbers"), ("a number", "numbers"), ("a word", "words")):
        items = many if items == one else items
    return f"a list of {items}"
