"""Spikformer: self-attention without softmax on binary queries, keys and values.

"Spikformer: When Spiking Neural Network Meets Transformer", arXiv 2209.15425; code ZK-Zhou/spikformer.
Every block adds spikes to its input (``x + SSA(x)``, ``x + MLP(x)``), so integers flow between blocks.
The authors copy the model for each data set, with 1-d convolutions or linear layers for the same maps;
here all are 1x1 convolutions, and `checkpoint_filter_fn` brings their weights into that shape. Their
blocks also own two layer norms that they never call: these stay out, as they do in the published counts.
The scale of the attention is a constant; the text of the paper calls it learnable.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width, K classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from spiking.layers import SpikeMatmul, fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers import lmht
from zoo.layers.convolution import conv3x3, conv_norm, neuron_factory
from zoo.layers.token_block import TokenBlock
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

INIT_STD = 0.02  # truncated normal for the classifier; convolutions keep PyTorch's initialisation
V_ATTENTION = 0.5  # threshold of the neuron behind the attention
NEURON_DEFAULTS: dict[str, Any] = {
    "tau": 2.0,
    "decay_input": True,
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "surrogate": "sigmoid",  # alpha = 4
    "detach_reset": True,
}


class SSA(nn.Module):
    """Spiking self-attention, linear in the number of tokens.

    With ``q, k, v = SN(BN(Conv1x1(x)))`` split into heads ``[d, N]``::

        out = SN(BN(Conv1x1(SN_0.5(scale * (v k^T) q))))

    The paper writes ``(q k^T) v`` with tokens as rows; without a softmax between them the products
    commute, and their values are integers.

    Args:
        dim: C.
        num_heads: h.
        scale: of the product; 0.125, on events 0.25.
        qkv_bias: whether the convolutions of q, k and v have a bias.
        make_neuron: builds one neuron.
        make_attn_neuron: builds the neuron behind the attention.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        make_neuron: MakeNeuron,
        make_attn_neuron: MakeNeuron,
        scale: float = 0.125,
        qkv_bias: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads, self.scale = check_heads(dim, num_heads), scale
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", nn.Conv2d(dim, dim, 1, bias=qkv_bias))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(dim))
            self.add_module(f"{name}_lif", make_neuron())
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.attn_lif = make_attn_neuron()
        self.proj_conv, self.proj_bn = nn.Conv2d(dim, dim, 1), nn.BatchNorm2d(dim)
        self.proj_lif = make_neuron()

    def project(self, name: str, x: Tensor) -> Tensor:
        """Spikes of ``"q"``, ``"k"`` or ``"v"`` by heads: ``[T, B, C, H, W]`` -> ``[T, B, h, d, N]``."""
        conv, norm = self.get_submodule(f"{name}_conv"), self.get_submodule(f"{name}_bn")
        spikes: Tensor = self.get_submodule(f"{name}_lif")(conv_norm(conv, norm, x))
        return split_heads(spikes, self.num_heads)

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C, H, W]``."""
        q, k, v = (self.project(name, x) for name in ("q", "k", "v"))
        attended = self.matmul2(self.matmul1(v, k.transpose(-1, -2)), q) * self.scale
        spikes = self.attn_lif(attended.reshape(x.shape))
        return self.proj_lif(conv_norm(self.proj_conv, self.proj_bn, spikes))  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Sizes that the submodules do not show."""
        return f"num_heads={self.num_heads}, scale={self.scale:g}"


