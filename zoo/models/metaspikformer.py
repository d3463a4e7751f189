"""Meta-SpikeFormer (Spike-driven Transformer V2): convolution blocks early, attention blocks late.

"Spike-driven Transformer V2: Meta Spiking Neural Network Architecture Inspiring the Design of
Next-generation Neuromorphic Chips", ICLR 2024, arXiv 2404.03663; code BICLab/Spike-Driven-Transformer-V2.
All shortcuts carry membrane currents, and a neuron precedes every convolution but the stem's and
those that are re-parameterised: a ``RepConv`` is one dense 3x3 convolution at inference, which
`MetaSpikeFormer.fold` makes of it. Names inside a block are the authors'; `checkpoint_filter_fn` maps the
rest.

The paper puts a neuron before the classifier. The released code computes it but hands the classifier the
real-valued mean; only the second classifier, of distillation, sees spikes. Ours follows the paper, and
takes the code's way (``head_neuron=False``) for weights that come from elsewhere.

Axes: T time, B batch, C channels, H W map, N = H * W tokens, h heads, d = C / h head width, K classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn
from typing_extensions import override

from spiking.layers import SpikeMatmul, fold_time
from zoo.build import build_model
from zoo.classifier import SpikingModel
from zoo.layers.attention import SpikingProjections
from zoo.layers.convolution import conv1x1, conv3x3, conv_norm, conv_norm_fire
from zoo.layers.preprocessing import IMAGENET
from zoo.layers.reparameterised import RepConv
from zoo.layers.token_block import TokenBlock
from zoo.layers.transformer import Block, MembraneMLP, as_conv_weight, make_neurons, truncated_linear
from zoo.models._family import Family
from zoo.models._twin import build_twin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from zoo.layers.convolution import MakeNeuron

SCALE = 0.125  # of the attention


class RepAttention(SpikingProjections):
    """Spiking self-attention whose projections are `RepConv`, with its own neuron; without the shortcut.

    ``BN(RepConv(SN_0.5(0.125 * (v k^T) q)))`` with ``q, k, v = SN(BN(RepConv(SN(x))))``.

    Args:
        dim: C.
        num_heads: h.
        make_neuron: builds one neuron.
        make_attn_neuron: builds the neuron behind the attention.
        folded: projections are plain 3x3 convolutions with bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        make_neuron: MakeNeuron,
        make_attn_neuron: MakeNeuron,
        folded: bool = False,
    ) -> None:
        super().__init__(dim, num_heads)
        self.head_lif = make_neuron()
        for name in ("q", "k", "v", "proj"):
            layer: nn.Module = (
                conv3x3(dim, dim, bias=True) if folded else nn.Sequential(RepConv(dim), nn.BatchNorm2d(dim))
            )
            self.add_module(f"{name}_conv", layer)
            if name != "proj":
                self.add_module(f"{name}_lif", make_neuron())
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.attn_lif = make_attn_neuron()

    def convolve(self, name: str, x: Tensor) -> Tensor:
        """Currents of one projection: ``[T, B, C, H, W]`` -> ``[T, B, C, H, W]``."""
        return fold_time(self.get_submodule(f"{name}_conv"), x)

    @override
    def fire(self, name: str, x: Tensor) -> Tensor:
        spikes: Tensor = self.get_submodule(f"{name}_lif")(self.convolve(name, x))
        return spikes

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C, H, W]``."""
        spikes = self.head_lif(x)
        q, k, v = (self.project(name, spikes) for name in "qkv")
        attended = self.matmul2(self.matmul1(v, k.transpose(-1, -2)), q) * SCALE
        return self.convolve("proj", self.attn_lif(attended.reshape(x.shape)))


class SepConv(nn.Module):
    """Separable convolution: neuron, 1x1 up, norm; neuron, depthwise 7x7, 1x1 down, norm; no shortcut.

    Args:
        dim: C; twice as many in between.
        make_neuron: builds one neuron.
    """

    def __init__(self, dim: int, make_neuron: MakeNeuron) -> None:
        super().__init__()
        inner = 2 * dim
        self.lif1 = make_neuron()
        self.pwconv1, self.bn1 = conv1x1(dim, inner), nn.BatchNorm2d(inner)
        self.lif2 = make_neuron()
        self.dwconv = nn.Conv2d(inner, inner, 7, padding=3, groups=inner, bias=False)
        self.pwconv2, self.bn2 = conv1x1(inner, dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C, H, W]``."""
        x = conv_norm_fire(self.pwconv1, self.bn1, self.lif2, self.lif1(x))
        return conv_norm(self.pwconv2, self.bn2, fold_time(self.dwconv, x))


