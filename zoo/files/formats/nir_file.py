"""Files of NIR: an HDF5 file whose groups are the nodes of a graph."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from zoo.errors import CheckpointError
from zoo.files.formats.torch_file import first_line

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = 16  # groups inside groups; a graph in a graph takes two
MOST_OBJECTS = 1 << 20
DEFLATE = 1032  # no deflated byte stands for more
SPARE = 1 << 20  # bytes of small arrays, which are not compressed at all


def require_nir() -> None:
    """Refuse in words where the packages of NIR are missing.

    Raises:
        ModuleNotFoundError: names what is missing and the extra that brings it.
    """
    for name in ("nir", "h5py"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"NIR files need {name}: pip install 'fulgurite[nir]'", name=name)


def read_nir(path: Path) -> Any:
    """The ``nir.NIRGraph`` of a file; what the file claims to hold is compared with its size first.

    Raises:
        CheckpointError: no HDF5 file, damaged, or one that holds something else than a NIR graph of nodes
            that this version of ``nir`` knows.
        ModuleNotFoundError: the extra ``nir`` is missing.
    """
    require_nir()
    import h5py
    import nir

    try:
        with h5py.File(path, "r") as file:
            _check(file, path)
            root = file.get("node")
            if not isinstance(root, h5py.Group):
                raise CheckpointError(f"{path} is an HDF5 file, but holds no NIR graph (no group 'node')")
            _check_kinds(root, path)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path} is no whole HDF5 file, which NIR is written in (cut off?): {first_line(error)}"
        ) from error
    try:
        graph = nir.read(path, type_check=False)
    except Exception as error:  # its readers raise whatever a missing or odd field leads to
        what = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"{path} cannot be read as NIR ({what})") from error
    if not isinstance(graph, nir.NIRGraph):
        raise CheckpointError(f"{path} holds one node, a {type(graph).__name__}, and no graph")
    return graph


def write_nir(path: Path, graph: Any) -> None:
    """Write a ``nir.NIRGraph``, compressed."""
    import nir

    nir.write(path, graph)


def _check(file: Any, path: Path) -> None:
    """Links to other files, groups in circles, and arrays that are larger than the file can hold."""
    import h5py

    left = path.stat().st_size * DEFLATE + SPARE
    objects = 0
    rows: list[tuple[Any, int]] = [(file, 0)]
    while rows:
        group, depth = rows.pop()
        for name in group:
            objects += 1
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointError(f"{path}: {str(name)[:80]!r} is a link; a NIR file holds all it needs")
            item = group[name]
            if depth > DEEPEST or objects > MOST_OBJECTS:
                raise CheckpointError(
                    f"{path} is nested too deeply, or has too many parts, to be a NIR graph"
                )
            if isinstance(item, h5py.Group):
                rows.append((item, depth + 1))
                continue
            if item.is_virtual or item.external:
                raise CheckpointError(f"{path}: {str(name)[:80]!r} lies in another file")
            left -= item.nbytes
            if left < 0 or (item.nbytes > SPARE and not item.id.get_storage_size()):
                raise CheckpointError(
                    f"{path}: {str(name)[:80]!r} claims {item.nbytes:,} bytes, more than the file"
                )


def _check_kinds(root: Any, path: Path) -> None:
    """Nodes that this version of ``nir`` does not know."""
    import h5py
    import nir

    known = {cls.__name__ for cls in nir.NIRNode.__subclasses__()}
    rows = [("the root", root)]
    while rows:
        name, group = rows.pop()
        kind = group["type"][()] if "type" in group else b""
        kind = kind.decode("utf8", "replace") if isinstance(kind, bytes) else str(kind)
        if kind not in known:
            raise CheckpointError(
                f"{path}: {name[:80]} is a node of the unknown kind {kind[:80]!r}; nir {nir.version} knows"
                f" {', '.join(sorted(known))}"
            )
        inside = group.get("nodes")
        if isinstance(inside, h5py.Group):
            rows += [(repr(key), inside[key]) for key in inside]