class MLP(nn.Module):
    """Two times 1x1 convolution with bias, norm, neuron.

    Args:
        dim: C.
        hidden: channels in between.
        make_neuron: builds one neuron.
    """

    def __init__(self, dim: int, hidden: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.fc1_conv, self.fc1_bn = nn.Conv2d(dim, hidden, 1), nn.BatchNorm2d(hidden)
        self.fc1_lif = make_neuron()
        self.fc2_conv, self.fc2_bn = nn.Conv2d(hidden, dim, 1), nn.BatchNorm2d(dim)
        self.fc2_lif = make_neuron()

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> spikes ``[T, B, C, H, W]``."""
        x = self.fc1_lif(conv_norm(self.fc1_conv, self.fc1_bn, x))
        return self.fc2_lif(conv_norm(self.fc2_conv, self.fc2_bn, x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """``x + attn(x)``, then ``x + mlp(x)``.

    Args:
        attn: the attention.
        mlp: the feed-forward part.
    """

    def __init__(self, attn: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn, self.mlp = attn, mlp

    def forward(self, x: Tensor) -> Tensor:
        """``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        x = x + self.attn(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class PatchEmbed(nn.Module):
    """Spiking patch splitting (SPS): four times convolution, norm, neuron, pooling; then a position code.

    The position code is a convolution of the patches themselves, ``x + SN(BN(Conv3x3(x)))``.

    Args:
        in_chans: C of the input.
        dim: C of the patches; the convolutions have an eighth, a quarter, a half and all of it.
        pooling: one digit a convolution, ``"1"`` where a 3x3 max-pooling halves the map.
        make_neuron: builds one neuron.
    """

    def __init__(self, in_chans: int, dim: int, pooling: str, make_neuron: MakeNeuron) -> None:
        super().__init__()
        self.pooling = check_pooling(pooling)
        width = in_chans
        for i, out in enumerate((dim // 8, dim // 4, dim // 2, dim)):
            tail = str(i or "")  # the authors' names: proj_conv, proj_conv1, ...
            self.add_module(f"proj_conv{tail}", conv3x3(width, out))
            self.add_module(f"proj_bn{tail}", nn.BatchNorm2d(out))
            self.add_module(f"proj_lif{tail}", make_neuron())
            width = out
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.rpe_conv, self.rpe_bn = conv3x3(dim, dim), nn.BatchNorm2d(dim)
        self.rpe_lif = make_neuron()

    def current(self, i: int, x: Tensor, repeats: int = 1) -> Tensor:
        """The i-th convolution and norm; ``repeats`` as in `zoo.layers.convolution.conv_norm`."""
        tail = str(i or "")
        conv, norm = self.get_submodule(f"proj_conv{tail}"), self.get_submodule(f"proj_bn{tail}")
        return conv_norm(conv, norm, x, repeats)

    def forward(self, x: Tensor) -> Tensor:
        """Currents of the first norm ``[T, B, C / 8, H, W]`` -> patches ``[T, B, C, H', W']``."""
        for i, pool in enumerate(self.pooling):
            x = self.get_submodule(f"proj_lif{i or ''}")(self.current(i, x) if i else x)
            if pool == "1":
                x = fold_time(self.maxpool, x)
        return x + self.rpe_lif(conv_norm(self.rpe_conv, self.rpe_bn, x))  # type: ignore[no-any-return]


class Spikformer(SpikingModel):
    """Spikformer, see the head of this file.

    The patch splitting and every block count as stages, all on one grid.

    Args:
        dim: C of the tokens.
        num_heads: h.
        depth: number of blocks.
        mlp_ratio: width of the feed-forward part over C.
        pooling: which of the four convolutions in front are followed by a pooling; ``"1111"`` makes
            patches of 16 pixels, ``"0011"`` of 4.
        scale: of the attention.
        qkv_bias: whether the convolutions of q, k and v have a bias, as the authors' CIFAR model has.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 2, hard reset, sigmoid of slope 4).
    """

    classifier_name = "head"

    def __init__(
        self,
        dim: int = 512,
        num_heads: int = 8,
        depth: int = 8,
        mlp_ratio: float = 4.0,
        pooling: str = "1111",
        scale: float = 0.125,
        qkv_bias: bool = False,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=dim)
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, time_steps)
        attn_defaults = {**NEURON_DEFAULTS, "v_threshold": V_ATTENTION}
        make_attn = neuron_factory(neuron, neuron_args, attn_defaults, time_steps)
        self.patch_embed = PatchEmbed(in_chans, dim, pooling, make)
        self.block = nn.Sequential()
        for _ in range(depth):
            attn = SSA(dim, num_heads, make, make_attn, scale, qkv_bias)
            self.block.append(Block(attn, MLP(dim, int(dim * mlp_ratio), make)))
        grid = {"num_chs": dim, "reduction": 2 ** self.patch_embed.pooling.count("1")}
        names = ["patch_embed", *(f"block.{i}" for i in range(depth))]
        self.feature_info = [{**grid, "module": name} for name in names]
        self.head = self.make_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with bias; truncated normal of 0.02."""
        return truncated_linear(self.num_features, num_classes)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H, W]``."""
        return self.patch_embed.current(0, x, repeats)

    def stages(self) -> Sequence[nn.Module]:
        """The patch splitting, then every block."""
        return [self.patch_embed, *self.block]

    def token_blocks(self) -> Sequence[TokenBlock]:
        """All blocks: they have 1x1 convolutions and attention only."""
        return [
            TokenBlock(path=f"block.{i}", stage=0, removable=True, attention="attn", mixer="attn.matmul1")
            for i in range(len(self.block))
        ]


def check_heads(dim: int, num_heads: int) -> int:
    """The number of heads, if it divides the channels."""
    if dim % num_heads:
        raise ValueError(f"{dim} channels do not divide into {num_heads} heads")
    return num_heads


def check_pooling(pooling: str) -> str:
    """The digits, if they are four zeros and ones; the command line reads ``"1010"`` as a number."""
    digits = str(pooling)
    if not re.fullmatch("[01]{4}", digits):
        raise ValueError(f"pooling must be four digits 0 or 1, one a convolution, got {pooling!r}")
    return digits


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """``[T, B, C, H, W]`` -> ``[T, B, h, d, N]``."""
    T, B, C = x.shape[:3]
    return x.reshape(T, B, num_heads, C // num_heads, -1)


def truncated_linear(features: int, num_classes: int) -> nn.Module:
    """The classifier of the spiking transformers: truncated normal of 0.02, bias 0."""
    if not num_classes:
        return nn.Identity()
    linear = nn.Linear(features, num_classes)
    nn.init.trunc_normal_(linear.weight, std=INIT_STD)
    nn.init.zeros_(linear.bias)
    return linear


def lmht_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys of LMHT_SNN -> ours: Spikformer's, with the neurons of LM-HT."""
    return lmht.import_neurons(checkpoint_filter_fn(state, model), model)


UNUSED = re.compile(
    r"^(block\.\d+\.norm[12]|norm|pos_embed)(\.|$)"
)  # owned by the authors' models, never called


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours.

    Theirs are ours, but for linear layers (``q_linear``, ``fc1_linear``) and 1-d convolutions in the
    place of 1x1 convolutions, and for norms and a position embedding that their code never uses.
    """
    kept = {k: v for k, v in state.items() if not UNUSED.match(k)}
    return {k.replace("_linear.", "_conv."): as_conv_weight(k, v) for k, v in kept.items()}


def as_conv_weight(key: str, value: Tensor) -> Tensor:
    """A weight ``[C', C]`` or ``[C', C, 1]`` of a pointwise layer as ``[C', C, 1, 1]``."""
    if re.search(r"_(conv|linear)\.weight$", key) and value.dim() in (2, 3):
        return value.reshape(*value.shape[:2], 1, 1)
    return value


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 1.0}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616), "crop_pct": 1.0}
EVENTS = {"mean": (0.0, 0.0), "std": (1.0, 1.0), "crop_pct": 1.0}
GREY = {"mean": (0.1307,), "std": (0.3081,), "crop_pct": 1.0}
NAMES = {"first_conv": "patch_embed.proj_conv", "classifier": "head", "interpolation": "bicubic"}
PAPER = "2209.15425"


def _create(name: str, variant: dict[str, Any], **kwargs: Any) -> Spikformer:
    return build_model(Spikformer, name, variant, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES}, checkpoint_filter_fn=checkpoint_filter_fn)
def spikformer_8_384(**kwargs: Any) -> Spikformer:
    """8 blocks of 384 channels, 16.8 M parameters, 70.24 % on ImageNet-1k in the paper."""
    return _create("spikformer_8_384", {"dim": 384, "depth": 8}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES}, checkpoint_filter_fn=checkpoint_filter_fn)