class ConvBlock(nn.Module):
    """`SepConv`, then two 3x3 convolutions with their neurons and norms, each part with a shortcut.

    Args:
        dim: C.
        mlp_ratio: width between the 3x3 convolutions over C.
        make_neuron: builds one neuron.
    """

    def __init__(self, dim: int, mlp_ratio: float, make_neuron: MakeNeuron) -> None:
        super().__init__()
        inner = int(dim * mlp_ratio)
        self.Conv = SepConv(dim, make_neuron)
        self.lif1 = make_neuron()
        self.conv1, self.bn1 = conv3x3(dim, inner), nn.BatchNorm2d(inner)
        self.lif2 = make_neuron()
        self.conv2, self.bn2 = conv3x3(inner, dim), nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> currents ``[T, B, C, H, W]``."""
        x = x + self.Conv(x)
        y = conv_norm_fire(self.conv1, self.bn1, self.lif2, self.lif1(x))
        return x + conv_norm(self.conv2, self.bn2, y)


class Downsample(nn.Module):
    """Neuron, convolution with bias, norm; the first one has no neuron.

    Args:
        c_in: C of the input.
        c_out: C of the output.
        kernel: side of the kernel; padded to keep the map before the stride.
        stride: of the convolution.
        make_neuron: builds one neuron; None for the first.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, make_neuron: MakeNeuron | None
    ) -> None:
        super().__init__()
        self.encode_conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2)
        self.encode_bn = nn.BatchNorm2d(c_out)
        self.encode_lif = None if make_neuron is None else make_neuron()

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """``[T, B, C, H, W]`` -> currents ``[T, B, C', H', W']``; ``repeats`` as in `conv_norm`."""
        x = x if self.encode_lif is None else self.encode_lif(x)
        return conv_norm(self.encode_conv, self.encode_bn, x, repeats)


class MetaSpikeFormer(SpikingModel):
    """Meta-SpikeFormer, see the head of this file.

    Args:
        dims: C at a quarter, an eighth and a sixteenth of the side, and of the last level, which stays
            there; half of the first at half of the side.
        depths: blocks of the five levels; the first three are of convolutions, the others of attention.
        num_heads: h.
        mlp_ratio: width of the feed-forward parts over C.
        head_neuron: whether the classifier sees spikes.
        distilled: a second classifier on spikes, averaged with the first.
        folded: re-parameterised convolutions are plain ones, see `fold`.
        time_steps: T for still images.
        in_chans: C of the input.
        num_classes: K.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments, over the paper's (tau 2, hard reset, sigmoid of slope 4).
    """

    classifier_name = "head"

    def __init__(
        self,
        dims: Sequence[int] = (128, 256, 512, 640),
        depths: Sequence[int] = (1, 1, 2, 6, 2),
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        head_neuron: bool = True,
        distilled: bool = False,
        folded: bool = False,
        time_steps: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
    ) -> None:
        if len(dims) != 4 or len(depths) != 5:
            raise ValueError(f"dims needs four numbers and depths five, got {list(dims)} and {list(depths)}")
        super().__init__(
            num_classes=num_classes, in_chans=in_chans, time_steps=time_steps, num_features=dims[-1]
        )
        make, make_attn = make_neurons(neuron, neuron_args, time_steps)
        self.head_neuron, self.distilled = head_neuron, distilled
        width = dims[0] // 2
        self.stem = Downsample(in_chans, width, 7, 2, None)
        reduction = 2
        levels: list[nn.Module] = []
        for i, (dim, depth) in enumerate(zip((width, *dims), depths, strict=True)):
            level = nn.Sequential()
            if i:
                stride = 1 if i == 4 else 2
                level.append(Downsample(width, dim, 3, stride, make))
                reduction *= stride
            for _ in range(depth):
                if i < 3:
                    level.append(ConvBlock(dim, mlp_ratio, make))
                else:
                    attn = RepAttention(dim, num_heads, make, make_attn, folded)
                    level.append(Block(attn, MembraneMLP(dim, int(dim * mlp_ratio), make)))
            width = dim
            levels.append(level)
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"levels.{i}"})
        self.levels = nn.Sequential(*levels)
        self.head_lif = make()
        self.head = self.make_classifier(num_classes)
        self.head_kd = self.make_classifier(num_classes) if distilled else None

    @override
    def make_classifier(self, num_classes: int) -> nn.Module:
        return truncated_linear(self.num_features, num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers by fresh ones with ``num_classes`` outputs (0 removes them)."""
        super().reset_classifier(num_classes, global_pool)
        if self.distilled:
            weight = self.stem.encode_conv.weight
            self.head_kd = self.make_classifier(num_classes).to(weight.device, weight.dtype)

    def forward_stem(self, x: Tensor, repeats: int) -> Tensor:
        """First convolution and norm, no neuron: ``[T', B, C, H, W]`` -> ``[T', B, C1, H / 2, W / 2]``."""
        y: Tensor = self.stem(x, repeats)
        return y

    def token_blocks(self) -> Sequence[TokenBlock]:
        """Attention blocks. Their projections are 3x3 convolutions, so only the feed-forward parts reduce."""
        return [
            TokenBlock(path=f"levels.{level}.{i}", stage=level, inner=("mlp",), entry="attn.head_lif")
            for level in (3, 4)
            for i, block in enumerate(self.levels[level].children())
            if isinstance(block, Block)
        ]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Currents ``[T, B, C, H, W]`` -> mean over the map -> spikes -> logits ``[T, B, K]``."""
        x = x.mean(dim=(-2, -1))
        spikes = self.head_lif(x) if self.head_neuron or self.distilled else x
        x = spikes if self.head_neuron else x
        if pre_logits:
            return x
        logits: Tensor = self.head(x)
        return logits if self.head_kd is None else (logits + self.head_kd(spikes)) / 2

    def after_import(self) -> None:
        """Foreign weights have a classifier that was trained without its neuron, unless the caller chose."""
        if "head_neuron" not in self.model_args:
            self.head_neuron = self.model_args["head_neuron"] = False

    def fold(self) -> MetaSpikeFormer:
        """The same network in evaluation mode with every `RepConv` as one 3x3 convolution.

        Every product of the attention blocks is then one with spikes, which is how energy is to be
        counted.

        Raises:
            ValueError: the network is folded already, or was not built by an entry.
        """
        if self.model_args.get("folded"):
            raise ValueError(f"{self.architecture} is folded already")
        folded: dict[str, Tensor] = {}
        for path, module in self.named_modules():
            if isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[0], RepConv):
                kernel, bias = module[0].kernel_and_bias(module[1])
                folded |= {f"{path}.weight": kernel.detach(), f"{path}.bias": bias.detach()}
        return build_twin(self, folded, folded=True)


