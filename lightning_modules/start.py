"""The network that a training starts from: fresh, pretrained, or made of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import zoo
from conversion import lmht
from lightning_modules.base import FIRST_WEIGHTS
from lightning_modules.source import Source, as_plain
from spiking import Neuron
from spiking.arguments import only_known
from spiking.own import import_class, is_path

if TYPE_CHECKING:
    from torch import nn

    from zoo import ImageClassifier


def build(name: str, arguments: dict[str, Any]) -> ImageClassifier:
    """A fresh entry of the zoo, or a trained one where the arguments ask for weights, in training mode.

    Args:
        name: of the entry.
        arguments: of the entry. Three more say where the first weights come from: ``pretrained: true`` takes
            those that are published, ``weights: PATH`` those of a file, and ``hybrid: {source: ..., init:
            ..., official_bias: ...}`` starts an LM-HT network from a QCFS or a converted network: the folder
            of a run, a checkpoint, or what `lightning_modules.source.Source` takes; see
            `conversion.lmht.from_qcfs`.

    Raises:
        ValueError: two starts at once, or an unknown key of ``hybrid``.
    """
    arguments = dict(arguments)
    if is_path(arguments.get("neuron")):  # the user's own, in a configuration of theirs
        import_class(arguments["neuron"], Neuron)
    pretrained, weights, hybrid = (arguments.pop(key, None) for key in FIRST_WEIGHTS)
    if pretrained or weights is not None:
        if hybrid is not None:
            raise ValueError("model_args: hybrid and weights or pretrained are two starts; give one")
        model = zoo.load(name, pretrained=pretrained or None, weights=weights, **arguments)
    else:
        model = zoo.create(name, **arguments)
    if hybrid is not None:
        _start_from_qcfs(model, dict(hybrid), arguments)
    return cast("ImageClassifier", model.train())


def _start_from_qcfs(model: nn.Module, options: dict[str, Any], arguments: dict[str, Any]) -> None:
    if "source" not in options:
        raise ValueError(f"model_args.hybrid needs a source, the trained QCFS network, got {options}")
    given = options.pop("source")
    source = as_plain("hybrid.source", Source, {"model": given} if isinstance(given, str) else given)
    only_known("model_args.hybrid", options, ("source", "init", "official_bias"), "key", ValueError)
    lmht.from_qcfs(model, source.load(arguments["num_classes"], arguments["in_chans"]), **options)