def spikformer_6_512(**kwargs: Any) -> Spikformer:
    """6 blocks of 512 channels, 23.4 M parameters, 72.46 % on ImageNet-1k in the paper."""
    return _create("spikformer_6_512", {"dim": 512, "depth": 6}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES}, checkpoint_filter_fn=checkpoint_filter_fn)
def spikformer_8_512(**kwargs: Any) -> Spikformer:
    """8 blocks of 512 channels, 29.7 M parameters, 73.38 % on ImageNet-1k in the paper."""
    return _create("spikformer_8_512", {"dim": 512, "depth": 8}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES}, checkpoint_filter_fn=checkpoint_filter_fn)
def spikformer_10_512(**kwargs: Any) -> Spikformer:
    """10 blocks of 512 channels, 36.0 M parameters, 73.68 % on ImageNet-1k in the paper."""
    return _create("spikformer_10_512", {"dim": 512, "depth": 10}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES}, checkpoint_filter_fn=checkpoint_filter_fn)
def spikformer_8_768(**kwargs: Any) -> Spikformer:
    """8 blocks of 768 channels, 66.3 M parameters, 74.81 % on ImageNet-1k in the paper."""
    return _create("spikformer_8_768", {"dim": 768, "num_heads": 12, "depth": 8}, **kwargs)


