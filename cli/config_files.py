"""Whether the files that ``--config`` names are there, asked before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import fail, nearest
from cli.shipped_configs import OPTIONS, shipped_folder, shipped_names

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_config_files(words: Sequence[str], command: str = "fit") -> None:
    """Stop where a ``--config`` names a file that is not there, is no YAML, or is one of another command.

    Args:
        words: options that were typed.
        command: the command that they are for.
    """
    for index, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            continue
        if not equals:
            if index + 1 == len(words):
                fail(f"{option} needs a file")
            value = words[index + 1]
        path = Path(value)
        if path.is_file():
            text = path.read_text(errors="replace")
            if not text.strip():
                fail(f"the config file {value} is empty")
            _check_kind(value, _check_yaml(value, text), command)
            continue
        if value.lstrip().startswith("{"):  # a mapping typed in place
            _check_yaml(value, value)
            continue
        if path.is_dir():
            fail(f"--config {value} is a folder; name a YAML file in it")
        near = nearest(value, [*_known(path), *shipped_names()], cutoff=0.5)
        hint = f"; did you mean {near}?" if near else f" (looked in {os.getcwd()})"
        fail(f"no such config file: {value}{hint}")


MOST_NODES = 1_000_000  # of a YAML file, aliases written out


def _check_kind(name: str, tree: Any, command: str) -> None:
    """Stop where a file is no run, or the run of another command."""
    shipped = shipped_folder()
    if shipped is not None and Path(name).is_relative_to(shipped):
        name = Path(name).relative_to(shipped).with_suffix("").as_posix()
    if tree is None:
        fail(f"the config file {name} holds nothing but comments")
    if tree.id != "mapping":
        fail(f"{name} is no run: it must hold KEY: VALUE lines such as `model: ...` and `data: ...`")
    converts = any(key.value == "source" for key, _ in tree.value)
    if command == "convert" and not converts and any(key.value == "model" for key, _ in tree.value):
        fail(f"{name} describes a training, not a conversion: fulgurite fit --config {name}")
    if command != "convert" and converts:
        fail(f"{name} describes a conversion: fulgurite convert --config {name}")


def _check_yaml(name: str, text: str) -> Any:
    """The tree of a file; stops where it is no YAML, naming the line, or has far too many aliases."""
    import yaml

    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        fail(f"{name}, line {mark.line + 1 if mark else '?'}: {error.problem or error.context}")
    except (yaml.YAMLError, RecursionError) as error:
        fail(f"{name} is no YAML: {str(error).splitlines()[0]}")
    sizes: dict[int, int] = {}

    def size(node: Any) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_NODES + 1  # of one that contains itself
            value = node.value if isinstance(node.value, list) else ()
            parts = [part for item in value for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(part) for part in parts)
        return sizes[id(node)]

    if tree is not None and size(tree) > MOST_NODES:
        fail(
            f"{name}: its aliases (*name) stand for more than {MOST_NODES:,} values; write out what is meant"
        )
    return tree


def _known(path: Path) -> list[str]:
    """Return YAML files that somebody who typed `path` may have meant."""
    folders = [Path("configs"), *path.parents[:2]]
    found: set[str] = set()
    for folder in folders:
        if folder.is_dir() and folder != Path():
            found |= {str(p) for p in folder.rglob("*.yaml")}
    found |= {str(p) for p in Path().glob("*.yaml")}
    return sorted(found)
