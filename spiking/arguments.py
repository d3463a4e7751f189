"""Settings that are checked by name, wherever they come in."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST = 2**31 - 1
LARGEST = 1e30  # of a setting; float32 holds its products with currents


def number(label: str, value: float, above: float | None = None) -> float:
    """A float that float32 can hold, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"{label} must be a finite number, got {shown(value)}")
    if above is not None and value <= above:
        raise ValueError(f"{label} must be greater than {above:g}, got {value!r}")
    return float(value)


def flag(label: str, value: bool) -> bool:
    """A truth value, or an error that names it: ``"no"`` is none, and would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{label} must be True or False, got {shown(value)}")
    return value


def integer(label: str, value: int, low: int = 1) -> int:
    """An integer of at least ``low``, or an error that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{label} must be an integer of at least {low}, got {shown(value)}")
    if value > MOST:
        raise ValueError(f"{label} must be an integer of at most {MOST}, got {shown(value)}")
    return value


def shown(value: object) -> str:
    """``value`` in an error, at a bearable length."""
    text = (
        repr(value)
        if not isinstance(value, int) or abs(value) < 10**30
        else f"{type(value).__name__} of many digits"
    )
    return text if len(text) <= 100 else text[:97] + "..."


def nearest(word: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that is spelt most like another, whatever the case; None if none is near.

    Args:
        word: what was given.
        known: what there is.
        cutoff: similarity from 0 to 1 below which nothing is near.
    """
    by_case = {name.lower(): name for name in known}
    found = difflib.get_close_matches(str(word).lower(), by_case, n=1, cutoff=cutoff)
    return by_case[found[0]] if found else None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``did you mean 'x'? `` for an error, or nothing if no known word is near."""
    near = nearest(word, known)
    return "" if near is None else f"did you mean {near!r}? "


def only_known(
    label: str,
    given: Iterable[str],
    known: Iterable[str],
    kind: str = "argument",
    error: type[Exception] = TypeError,
) -> None:
    """Refuse names that there are not, with the one that was meant.

    Args:
        label: what takes them.
        given: names that were given.
        known: names that it takes.
        kind: what they are.
        error: what is raised; a key of a mapping that came as a value makes that value wrong.

    Raises:
        TypeError: a name is none of them; or ``error``.
    """
    names = list(known)
    for name in given:
        if name not in names:
            told = ", ".join(names) or "none"
            raise error(f"{label} has no {kind} {name!r}; {did_you_mean(name, names)}accepted: {told}")


def tensor(label: str, value: Tensor, *, size: int | None = None) -> Tensor:
    """A floating-point tensor, or an error that names it.

    Args:
        label: its name.
        value: what was given.
        size: how many entries it must have.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{label} must be a tensor, got {shown(value)}")
    if not value.is_floating_point():
        raise TypeError(f"{label} must be of a floating-point type, got {value.dtype}")
    if size is not None and value.numel() != size:
        raise ValueError(f"{label} must have {size} entries, got {tuple(value.shape)}")
    return value


def time_constant(label: str, value: float) -> float:
    """A number of at least 1 step, or an error that names it."""
    if number(label, value) < 1.0:
        raise ValueError(f"{label} must be at least 1 step, got {value!r}")
    return float(value)
