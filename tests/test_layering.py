"""Packages, folders and files import one way, and no module keeps habits the project has sworn off."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.imports import House, Module, circles

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["spiking", "conversion", "zoo", "lightning_modules", "cli"]
ALLOWED = {name: set(ORDER[: i + 1]) for i, name in enumerate(ORDER)}
ALLOWED["datamodules"] = {"datamodules"}
ALLOWED["cli"] |= {"datamodules"}
if (ROOT / "fulgurite").is_dir():
    ALLOWED["fulgurite"] = {"fulgurite", *ALLOWED}
HOUSE = House(ROOT, ALLOWED)
MODULES = [pytest.param(module, id=str(module.path.relative_to(ROOT))) for module in HOUSE.modules.values()]
PACKAGES = sorted(module.name for module in HOUSE.modules.values() if module.is_package)

LINES = 350
FUNCTION_LINES = 60
# What is longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {
    "_backward_kernel": "one Triton kernel, which keeps its state in registers and calls no function",
}


def refuse_circles(arrows: dict[str, set[str]]) -> None:
    found = [set(c) for c in circles(arrows)]
    text = [f"  {a} -> {b}" for c in found for a in sorted(c) for b in sorted(arrows[a] & c)]
    assert not found, "\n".join(["import circle", *text])


def test_files_import_one_way():
    assert len(HOUSE.modules) > 100
    refuse_circles(HOUSE.arrows)


@pytest.mark.parametrize("package", PACKAGES)
def test_folders_import_one_way(package):
    refuse_circles(HOUSE.between_siblings(package))


@pytest.mark.parametrize("module", MODULES)
def test_packages_import_one_way(module: Module):
    package = module.name.split(".")[0]
    named = {one.module.split(".")[0] for one in module.imports} & set(ALLOWED)
    foreign = named - ALLOWED[package]
    assert not foreign, f"{package} must not import {sorted(foreign)}"


@pytest.mark.parametrize("module", MODULES)
def test_what_is_private_stays_in_its_folder(module: Module):
    """``_x`` is a helper of the files beside it: other folders neither import it nor reach for it."""
    reached = [(one.module, one.name, one.line) for one in module.imports]
    bound = {one.bound: one for one in module.imports if one.module.split(".")[0] in ALLOWED}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
            one = bound[node.value.id]
            owner = f"{one.module}.{one.name}".strip(".")
            if owner in HOUSE.modules and not node.attr.startswith("__"):
                reached.append((owner, node.attr, node.lineno))
    for owner, name, line in reached:
        parts = [*owner.split("."), *([name] if name else [])]
        private = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
        if parts[0] not in ALLOWED or not private:
            continue
        above = ".".join(parts[: private[0]])
        home = HOUSE.modules[above].folder if above in HOUSE.modules else above
        assert module.folder == home, f"line {line}: {'.'.join(parts)} belongs to {home} alone"


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_to_the_rules(module: Module):
    called = {id(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
    for node in ast.walk(module.tree):
        assert not isinstance(node, ast.Global), f"line {node.lineno}: global statement"
        if isinstance(node, ast.ImportFrom):
            assert all(a.name != "*" for a in node.names), f"line {node.lineno}: star import"
        if isinstance(node, ast.Attribute) and node.attr == "cuda":
            assert id(node) not in called, f"line {node.lineno}: .cuda() call; let Lightning move things"


@pytest.mark.parametrize("module", MODULES)
def test_file_is_short(module: Module):
    if module.name not in LONG_FILES:
        assert len(module.source.splitlines()) <= LINES


def functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, int]]:
    """Every function below ``node``: its name with those of the classes around it, and its lines."""
    for child in ast.iter_child_nodes(node):
        name = f"{inside}{getattr(child, 'name', '')}"
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, (child.end_lineno or 0) - child.lineno + 1
        is_scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(child, f"{name}." if is_scope else inside)


@pytest.mark.parametrize("module", MODULES)
def test_functions_are_short(module: Module):
    for name, length in functions(module.tree):
        if name not in LONG_FUNCTIONS:
            assert length <= FUNCTION_LINES, f"{name} has {length} lines"


def test_circles_are_found():
    arrows = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"e"}, "f": {"g"}, "g": {"f", "a"}}
    assert sorted(circles(arrows)) == [["a", "b", "c"], ["f", "g"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_names_are_followed_to_the_file_that_defines_them(tmp_path):
    files = {
        "p/__init__.py": "from p.low import f as g\nfrom p import rooms\n",
        "p/low.py": "def f(): ...\n",
        "p/rooms/__init__.py": "from p import g\nx = 1\n",
        "p/rooms/a.py": "from p import g\nfrom . import x\n",
        "p/rooms/b.py": "def f():\n    from .a import y\n    import p.low\n",
        "p/top.py": "from p.rooms import g, x, a\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    house = House(tmp_path, ["p"])
    assert house.arrows == {
        "p": {"p.low", "p.rooms"},
        "p.low": set(),
        "p.rooms": {"p.low"},
        "p.rooms.a": {"p.low", "p.rooms"},
        "p.rooms.b": {"p.low", "p.rooms.a"},
        "p.top": {"p.low", "p.rooms", "p.rooms.a"},
    }
    assert house.between_siblings("p") == {
        "p.__init__": {"p.low", "p.rooms"},
        "p.rooms": {"p.low"},
        "p.top": {"p.low", "p.rooms"},
    }
