"""Packages, folders and files import one way, and no module keeps habits the project has sworn off.

One test for each rule, over all files: a test for each file and rule would be thousands, which take longer to
hand out than to run.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fulgurite.shadows import IMPORTED
from tests.imports import House, Module, circles

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["spiking", "conversion", "zoo", "lightning_modules", "cli"]
ALLOWED = {name: set(ORDER[: i + 1]) for i, name in enumerate(ORDER)}
ALLOWED["datamodules"] = {"datamodules"}
ALLOWED["cli"] |= {"datamodules"}
if (ROOT / "fulgurite").is_dir():
    ALLOWED["fulgurite"] = {"fulgurite", *ALLOWED}

LINES = 350
FUNCTION_LINES = 60
# What is longer, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {
    "_backward_kernel": "one Triton kernel, which keeps its state in registers and calls no function",
}


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT, ALLOWED)


def refuse_circles(arrows: dict[str, set[str]]) -> None:
    found = [set(c) for c in circles(arrows)]
    text = [f"  {a} -> {b}" for c in found for a in sorted(c) for b in sorted(arrows[a] & c)]
    assert not found, "\n".join(["import circle", *text])


def refuse(faults: Callable[[Module], Iterator[str]], house: House) -> None:
    found = [f"{m.path.relative_to(ROOT)}: {fault}" for m in house.modules.values() for fault in faults(m)]
    assert not found, "\n".join(found)


def test_files_import_one_way(house):
    assert len(house.modules) > 100
    refuse_circles(house.arrows)


def test_folders_import_one_way(house):
    for package in (module.name for module in house.modules.values() if module.is_package):
        refuse_circles(house.between_siblings(package))


def test_what_may_hide_a_package_is_looked_for_where_it_is_imported():
    assert {name: {name, *others} for name, others in IMPORTED.items()} == {
        name: allowed for name, allowed in ALLOWED.items() if name != "fulgurite"
    }


def test_packages_import_one_way(house):
    def faults(module: Module) -> Iterator[str]:
        package = module.name.split(".")[0]
        named = {one.module.split(".")[0] for one in module.imports} & set(ALLOWED)
        foreign = named - ALLOWED[package]
        if foreign:
            yield f"{package} must not import {sorted(foreign)}"

    refuse(faults, house)


def test_what_is_private_stays_in_its_folder(house):
    """``_x`` is a helper of the files beside it: other folders neither import it nor reach for it."""

    def faults(module: Module) -> Iterator[str]:
        reached = [(one.module, one.name, one.line) for one in module.imports]
        bound = {one.bound: one for one in module.imports if one.module.split(".")[0] in ALLOWED}
        for node in module.nodes:
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in bound
            ):
                one = bound[node.value.id]
                owner = f"{one.module}.{one.name}".strip(".")
                if owner in house.modules and not node.attr.startswith("__"):
                    reached.append((owner, node.attr, node.lineno))
        for owner, name, line in reached:
            parts = [*owner.split("."), *([name] if name else [])]
            private = [i for i, p in enumerate(parts) if p.startswith("_") and not p.startswith("__")]
            if parts[0] not in ALLOWED or not private:
                continue
            above = ".".join(parts[: private[0]])
            home = house.modules[above].folder if above in house.modules else above
            if module.folder != home:
                yield f"line {line}: {'.'.join(parts)} belongs to {home} alone"

    refuse(faults, house)


def test_modules_keep_to_the_rules(house):
    def faults(module: Module) -> Iterator[str]:
        called = {id(node.func) for node in module.nodes if isinstance(node, ast.Call)}
        for node in module.nodes:
            if isinstance(node, ast.Global):
                yield f"line {node.lineno}: global statement"
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                yield f"line {node.lineno}: star import"
            if isinstance(node, ast.Attribute) and node.attr == "cuda" and id(node) in called:
                yield f"line {node.lineno}: .cuda() call; let Lightning move things"

    refuse(faults, house)


def test_files_are_short(house):
    def faults(module: Module) -> Iterator[str]:
        lines = len(module.source.splitlines())
        if module.name not in LONG_FILES and lines > LINES:
            yield f"{lines} lines"

    refuse(faults, house)


def functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, int]]:
    """Every function below ``node``: its name with those of the classes around it, and its lines."""
    for child in ast.iter_child_nodes(node):
        name = f"{inside}{getattr(child, 'name', '')}"
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, (child.end_lineno or 0) - child.lineno + 1
        is_scope = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(child, f"{name}." if is_scope else inside)


def test_functions_are_short(house):
    def faults(module: Module) -> Iterator[str]:
        for name, length in functions(module.tree):
            if name not in LONG_FUNCTIONS and length > FUNCTION_LINES:
                yield f"{name} has {length} lines"

    refuse(faults, house)


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
