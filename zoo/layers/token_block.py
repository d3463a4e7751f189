"""Which of a model's modules can run on part of their tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TokenBlock:
    """A module ``[T, B, C, H, W]`` -> ``[T, B, C, H, W]`` that can run on some of its tokens.

    Attributes:
        path: of the module; its input is what is scored.
        stage: number of the stage, so that the last stage can be picked.
        inner: the submodules that treat tokens one by one, if the module as a whole needs the grid; the
            others run on all tokens, and left-out tokens get zeros where these would have written.
        removable: whether nothing behind needs the grid, so that tokens may leave for good.
        entry: submodule that is the neuron in front, if the module begins with one.
        attention: submodule with a method ``project("k", x)`` that gives keys ``[T, B, h, d, N]``.
        mixer: submodule, the product whose first operand ``[..., N]`` is summed over tokens.
    """

    path: str
    stage: int
    inner: tuple[str, ...] = ()
    removable: bool = False
    entry: str | None = None
    attention: str | None = None
    mixer: str | None = None
