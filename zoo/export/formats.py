"""The formats there are; a further one is one line here and a file beside it."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spiking.arguments import did_you_mean
from zoo.errors import ExportError

if TYPE_CHECKING:
    from torch import nn

    from zoo.export.request import Exported, Request


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of files.

    Attributes:
        suffix: of its files.
        module: has ``write(model, path, request)``, which writes ``path``, checks it, and says how; it
            raises `zoo.ExportError` where the network cannot be written or the file does something else.
        needs: packages of the extra ``export`` that it imports.
        step: whether it can hold one step with explicit states.
        sequence: whether it can take frames ``[T, B, ...]``.
    """

    suffix: str
    module: str
    needs: tuple[str, ...] = ()
    step: bool = False
    sequence: bool = False

    def write(self, model: nn.Module, path: Path, request: Request) -> Exported:
        """Write ``model`` to ``path`` and check what was written."""
        written: Exported = importlib.import_module(self.module).write(model, path, request)
        return written


FORMATS = {
    "onnx": Format(
        suffix=".onnx",
        module="zoo.export.onnx",
        needs=("onnx", "onnxscript", "onnxruntime"),
        step=True,
        sequence=True,
    ),
    "pt2": Format(suffix=".pt2", module="zoo.export.program", step=True, sequence=True),
    # a graph of NIR is one step, whatever is asked for, and readers run it as often as they like
    "nir": Format(
        suffix=".nir", module="zoo.export.nir.write", needs=("nir", "h5py"), step=True, sequence=True
    ),
}


def name_of_format(to: str | None, path: str | Path | None) -> str:
    """The name of the format that is meant, by its own name or by the suffix of a path.

    Raises:
        ExportError: there is none such, or packages that it needs are missing.
    """
    if to is None:
        suffix = Path(path).suffix if path is not None else ""
        found = [name for name, known in FORMATS.items() if known.suffix == suffix]
        if not found:
            raise ExportError(
                f"which format is {str(path)!r} to have? Say to=... or name a file with the suffix of one:"
                f" {', '.join(known.suffix for known in FORMATS.values())}"
            )
        to = found[0]
    elif to not in FORMATS:
        raise ExportError(f"unknown format {to!r}; {did_you_mean(to, FORMATS)}known: {', '.join(FORMATS)}")
    missing = [name for name in FORMATS[to].needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"{to} needs {', '.join(missing)}: pip install 'fulgurite[export]'")
    return to