SMALL = {"num_heads": 12, "pooling": "0011", "qkv_bias": True, "num_classes": 10}


@register_model(
    paper=PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR, **NAMES},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def spikformer_4_256_cifar(**kwargs: Any) -> Spikformer:
    """4 blocks of 256 channels for 32 x 32 images, 93.94 % on CIFAR-10 in the paper."""
    return _create("spikformer_4_256_cifar", {**SMALL, "dim": 256, "num_heads": 8, "depth": 4}, **kwargs)


@register_model(
    paper=PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR, **NAMES},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def spikformer_2_384_cifar(**kwargs: Any) -> Spikformer:
    """2 blocks of 384 channels for 32 x 32 images, 94.80 % on CIFAR-10 in the paper."""
    return _create("spikformer_2_384_cifar", {**SMALL, "dim": 384, "depth": 2}, **kwargs)


@register_model(
    paper=PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR, **NAMES},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def spikformer_4_384_cifar(**kwargs: Any) -> Spikformer:
    """4 blocks of 384 channels for 32 x 32 images, 95.19 % on CIFAR-10 in the paper."""
    return _create("spikformer_4_384_cifar", {**SMALL, "dim": 384, "depth": 4}, **kwargs)


@register_model(
    paper=lmht.PAPER,
    input_size=(3, 32, 32),
    num_classes=10,
    cfg={**CIFAR, **NAMES},
    checkpoint_filter_fn=lmht_filter_fn,
)
def lmht_spikformer_4_384_cifar(**kwargs: Any) -> Spikformer:
    """`spikformer_4_384_cifar` with LM-HT neurons, all of threshold 2 / L, behind the attention, too."""
    variant = {**SMALL, "dim": 384, "depth": 4, **lmht.VARIANT}
    return _create("lmht_spikformer_4_384_cifar", variant, **kwargs)


EVENT = {"dim": 256, "depth": 2, "scale": 0.25, "time_steps": 16}


@register_model(
    paper=PAPER,
    input_size=(2, 128, 128),
    num_classes=10,
    cfg={**EVENTS, **NAMES},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def spikformer_2_256_cifar10dvs(**kwargs: Any) -> Spikformer:
    """2 blocks of 256 channels for frames of events, 80.9 % on CIFAR10-DVS at T = 16 in the paper."""
    variant = {**EVENT, "num_heads": 16, "in_chans": 2, "num_classes": 10}
    return _create("spikformer_2_256_cifar10dvs", variant, **kwargs)


@register_model(
    paper=PAPER,
    input_size=(2, 128, 128),
    num_classes=11,
    cfg={**EVENTS, **NAMES},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def spikformer_2_256_dvsg(**kwargs: Any) -> Spikformer:
    """2 blocks of 256 channels for frames of events, 98.3 % on DVS128 Gesture at T = 16 in the paper."""
    variant = {**EVENT, "num_heads": 8, "in_chans": 2, "num_classes": 11}
    return _create("spikformer_2_256_dvsg", variant, **kwargs)


@register_model(
    paper=lmht.PAPER,
    input_size=(2, 128, 128),
    num_classes=10,
    cfg={**EVENTS, **NAMES},
    checkpoint_filter_fn=lmht_filter_fn,
)
def lmht_spikformer_2_256_cifar10dvs(**kwargs: Any) -> Spikformer:
    """`spikformer_2_256_cifar10dvs` with LM-HT neurons, one frame of events a step, T = 10."""
    events = {"num_heads": 16, "in_chans": 2, "num_classes": 10, "neuron": "lmht", "time_steps": 10}
    return _create("lmht_spikformer_2_256_cifar10dvs", {**EVENT, **events}, **kwargs)


@register_model(paper=PAPER, input_size=(1, 28, 28), num_classes=10, cfg={**GREY, **NAMES})
def spikformer_nano(**kwargs: Any) -> Spikformer:
    """A size of our own for grey digits of 28 x 28; trains in minutes on a CPU."""
    variant = {
        "dim": 64,
        "num_heads": 4,
        "depth": 2,
        "mlp_ratio": 2.0,
        "pooling": "1100",
        "scale": 0.25,
        "in_chans": 1,
        "num_classes": 10,
    }
    return _create("spikformer_nano", variant, **kwargs)
