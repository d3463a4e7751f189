"""Every Python block of the README and of the documentation's pages runs as printed."""

import re
from pathlib import Path

import pytest

from spiking import neurons
from zoo import registry

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a block writes stays out of the checkout
    # and what it registers, out of the zoo and out of later tests
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.setattr(neurons, "NEURONS", dict(neurons.NEURONS))
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks(page), 1):
        code = compile(block, f"{page.name}, block {number}", "exec")
        exec(code, namespace)


def test_readme_names_the_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"\bmake ([a-z]+)", text):
        assert target in targets
    for config in re.findall(r"configs/[\w/]+\.yaml", text):
        assert (ROOT / config).is_file(), config
