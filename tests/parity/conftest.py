"""Reads numbers that the methods' authors' code produced, from the folder named by ``GOLDENS_DIR``."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
GOLDENS = Path(os.environ.get("GOLDENS_DIR", ROOT / ".." / "shared" / "goldens"))
DIRECT = GOLDENS / "direct_training"
ABSENT = f"no golden files in {GOLDENS}; set GOLDENS_DIR to the folder that holds them"


class DirectCase:
    """One case of a file of ``direct_training``: its settings, its tensors, and what was looked at."""

    def __init__(self, file: str, name: str) -> None:
        sidecar = json.loads((DIRECT / f"{file}.json").read_text(encoding="utf-8"))
        self.settings = sidecar["cases"].get(name, {})
        self.whole = sidecar
        prefix = f"{name}/"
        tensors = load_file(DIRECT / f"{file}.safetensors")
        assert set(tensors) == set(sidecar["tensors"])
        self.shared = {k: v for k, v in tensors.items() if "/" not in k}
        self.tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        self.seen.add(key)
        return self.tensors[key] if key in self.tensors else self.shared[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """All tensors whose name starts so, without that start."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        self.seen |= {prefix + k for k in found}
        return found

    def close(self, key: str, got: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
        """Compare within the tolerance that the sidecars state."""
        expected = self[key]
        torch.testing.assert_close(
            got.detach().reshape(expected.shape), expected, rtol=rtol, atol=atol, msg=lambda m: f"{key}: {m}"
        )

    def equal(self, key: str, got: torch.Tensor) -> None:
        """Compare exactly: spikes."""
        assert torch.equal(got.detach(), self[key]), f"{key} differs"

    def everything_was_compared(self) -> None:
        left = set(self.tensors) - self.seen
        assert not left, f"not looked at: {sorted(left)}"


def cases(file: str) -> list[str]:
    path = DIRECT / f"{file}.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["cases"]) if path.is_file() else []


def pytest_generate_tests(metafunc):
    """``case`` runs over the cases of the module's ``FILE``, whatever they are called and however many."""
    file = getattr(metafunc.module, "FILE", None)
    if file is None or "case" not in metafunc.fixturenames:
        return
    keep = getattr(metafunc.module, "keep", lambda name: True)
    names = [name for name in cases(file) if keep(name)]
    if names:
        metafunc.parametrize("case", [DirectCase(file, name) for name in names], ids=names)
    else:
        skip = pytest.mark.skip(reason=ABSENT)
        metafunc.parametrize("case", [pytest.param(None, marks=skip)], ids=["absent"])


@pytest.fixture
def direct():
    if not DIRECT.is_dir():
        pytest.skip(ABSENT)
    return DirectCase


@pytest.fixture
def conversion_cnn():
    """Reads one file of ``conversion_cnn``: its sidecar and its tensors."""
    folder = GOLDENS / "conversion_cnn"
    if not folder.is_dir():
        pytest.skip(ABSENT)

    def read(file):
        sidecar = json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / sidecar["file"])
        assert set(tensors) == set(sidecar["tensors"])
        return sidecar, tensors

    return read
