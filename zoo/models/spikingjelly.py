"""SpikingJelly's versions of spiking VGG and Spikformer, whose state dicts load.

Architectures of ``spikingjelly.activation_based.model`` (2.0): its VGG is torchvision's with neurons for
ReLUs, so with max-pooling, and without norms but for the names in ``_bn``; its Spikformer pools the currents
before the neuron where the authors pool its spikes, and has one convolution for q, k and v. Its SEW-ResNet
has the names of ours, and its files load into `zoo.models.sew_resnet` as they are (but for a bottleneck under
IAND, whose operands it swaps).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from zoo.build import build_model
from zoo.layers.preprocessing import CIFAR10, IMAGENET
from zoo.layers.transformer import as_conv_weight
from zoo.models._family import Family
from zoo.models.spikformer import IMAGENET_UNCROPPED, Spikformer
from zoo.models.spiking_vgg import SpikingVGG, VGGStage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NOTE = "the architecture is SpikingJelly's; state dicts of it load"


def vgg_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of SpikingJelly -> ours.

    Its ``features`` count convolutions, norms, neurons and poolings in one row; ``classifier`` has our
    numbers.
    """
    assert isinstance(model, SpikingVGG)
    row = 0
    places: dict[str, str] = {}
    for info in model.feature_info:
        stage = model.get_submodule(info["module"])
        assert isinstance(stage, VGGStage)
        for i in range(0, len(stage) - 1, 3):  # convolution with norm, neuron, dropout
            normed = isinstance(stage.get_submodule(f"{i}.1"), nn.BatchNorm2d)
            parts = [f"{i}.0", *([f"{i}.1"] if normed else []), f"{i + 1}"]
            places |= {str(row + j): f"{info['module']}.{part}" for j, part in enumerate(parts)}
            row += len(parts)
        row += 1  # the pooling
    renamed = {}
    for key, value in state.items():
        found = re.fullmatch(r"features\.(\d+)\.(\w+)", key)
        new = f"{places[found[1]]}.{found[2]}" if found and found[1] in places else key
        renamed[re.sub(r"^(classifier\.\d+)\.(weight|bias)$", r"\1.0.\2", new)] = value
    return renamed


def spikformer_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of SpikingJelly -> ours.

    It has one convolution for q, k and v, and none of its convolutions has a bias; ours are 0 then.
    """
    assert isinstance(model, Spikformer)
    places = _places(len(model.block))
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        place, _, last = key.rpartition(".")
        names = places.get(place, (place,))
        parts = value.chunk(len(names)) if value.dim() else (value,) * len(names)
        for name, part in zip(names, parts, strict=True):
            renamed[f"{name}.{last}"] = as_conv_weight(f"{name}.{last}", part.contiguous())
    for name, own in model.state_dict().items():
        if name.endswith("_conv.bias") and f"{name.removesuffix('bias')}weight" in renamed:
            renamed.setdefault(name, torch.zeros(own.shape))
    return renamed


def _places(depth: int) -> dict[str, tuple[str, ...]]:
    """Paths of SpikingJelly's modules, and of those that ours have instead."""
    places: dict[str, tuple[str, ...]] = {}
    stem = [(f"stages.{i}", f"proj_{{}}{i or ''}") for i in range(4)]
    for theirs, ours in [*stem, ("positional_encoding", "rpe_{}")]:
        parts = {"conv_bn.block.0": "conv", "conv_bn.block.1": "bn", "neuron": "lif"}
        places |= {f"patch_embed.{theirs}.{k}": (f"patch_embed.{ours.format(v)}",) for k, v in parts.items()}
    for b in range(depth):
        for i, part in enumerate(("conv", "bn")):
            joint = tuple(f"block.{b}.attn.{name}_{part}" for name in "qkv")
            places[f"blocks.{b}.attn.qkv_conv_bn.{i}"] = joint
            places[f"blocks.{b}.attn.proj_conv_bn.{i}"] = (f"block.{b}.attn.proj_{part}",)
            for fc in (1, 2):
                places[f"blocks.{b}.mlp.fc{fc}.{i}"] = (f"block.{b}.mlp.fc{fc}_{part}",)
        places[f"blocks.{b}.attn.qkv_lif"] = tuple(f"block.{b}.attn.{name}_lif" for name in "qkv")
        for name in ("attn", "proj"):
            places[f"blocks.{b}.attn.{name}_lif"] = (f"block.{b}.attn.{name}_lif",)
        for fc in (1, 2):
            places[f"blocks.{b}.mlp.neuron{fc}"] = (f"block.{b}.mlp.fc{fc}_lif",)
    return places


