"""Numbers that the methods' authors' code produced, found by what each file holds, whatever it is called.

``GOLDENS_DIR`` names the folder; every ``.json`` below it is a sidecar of a ``.safetensors`` file beside it.
A test says which tensors it needs and what the sidecar must say, and runs over every file, or every case of a
file, that has them.
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("GOLDENS_DIR", ROOT / ".." / "shared" / "goldens")).resolve()
ABSENT = f"no golden files in {GOLDENS}; set GOLDENS_DIR to the folder that holds them"
EPSILON = torch.finfo(torch.float32).eps


class Golden:
    """The tensors of one file, or of one of its cases, with the sidecar; remembers what was looked at."""

    def __init__(self, path: Path, case: str = "") -> None:
        self.path, self.case = path, case
        self.sidecar: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.settings: dict[str, Any] = self.sidecar.get("cases", {}).get(case, {}) if case else self.sidecar
        names = list(self.sidecar.get("tensors", ()))
        prefix = f"{case}/" if case else ""
        self.keys = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        self.shared = {name for name in names if "/" not in name} if case else set()
        self.seen: set[str] = set()

    @property
    def name(self) -> str:
        """Path below the folder of goldens, and the case."""
        name = self.path.relative_to(GOLDENS).with_suffix("").as_posix()
        return f"{name}-{self.case}" if self.case else name

    @property
    def case_names(self) -> list[str]:
        """Cases as the names of the tensors tell them."""
        return list(dict.fromkeys(k.split("/")[0] for k in self.sidecar.get("tensors", ()) if "/" in k))

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        file = self.path.with_suffix(".safetensors")
        whole = load_file(file if file.is_file() else self.path.parent / self.sidecar["file"])
        assert set(whole) == set(self.sidecar["tensors"])
        prefix = f"{self.case}/" if self.case else ""
        own = {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}
        return {**{k: whole[k] for k in self.shared}, **own}

    def holds(self, *patterns: str) -> bool:
        """Whether there is a tensor for each pattern; ``*`` stands for anything, ``!`` in front for none."""

        def found(pattern: str) -> bool:
            return any(fnmatchcase(key, pattern) for key in self.keys)

        return all(not found(p[1:]) if p.startswith("!") else found(p) for p in patterns)

    def __contains__(self, key: str) -> bool:
        return key in self.keys

    def __getitem__(self, key: str) -> torch.Tensor:
        self.seen.add(key)
        return self.tensors[key]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """All tensors whose name starts so, without that start."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        self.seen |= {prefix + k for k in found}
        return found

    @property
    def tolerance(self) -> dict[str, float]:
        """What the sidecar states as a number; the files of cases state relative 1e-4, absolute 1e-5."""
        stated = self.sidecar.get("tolerance")
        if isinstance(stated, dict):
            stated = stated.get("absolute")
        return {"rtol": 1e-4, "atol": 1e-5} if stated is None else {"rtol": 0.0, "atol": stated}

    def close(
        self, key: str, got: torch.Tensor, rtol: float | None = None, atol: float | None = None
    ) -> None:
        """Compare within the tolerance given, or else the sidecar's."""
        default, expected = self.tolerance, self[key]
        torch.testing.assert_close(
            got.detach().reshape(expected.shape).to(expected.dtype),
            expected,
            rtol=default["rtol"] if rtol is None else rtol,
            atol=default["atol"] if atol is None else atol,
            msg=lambda m: f"{key}: {m}",
        )

    def sum_close(self, key: str, got: torch.Tensor, summands: int) -> None:
        """Compare sums of many float32 numbers: two orders of summation differ by rounding at every addition.

        The partial sums are about as large as the largest entry, and their roundings add up like a random
        walk: four standard deviations are allowed on top of the tolerance stated.
        """
        largest = float(self[key].abs().max()) if self[key].numel() else 0.0
        self.close(key, got, atol=self.tolerance["atol"] + 4 * summands**0.5 * EPSILON * largest)

    def equal(self, key: str, got: torch.Tensor) -> None:
        """Compare exactly: spikes."""
        assert torch.equal(got.detach().to(self[key].dtype), self[key]), f"{key} differs"

    def spikes(self, key: str, got: torch.Tensor, height: float | torch.Tensor = 1.0) -> None:
        """Who fires must agree exactly, how high up to rounding."""
        assert torch.equal(got != 0, self[key] != 0), f"{key} differs"
        self.close(key, got * height)

    def output_and_gradients(
        self, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, noise: float = 2e-5
    ) -> None:
        """Compare ``y``, and the gradients of ``sum(y * grad_output)`` for ``x`` and all parameters listed.

        The files hold float32 sums whose terms are as large as the largest entries; ``noise`` is what
        rounding may take, as a share of those.
        """
        self.close("y", y.float(), rtol=0, atol=1e-4)
        (y * self["grad_output"]).sum().backward()
        ours = {f"grad.{k}": p.grad for k, p in module.named_parameters()} | {"grad_x": x.grad}
        for key in sorted(k for k in self.keys if k.startswith("grad.") or k == "grad_x"):
            got = ours[key.replace("_linear.", "_conv.")]
            assert got is not None, key
            self.close(key, got.float(), atol=noise * float(self[key].abs().max()))

    def everything_was_compared(self) -> None:
        left = self.keys - self.seen
        assert not left, f"not looked at: {sorted(left)}"


def from_repository(name: str) -> Callable[[Golden], bool]:
    """For ``where``: whether the sidecar names this repository as the source of its numbers."""
    return lambda g: name in g.sidecar["source"].get("repository", "")


SIDECARS = sorted(GOLDENS.rglob("*.json")) if GOLDENS.is_dir() else []
TABLES = sorted(GOLDENS.rglob("*.tsv")) if GOLDENS.is_dir() else []
FILES = [Golden(path) for path in SIDECARS]
CLAIMED: dict[Path, set[str]] = {}  # by file: the cases that a test runs over, "" for the whole


def claim(path: Path, case: str = "") -> None:
    CLAIMED.setdefault(path, set()).add(case)


def _parametrize(argument: str, values: list[tuple[Any, str]], what: str) -> pytest.MarkDecorator:
    if values:
        found, names = zip(*values, strict=True)
        return pytest.mark.parametrize(argument, found, ids=names, indirect=True)
    reason = f"no golden in {GOLDENS} holds {what}" if FILES else ABSENT
    skipped = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")
    return pytest.mark.parametrize(argument, [skipped], indirect=True)


def over_files(*patterns: str, where: Callable[[Golden], bool] = lambda g: True) -> pytest.MarkDecorator:
    """Run a test, as ``golden``, over every file that holds these tensors."""
    chosen = [g for g in FILES if not g.case_names and g.holds(*patterns) and where(g)]
    for g in chosen:
        claim(g.path)
    return _parametrize("golden", [(g.path, g.name) for g in chosen], " ".join(patterns))


def over_cases(*patterns: str, where: Callable[[Golden], bool] = lambda g: True) -> pytest.MarkDecorator:
    """Run a test, as ``case``, over every case, of whatever file, that holds these tensors."""
    every = [Golden(g.path, name) for g in FILES for name in g.case_names]
    chosen = [g for g in every if g.holds(*patterns) and where(g)]
    for g in chosen:
        claim(g.path, g.case)
    return _parametrize("case", [((g.path, g.case), g.name) for g in chosen], " ".join(patterns))