PLACES = {
    "downsample1_1": "stem",
    "ConvBlock1_1.0": "levels.0.0",
    "downsample1_2": "levels.1.0",
    "ConvBlock1_2.0": "levels.1.1",
    "downsample2": "levels.2.0",
    "ConvBlock2_1.0": "levels.2.1",
    "ConvBlock2_2.0": "levels.2.2",
    "downsample3": "levels.3.0",
    "downsample4": "levels.4.0",
    "lif": "head_lif",
}


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours: `PLACES`, and ``block3.i``, ``block4.i`` to the last two levels."""
    renamed = {}
    for key, value in state.items():
        new = re.sub(r"^block([34])\.(\d+)\.", lambda m: f"levels.{m[1]}.{int(m[2]) + 1}.", key)
        theirs = next((place for place in PLACES if new.startswith(f"{place}.")), "")
        renamed[PLACES.get(theirs, "") + new.removeprefix(theirs)] = as_conv_weight(key, value)
    return renamed


FAMILY = Family(
    paper="2404.03663",
    first_conv="stem.encode_conv",
    classifier="head",
    checkpoint_filter_fn=checkpoint_filter_fn,
)


@FAMILY.register(IMAGENET, small={"dims": (8, 8, 64, 64), "depths": (1, 1, 1, 1, 1), "num_heads": 1})
def metaspikformer_15m(**kwargs: Any) -> MetaSpikeFormer:
    """15.1 M parameters; the widths reproduce the published count, the released code lacks this size."""
    return build_model(MetaSpikeFormer, "metaspikformer_15m", {"dims": (64, 128, 256, 360)}, **kwargs)


@FAMILY.register(IMAGENET)
def metaspikformer_8_384(**kwargs: Any) -> MetaSpikeFormer:
    """31.3 M parameters."""
    return build_model(MetaSpikeFormer, "metaspikformer_8_384", {"dims": (96, 192, 384, 480)}, **kwargs)


@FAMILY.register(IMAGENET)
def metaspikformer_8_512(**kwargs: Any) -> MetaSpikeFormer:
    """55.4 M parameters, 80.0 % on ImageNet-1k with distillation in the paper."""
    return build_model(MetaSpikeFormer, "metaspikformer_8_512", {"dims": (128, 256, 512, 640)}, **kwargs)


@FAMILY.register(IMAGENET)
def metaspikformer_8_768(**kwargs: Any) -> MetaSpikeFormer:
    """123.7 M parameters."""
    return build_model(MetaSpikeFormer, "metaspikformer_8_768", {"dims": (192, 384, 768, 960)}, **kwargs)
