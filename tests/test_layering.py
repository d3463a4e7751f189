"""The packages import one way, and no module keeps habits the project has sworn off."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["spiking", "conversion", "zoo", "lightning_modules", "cli"]
ALLOWED = {name: set(ORDER[: i + 1]) for i, name in enumerate(ORDER)}
ALLOWED["datamodules"] = {"datamodules"}
ALLOWED["cli"] |= {"datamodules"}
FILES = sorted(p for name in ALLOWED for p in (ROOT / name).rglob("*.py"))


def imported_packages(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names & set(ALLOWED)


def test_files_are_found():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_to_the_rules(path):
    source = path.read_text()
    tree = ast.parse(source)
    package = path.relative_to(ROOT).parts[0]
    foreign = imported_packages(tree) - ALLOWED[package]
    assert not foreign, f"{package} must not import {sorted(foreign)}"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global statement"
        if isinstance(node, ast.ImportFrom):
            assert all(a.name != "*" for a in node.names), f"line {node.lineno}: star import"
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda" or not isinstance(node.ctx, ast.Load) or not _is_call(tree, node), (
                f"line {node.lineno}: .cuda() call; let Lightning move things"
            )
    assert len(source.splitlines()) <= 600, "split files over 600 lines"


def _is_call(tree: ast.AST, attribute: ast.Attribute) -> bool:
    return any(isinstance(n, ast.Call) and n.func is attribute for n in ast.walk(tree))
