"""Networks of the user's by the path of their class, ``class:my_net.Net``, with all that entries have."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from spiking.arguments import only_known
from spiking.own import accepted_arguments, import_class, is_path, own_class
from zoo.classifier import ImageClassifier
from zoo.errors import CheckpointError
from zoo.registry import Entry, make_entries
from zoo.tasks import CLASSIFICATION, get_task

PREFIX = "class:"
FACTS = ("num_classes", "in_chans", "time_steps")  # handed on to constructors that take them


class OwnNetwork(ImageClassifier):
    """A network of the user's behind the interface of the zoo.

    Its ``forward`` gets ``[B, C, H, W]``, or ``[T, B, C, H, W]`` of events, and gives logits ``[B, K]``, or
    of every step ``[T, B, K]``. It must start anew at every call, as our neurons do.

    Args:
        net: the network.
        path: of its class.
        num_classes: K.
        in_chans: C.
        time_steps: T, where the constructor takes it or the network has such an attribute.
    """

    takes_time_steps: ClassVar[bool] = True

    def __init__(
        self, net: nn.Module, path: str, *, num_classes: int, in_chans: int, time_steps: int
    ) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=0)
        self.net = net
        self.path = path

    @override
    def _get_name(self) -> str:
        """What messages and ``repr`` call it: by the user's class, not by this one around it."""
        return self.path

    @override
    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits: their mean over T, ``[B, K]``, or with ``steps=True`` all, ``[T, B, K]``."""
        self.check_input(x)
        logits: Tensor = self.net(x)
        if not torch.compiler.is_compiling():
            self._check(logits, x.shape[0 if x.dim() == 4 else 1])
        if logits.dim() == 2:
            return logits.unsqueeze(0) if steps else logits
        return logits if steps else logits.mean(dim=0)

    def _check(self, logits: Any, size: int) -> None:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if not isinstance(logits, torch.Tensor) or logits.dim() not in (2, 3) or logits.shape[-2] != size:
            raise ValueError(f"{self.path} must give logits [B, K] or [T, B, K] for B = {size}, got {shape}")
        if logits.shape[-1] != self.num_classes:
            raise ValueError(
                f"{self.path} gives {logits.shape[-1]} logits, but the data have {self.num_classes} classes;"
                " let its constructor take num_classes, or set it in init_args"
            )


def is_own(name: str) -> bool:
    """Whether a name is that of a class of the user's."""
    return name.startswith(PREFIX)


def name_of(told: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and arguments of ``{class_path: ..., init_args: ...}``; its module is imported.

    Raises:
        ValueError: a key is missing or unknown, or there is no such class.
    """
    unknown = sorted(set(told) - {"class_path", "init_args"})
    path = told.get("class_path")
    if unknown or not isinstance(path, str) or not is_path(path):
        written = "{class_path: MODULE.CLASS, init_args: {...}}"
        if not unknown and isinstance(path, str):
            raise ValueError(f"{path!r} is no MODULE.CLASS such as my_net.Net; your own network is {written}")
        raise ValueError(f"your own network is {written}, got {dict(told)}")
    import_class(path, nn.Module)
    return f"{PREFIX}{path}", dict(told.get("init_args") or {})


def build(
    name: str, num_classes: int = 10, in_chans: int = 3, time_steps: int | None = None, **arguments: Any
) -> OwnNetwork:
    """A fresh network of the user's.

    Args:
        name: ``class:MODULE.CLASS``; the module was imported, or lies in the working directory.
        num_classes: K; handed on if the constructor takes it, as the following ones.
        in_chans: C.
        time_steps: T.
        **arguments: of the constructor.

    Raises:
        ValueError: there is no such class, or its module was never imported.
        TypeError: an argument that it does not take.
    """
    path = name.removeprefix(PREFIX)
    cls = own_class(path, nn.Module)
    accepted = accepted_arguments(cls)
    only_known(path, [*arguments, *(["time_steps"] if time_steps is not None else [])], accepted)
    facts = {"num_classes": num_classes, "in_chans": in_chans, "time_steps": time_steps}
    given = {key: value for key, value in facts.items() if key in accepted and value is not None}
    net = cls(**given, **copy.deepcopy(arguments))
    steps = time_steps if time_steps is not None else int(getattr(net, "time_steps", 1) or 1)
    model = OwnNetwork(net, path, num_classes=num_classes, in_chans=in_chans, time_steps=steps)
    model.architecture = name
    told = {**arguments, "num_classes": num_classes, "in_chans": in_chans}
    model.model_args = told | ({"time_steps": steps} if "time_steps" in accepted else {})
    cfg = {"input_size": (in_chans, 224, 224), "num_classes": num_classes, "architecture": name}
    model.default_cfg = model.pretrained_cfg = cfg
    return model


def _entry(name: str) -> Entry:
    def fn(**arguments: Any) -> OwnNetwork:
        return build(name, **{key: value for key, value in arguments.items() if value is not None})

    cfg = {**get_task(CLASSIFICATION.name).defaults, "architecture": name}
    return Entry(
        name=name,
        fn=fn,
        paper=None,
        task=CLASSIFICATION.name,
        cfg=cfg,
        declared={},
        note=None,
        checkpoint_filter_fn=None,
    )


make_entries(PREFIX, _entry)


def refuse_strangers(name: str, arguments: Mapping[str, Any]) -> None:
    """Make sure that what came over the network imports nothing by its own words.

    Raises:
        CheckpointError: it names a class whose module was not imported.
    """
    source = arguments.get("source")
    if isinstance(source, Mapping):  # of a converted network
        refuse_strangers(str(source.get("architecture")), source.get("model_args") or {})
    neurons = [value for key, value in arguments.items() if key == "neuron" and is_path(value)]
    for path in [*([name.removeprefix(PREFIX)] if is_own(name) else []), *neurons]:
        module = path.rpartition(".")[0]
        if module not in sys.modules:
            raise CheckpointError(
                f"this network is made of {path}, a class of its author's own: import {module} first, if you"
                " have it and trust it"
            )
