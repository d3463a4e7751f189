"""From a network to a file of another program."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from spiking.measure.finite import damaged, listed
from zoo.errors import ExportError
from zoo.export.formats import FORMATS, name_of_format
from zoo.export.metadata import metadata_of
from zoo.export.request import Exported, Request, quiet
from zoo.files.atomic import replaced
from zoo.rebuild import unwrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def export(
    model: nn.Module,
    path: str | Path,
    to: str | None = None,
    *,
    step: bool = False,
    sequence: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Exported:
    """Write a network as a file that other programs run, and compare the file with the network.

    The file takes any number of images at a time; T is fixed in it, that of ``model.time_steps``. It is for
    inference: there are no surrogate gradients in it. The network itself is not changed.

    Args:
        model: a network of the zoo, a converted one, or one of timm's.
        path: the file to write, in a folder that exists. Until the new one is checked, an old one stays.
        to: ``"onnx"``, ``"pt2"`` or ``"nir"``; missing: what the suffix of ``path`` says.
        step: one time step a call, with the states of all neurons as explicit inputs and outputs, so that a
            program can run as many steps as it likes.
        sequence: T frames ``[T, B, C, H, W]`` go in (events) instead of still images ``[B, C, H, W]``.
        progress: is told what is being done.

    Returns:
        The file, its inputs and outputs, and how it was checked.

    Raises:
        ExportError: an unknown format, packages that are missing, a network that the format cannot hold, or
            a file that computes something else than the network; no file is left then.
        OSError: the folder does not exist or cannot be written.
    """
    name = name_of_format(to, path)
    known = FORMATS[name]
    if step and not known.step:
        able = ", ".join(key for key, one in FORMATS.items() if one.step)
        raise ExportError(f"{name} has no form of one step; formats that have: {able or 'none'}")
    if sequence and (step or not known.sequence):
        why = "a form of one step takes one frame a call anyway" if step else f"{name} takes no sequences"
        raise ExportError(f"sequence=True is not for this: {why}")
    target = checked_target(path, name)
    model = unwrap(model)
    foreign = sorted({str(p.dtype) for p in model.parameters() if p.dtype is not torch.float32})
    if foreign:
        raise ExportError(
            f"only float32 networks are exported, this one has {', '.join(foreign)}: model.float()"
        )
    if wrong := damaged(model.state_dict().items(), model):
        raise ExportError(f"{listed(wrong)}; {type(model).__name__} is not exported")
    twin = copy.deepcopy(model).cpu().eval()
    request = Request(step=step, sequence=sequence, metadata=metadata_of(model, step), say=progress or quiet)
    with replaced(target) as unfinished, torch.no_grad():
        written = known.write(twin, unfinished, request)
    return dataclasses.replace(written, path=target)


def checked_target(path: str | Path, to: str) -> Path:
    """``path``, if a file of the format ``to`` can be written there.

    Raises:
        ExportError: its suffix is that of another format.
        OSError: it is a folder, or lies in none, or in one that cannot be written.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; name a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {target.parent} does not exist; make it first")
    others = {known.suffix: name for name, known in FORMATS.items() if name != to}
    if target.suffix in others:
        raise ExportError(f"{target.name} has the suffix of {others[target.suffix]}, but is to be {to}")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:  # now, and not after minutes of tracing
        raise type(error)(f"cannot write into the folder {target.parent}: {error.strerror}") from error
    return target
