"""Who imports whom, read from the source: imports inside functions and for types alone count as well."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Import:
    """One name that a file takes: ``from module import name``; of ``import module``, ``name`` is empty."""

    module: str
    name: str
    line: int
    bound: str


@dataclass
class Module:
    """One file of a package."""

    name: str
    path: Path
    is_package: bool
    imports: list[Import] = field(default_factory=list)

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Those of the tree, in no particular order."""
        return list(ast.walk(self.tree))

    @property
    def folder(self) -> str:
        """The package in which the file lies; of ``__init__.py``, the package itself."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


class House:
    """The files below ``root`` that belong to ``packages``, and the arrows between them."""

    def __init__(self, root: Path, packages: Iterable[str]) -> None:
        self.modules: dict[str, Module] = {}
        for path in sorted(p for name in packages for p in (root / name).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            module = Module(name, path, is_package)
            module.imports = list(_imports(module))
            self.modules[name] = module

    def target(self, one: Import) -> str | None:
        """The file behind an import: a package that only hands a name on is looked through."""
        module, name = one.module, one.name
        for _ in range(20):
            if not name or f"{module}.{name}" in self.modules:
                module = f"{module}.{name}" if name else module
                return module if module in self.modules else None
            if module not in self.modules:
                return None
            here = self.modules[module]
            handed = {i.bound: i for i in here.imports} if here.is_package else {}
            if name not in handed:
                return module
            module, name = handed[name].module, handed[name].name
        raise AssertionError(f"{one.module}.{one.name} is handed round in a circle")

    @cached_property
    def arrows(self) -> dict[str, set[str]]:
        """File by file, the other files that it imports."""
        found: dict[str, set[str]] = {name: set() for name in self.modules}
        for module in self.modules.values():
            targets = {self.target(i) for i in module.imports} - {None, module.name}
            found[module.name] |= {t for t in targets if t is not None}
        return found

    def between_siblings(self, package: str) -> dict[str, set[str]]:
        """Arrows between the folders and files that lie directly in ``package``."""
        found: dict[str, set[str]] = defaultdict(set)
        for source, targets in self.arrows.items():
            for target in targets:
                ends = self._child(package, source), self._child(package, target)
                if None not in ends and ends[0] != ends[1]:
                    found[str(ends[0])].add(str(ends[1]))
        return dict(found)

    @staticmethod
    def _child(package: str, module: str) -> str | None:
        if module == package:
            return f"{package}.__init__"
        if not module.startswith(f"{package}."):
            return None
        return f"{package}.{module.removeprefix(f'{package}.').split('.')[0]}"


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The sets of nodes that reach each other, each sorted; Tarjan's algorithm, without recursion."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for start in arrows:
        work = [] if start in index else [(start, iter(arrows.get(start, ())))]
        if work:
            index[start] = low[start] = len(index)
            stack.append(start)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    work.append((other, iter(arrows.get(other, ()))))
                    break
                if other in stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    cut = stack.index(node)
                    if len(stack) - cut > 1:
                        found.append(sorted(stack[cut:]))
                    del stack[cut:]
    return found


def _imports(module: Module) -> Iterable[Import]:
    for node in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                yield Import(alias.name, "", node.lineno, bound)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.folder.split(".")
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                yield Import(base, alias.name, node.lineno, alias.asname or alias.name)
