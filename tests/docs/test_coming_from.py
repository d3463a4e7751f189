"""The page that sets programs of other libraries beside ours: both sides run, and compute the same."""

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coming_from.md"
PARTS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
NEEDS = {"SpikingJelly": ("loguru", "spikingjelly"), "snnTorch": ("snntorch",), "timm": ("timm",)}
DIFFER = {"Conversion"}  # two methods; the networks of timm are others, too


def sections(library):
    """Title, and the blocks of both sides, of each section."""
    for title, body in re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", PARTS[library], re.MULTILINE | re.DOTALL):
        sides = [
            re.findall(rf"^```{kind}\n(.*?)^```$", body, re.MULTILINE | re.DOTALL)
            for kind in ("py", "python")
        ]
        yield title, "".join(sides[0]), "".join(sides[1])


@pytest.mark.parametrize("library", NEEDS)
def test_both_sides_compute_the_same(library, tmp_path, monkeypatch):
    for name in NEEDS[library]:
        pytest.importorskip(name, reason="the extra 'interop' is not installed")
    monkeypatch.chdir(tmp_path)
    there, here = {}, {}
    compared = 0
    for title, theirs, ours in sections(library):
        assert theirs or ours or title == "Training", f"{title} of {library} shows nothing"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(theirs, f"{library}, {title}, there", "exec"), there)
            if library == "timm":  # other networks, which the test of all pages runs
                continue
            exec(compile(ours, f"{library}, {title}, here", "exec"), here)
        if title in DIFFER:
            continue
        for name in ("spikes", "loss"):
            if re.search(rf"\b{name}\b.* = ", theirs):  # what both sides call so
                assert there[name].detach().abs().sum() > 0
                torch.testing.assert_close(here[name], there[name], rtol=1e-5, atol=1e-6)
                compared += 1
    assert compared >= 3 or library == "timm"


def test_every_library_shows_the_same_programs():
    wanted = {"Training", "Conversion"}
    for library in NEEDS:
        assert wanted <= {title for title, _, _ in sections(library)}
