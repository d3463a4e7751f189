"""Tensors of a file into a network: all of them, unchanged, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spiking.measure.finite import NEGATIVE, NOT_FINITE, damaged
from zoo.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

SHOWN = 8  # keys listed in an error before "and N more"
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # what networks compute in


def load_strict(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    allow_missing: set[str] | None = None,
    adopt: bool = False,
) -> None:
    """Load every tensor or none: names, shapes, dtypes and values are compared before the first copy.

    A floating-point tensor may have another precision than the network's only if no value changes by it.

    Args:
        model: the network.
        state: tensors by name.
        source: what messages call the file.
        allow_missing: names that may be absent, and stay as they are.
        adopt: whether the network takes on the precision of the tensors, as a file that was written from
            such a network asks for.

    Raises:
        CheckpointError: with the missing, unexpected, misshapen, misfit and non-finite entries.
    """
    faults = structure(model, state, allow_missing)
    if not any(faults.values()):
        faults |= _values(model, state, adopt)
    _refuse(model, faults, source)
    if adopt:
        _take_on(model, state)
    model.load_state_dict(dict(state), strict=not allow_missing)


def check_structure(
    model: nn.Module, state: Mapping[str, Tensor], source: str, allow_missing: set[str] | None = None
) -> None:
    """The part of `load_strict` that needs no values; ``model`` may be on the meta device.

    Raises:
        CheckpointError: with the missing, unexpected, misshapen and misfit entries.
    """
    _refuse(model, structure(model, state, allow_missing), source)


def check_finite(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors with impossible numbers; see `spiking.measure.finite.damaged`.

    Raises:
        CheckpointError: names them.
    """
    _refuse(model, _impossible(model, state), source)


def structure(
    model: nn.Module, state: Mapping[str, Tensor], allow_missing: set[str] | None = None
) -> dict[str, list[str]]:
    """How names, shapes and kinds of numbers differ, by the sort of difference."""
    own = model.state_dict()
    shared = [k for k in own if k in state]
    return {
        "missing": [k for k in own if k not in state and k not in (allow_missing or set())],
        "unexpected": [k for k in state if k not in own],
        "misshapen": [
            f"{k}: expected {_shape(own[k])}, got {_shape(state[k])}"
            for k in shared
            if own[k].shape != state[k].shape
        ],
        "of another kind": [
            f"{k}: expected {_name(own[k])}, got {_name(state[k])}"
            for k in shared
            if not _same_kind(own[k].dtype, state[k].dtype)
        ],
    }


def _same_kind(own: torch.dtype, other: torch.dtype) -> bool:
    """Whether numbers of the file may stand for the network's; codes of a quantised one may not."""
    if own == other:
        return True
    if own in FLOATS:
        return other in FLOATS
    if own.is_complex or own == torch.bool:
        return False
    return other in FLOATS or not (other.is_floating_point or other.is_complex or other == torch.bool)


def _values(model: nn.Module, state: Mapping[str, Tensor], adopt: bool) -> dict[str, list[str]]:
    own = model.state_dict()
    shared = [k for k in own if k in state]
    return {
        **_impossible(model, {k: state[k] for k in shared}),
        "that would be rounded": [
            f"{k}: {_name(state[k])} into {_name(own[k])}, so write them in that precision"
            for k in shared
            if not (adopt and own[k].dtype in FLOATS) and _would_be_rounded(state[k], own[k].dtype)
        ],
    }


def _impossible(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, list[str]]:
    wrong = damaged(((k, v) for k, v in state.items() if v.dtype in FLOATS), model)
    return {
        f"with {kind}": [k for k, what in wrong.items() if what == kind] for kind in (NOT_FINITE, NEGATIVE)
    }


def _would_be_rounded(tensor: Tensor, dtype: torch.dtype) -> bool:
    if torch.promote_types(tensor.dtype, dtype) == dtype:
        return False
    return not torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _take_on(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the network the precision of the tensors that it is about to be filled with."""
    kinds = {tensor.dtype for tensor in state.values() if tensor.dtype in FLOATS}
    if len(kinds) == 1:
        model.to(kinds.pop())  # what is in no file, too
        return
    for name, tensor in model.state_dict(keep_vars=True).items():
        other = state.get(name)
        if other is not None and other.dtype != tensor.dtype and {other.dtype, tensor.dtype} <= set(FLOATS):
            tensor.data = tensor.data.to(other.dtype)


def _refuse(model: nn.Module, faults: Mapping[str, list[str]], source: str) -> None:
    problems = [
        f"{len(keys)} {label}: " + ", ".join(key[:200] for key in keys[:SHOWN]) + _more(keys)
        for label, keys in faults.items()
        if keys
    ]
    if not problems:
        return
    hint = ""
    others = any(keys for label, keys in faults.items() if label != "misshapen")
    if not others and all("classifier" in m for m in faults["misshapen"]):
        hint = "; for another number of classes give num_classes=... explicitly"
    raise CheckpointError(
        f"{source} does not fit {type(model).__name__}, nothing was loaded: " + "; ".join(problems) + hint
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _more(keys: list[str]) -> str:
    return f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