def _vgg(name: str, plan: Sequence[Sequence[int]], /, **kwargs: Any) -> SpikingVGG:
    """As SpikingJelly builds it for ImageNet: a classifier on 7 x 7 maps, by default with IF neurons."""
    variant = {
        "plan": plan,
        "pool_size": 7,
        "drop_rate": 0.5,
        "pooling": "max",
        "norm": name.endswith("_bn"),
        "num_classes": 1000,
        "neuron": "if",
        "neuron_args": {"surrogate": "sigmoid", "detach_reset": False},
    }
    return build_model(SpikingVGG, name, variant, **kwargs)


PLANS = {
    "11": ((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2),
    "13": ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    "16": ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3),
    "19": ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
VGG = Family(
    first_conv="layer1.0.0",
    classifier="classifier.6.0",
    interpolation="bilinear",
    checkpoint_filter_fn=vgg_filter_fn,
    note=NOTE,
)


@VGG.register(IMAGENET)
def jelly_vgg11(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg11`` of SpikingJelly, without norms."""
    return _vgg("jelly_vgg11", PLANS["11"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg11_bn(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg11_bn`` of SpikingJelly."""
    return _vgg("jelly_vgg11_bn", PLANS["11"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg13(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg13`` of SpikingJelly, without norms."""
    return _vgg("jelly_vgg13", PLANS["13"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg13_bn(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg13_bn`` of SpikingJelly."""
    return _vgg("jelly_vgg13_bn", PLANS["13"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg16(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg16`` of SpikingJelly, without norms."""
    return _vgg("jelly_vgg16", PLANS["16"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg16_bn(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg16_bn`` of SpikingJelly."""
    return _vgg("jelly_vgg16_bn", PLANS["16"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg19(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg19`` of SpikingJelly, without norms."""
    return _vgg("jelly_vgg19", PLANS["19"], **kwargs)


@VGG.register(IMAGENET)
def jelly_vgg19_bn(**kwargs: Any) -> SpikingVGG:
    """``spiking_vgg19_bn`` of SpikingJelly."""
    return _vgg("jelly_vgg19_bn", PLANS["19"], **kwargs)


SPIKFORMER = Family(
    paper="2209.15425",
    first_conv="patch_embed.proj_conv",
    classifier="head",
    checkpoint_filter_fn=spikformer_filter_fn,
    note=NOTE,
)


def _spikformer(name: str, **kwargs: Any) -> Spikformer:
    return build_model(Spikformer, name, {"pool_currents": True, **kwargs.pop("variant")}, **kwargs)


@SPIKFORMER.register(IMAGENET_UNCROPPED)
def jelly_spikformer_ti(**kwargs: Any) -> Spikformer:
    """``spikformer_ti`` of SpikingJelly: 4 blocks of 256 channels."""
    return _spikformer("jelly_spikformer_ti", variant={"dim": 256, "depth": 4}, **kwargs)


@SPIKFORMER.register(IMAGENET_UNCROPPED)
def jelly_spikformer_s(**kwargs: Any) -> Spikformer:
    """``spikformer_s`` of SpikingJelly: 6 blocks of 384 channels."""
    return _spikformer("jelly_spikformer_s", variant={"dim": 384, "num_heads": 12, "depth": 6}, **kwargs)


@SPIKFORMER.register(CIFAR10)
def jelly_spikformer_cifar(**kwargs: Any) -> Spikformer:
    """``spikformer_cifar10`` of SpikingJelly: 4 blocks of 384 channels for 32 x 32 images."""
    variant = {"dim": 384, "num_heads": 12, "depth": 4, "pooling": "0011", "num_classes": 10}
    return _spikformer("jelly_spikformer_cifar", variant=variant, **kwargs)
