"""The tutorials as they are stored; `make docs` runs them, once, and fails where a cell does."""

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def test_there_are_some():
    assert len(NOTEBOOKS) >= 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_outputs_and_says_how_to_run_it(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    for cell in code:
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    first = "".join(notebook["cells"][0]["source"])
    assert f"jupyter lab {path.name}" in first
    assert f"tutorials/{path.stem}\n" in (DOCS / "index.md").read_text(encoding="utf-8")
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}, "nothing of somebody's own machine"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3", "the kernel that every Jupyter has"
