"""A network from a description that somebody else wrote: verified before it takes memory."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules import module as modules

from zoo.errors import CheckpointError
from zoo.files.formats.json_file import check_plain
from zoo.files.formats.torch_file import first_line
from zoo.files.strict import check_structure
from zoo.loading import matched
from zoo.rebuild import build_source, build_timm
from zoo.registry import get_entry
from zoo.timm_bridge.arguments import FACTS, check_timm, check_words
from zoo.timm_bridge.names import is_timm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from zoo.files.checkpoint import Checkpoint
    from zoo.registry import Entry

MOST_MODULES = 50_000  # in a network of which no weights are at hand
LARGEST_NUMBER = 1 << 16  # of an argument; the widths of larger layers are told by the weights
LARGEST_IMAGE = 3 << 24  # numbers: 3 x 4096 x 4096
CONVERTED = "converted"


class TooLargeError(CheckpointError):
    """A description asks for more than the weights beside it hold."""


def build_described(
    name: str,
    told: Mapping[str, Any],
    given: Mapping[str, Any],
    found: Checkpoint | None,
    where: str,
    cfg: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build what a description asks for, after its weights have been compared with it on the meta device.

    Args:
        name: of the entry, or of timm's model.
        told: arguments that the description names.
        given: the user's own, which win over them.
        found: the weights; None if there are none.
        where: the description, for messages.
        cfg: what it says of the inputs, for a model of timm, which may depend on their size.

    Raises:
        CheckpointError: the description reaches beyond the network, asks for one that the weights do not
            fit, or for none that can be built.
        UnknownModelError: no entry has this name.
        ValueError, TypeError: an argument is wrong.
    """
    check_plain(told, where)
    build, entry = _builder(name, told, where, cfg or {})
    state = {} if found is None else found.state
    _check_numbers(told, state, where)
    arguments = {**told, **given}
    with _named(where), _budget(state, where):
        if name == CONVERTED:
            _check_source(arguments, state, where)
        else:
            with torch.device("meta"):
                twin = build(**arguments)
            if found is not None:
                theirs, fresh = matched(twin, found, entry, given)
                check_structure(twin, theirs, where, fresh)
    with _named(where):
        return build(**arguments)


def _builder(
    name: str, told: Mapping[str, Any], where: str, cfg: Mapping[str, Any]
) -> tuple[Callable[..., nn.Module], Entry | None]:
    if is_timm(name):
        check_timm(name, told)
        facts = {"pretrained_cfg": {k: v for k, v in cfg.items() if k in FACTS}} if cfg else {}
        return lambda **arguments: build_timm(name, _given(arguments), **facts), None
    entry = get_entry(name)
    words = {key: value for key, value in told.items() if (name, key) != (CONVERTED, "source")}
    check_words(words, f"{where}, an argument of {name}")
    return entry.fn, entry


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}


def _check_numbers(told: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """Numbers beyond what the weights can hold: lists as long would be made before any layer is."""
    most = max([LARGEST_NUMBER, *(tensor.numel() for tensor in state.values())])
    rows: list[Any] = [told]
    while rows:
        value = rows.pop()
        if isinstance(value, Mapping):
            rows += value.values()
        elif isinstance(value, list | tuple):
            rows += value
        elif isinstance(value, int) and value > most:
            raise TooLargeError(f"{where} asks for {value:,} of something; the weights hold nothing so large")


def _check_source(arguments: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> None:
    """The source of a converted network against the weights, whose names are the source's."""
    source = arguments.get("source")
    if not isinstance(source, Mapping) or not isinstance(source.get("architecture"), str):
        raise CheckpointError(f"{where} names no source of the converted network")
    size: Any = arguments.get("input_size")
    known = isinstance(size, list | tuple) and all(isinstance(n, int) and n > 0 for n in size)
    if not known or math.prod(size) > LARGEST_IMAGE:
        raise CheckpointError(f"{where}: input_size is {size!r}, expected C, H and W of an image")
    with torch.device("meta"):
        twin = build_source(source)
    own = {name: tensor.shape for name, tensor in twin.state_dict().items()}
    if wrong := [name for name, shape in own.items() if name in state and state[name].shape != shape]:
        raise CheckpointError(
            f"{where} does not fit its weights: of another shape in its source are {', '.join(wrong[:8])}"
        )


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors that wrong arguments cause deep inside a network name the description."""
    try:
        yield
    except (CheckpointError, ValueError, TypeError, ModuleNotFoundError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise CheckpointError(
            f"{where} describes no network that can be built: {kind}: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def _budget(state: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Stop a build that makes many more modules or numbers than the weights have.

    Layers without weights, heads that are replaced and norms that are folded are why it is many.
    """
    modules_left = 64 * len(state) + 5_000 if state else MOST_MODULES
    numbers_left = 4 * sum(tensor.numel() for tensor in state.values()) + (1 << 24) if state else 1 << 36
    left = {"modules": modules_left, "numbers": numbers_left}
    thread = threading.get_ident()

    def spend(kind: str, amount: int) -> None:
        if threading.get_ident() != thread:  # what others build meanwhile is not ours to judge
            return
        left[kind] -= amount
        if left[kind] < 0:
            raise TooLargeError(f"{where} asks for a network that is larger than the weights beside it")

    def module(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        spend("modules", 1)

    def parameter(parent: nn.Module, name: str, value: Tensor | None) -> None:
        spend("numbers", 0 if value is None else value.numel())

    handles = [
        modules.register_module_module_registration_hook(module),
        modules.register_module_parameter_registration_hook(parameter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
