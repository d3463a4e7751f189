"""Reads numbers that the methods' authors' code produced, from the folder named by ``GOLDENS_DIR``."""

import json
import math
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from zoo.models import qcfs_resnet, qcfs_vgg

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
        self.name = name
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

    def output_and_gradients(self, module, x: torch.Tensor, y: torch.Tensor, noise: float = 2e-5) -> None:
        """Compare ``y``, and the gradients of ``sum(y * grad_output)`` for ``x`` and all parameters listed.

        The files hold float32 sums whose terms are as large as the largest entries; ``noise`` is what
        rounding may take, as a share of those.
        """
        self.close("y", y.float(), rtol=0, atol=1e-4)
        (y * self["grad_output"]).sum().backward()
        ours = {f"grad.{k}": p.grad for k, p in module.named_parameters()} | {"grad_x": x.grad}
        for key in [k for k in self.tensors if k.startswith("grad.") or k == "grad_x"]:
            got = ours[key.replace("_linear.", "_conv.")]
            self.close(key, got.float(), atol=noise * float(self[key].abs().max()))

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


@pytest.fixture
def qcfs_source(conversion_cnn):
    """Reads one file of ``conversion_cnn`` and builds the source network that it describes."""

    def read(file):
        sidecar, golden = conversion_cnn(file)
        state = {k.removeprefix("params."): v for k, v in golden.items() if k.startswith("params.")}
        name, kwargs = described(sidecar, state, golden["input"])
        model = zoo.create(name, **kwargs).eval()
        module = qcfs_vgg if "vgg" in name else qcfs_resnet
        zoo.files.checkpoint.load_strict(model, module.checkpoint_filter_fn(state, model), source=file)
        return model, sidecar, golden

    return read


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def described(sidecar, state, image):
    """Arguments of the network that the sidecar describes in words."""
    text = sidecar["architecture"]
    kwargs = {"levels": sidecar["L"], "in_chans": image.shape[-3]}
    if "VGG" in text:
        plan = re.search(r"channel plan \[(\[.*?\])\] ", text)[1]
        kwargs["plan"] = [numbers(stage) for stage in plan.split("]")[:-1]]
        linear = [numbers(pair) for pair in re.findall(r"Linear\((.*?)\)", text)]
        kwargs |= {"hidden": linear[0][1], "num_classes": linear[-1][1]}
        kwargs["pool_size"] = math.isqrt(linear[0][0] // kwargs["plan"][-1][-1])
        return "qcfs_vgg16", kwargs
    kwargs["planes"] = numbers(re.search(r"widths ([\d,]+)", text)[1])
    kwargs["layers"] = numbers(re.search(r"per stage \[(.*?)\]", text)[1])
    return "qcfs_resnet20", {**kwargs, "num_classes": len(state["fc.bias"])}


class Golden:
    """One file of numbers with its sidecar; remembers what was looked at."""

    def __init__(self, name: str) -> None:
        path = GOLDENS / name
        if not path.with_suffix(".json").is_file():
            pytest.skip(ABSENT)
        self.sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.tensors = load_file(path.with_suffix(".safetensors"))
        assert set(self.tensors) == set(self.sidecar["tensors"])
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        self.seen.add(key)
        return self.tensors[key]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """All tensors whose name starts so, without that start."""
        found = {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}
        self.seen |= {prefix + k for k in found}
        return found

    def close(self, key: str, got: torch.Tensor, absolute: float | None = None) -> None:
        """Compare within ``absolute``, or within the absolute tolerance of the sidecar."""
        atol = self.sidecar["tolerance"]["absolute"] if absolute is None else absolute
        torch.testing.assert_close(got, self[key], rtol=0, atol=atol, msg=lambda m: f"{key}: {m}")

    def everything_was_compared(self) -> None:
        left = set(self.tensors) - self.seen
        assert not left, f"not looked at: {sorted(left)}"


@pytest.fixture
def golden():
    return Golden
