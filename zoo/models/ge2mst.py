"""Ge2mS-T: grouped coding in time, windows in space, groups of channels; a re-design from an abstract.

"Ge2mS-T: Multi-Dimensional Grouping for Ultra-High Energy Efficiency in Spiking Transformer", arXiv
2604.08894. Only the abstract could be read: ExpG-IF neurons with lossless conversion and a training cost that
does not grow with T, group-wise spiking self-attention (GW-SSA) with tokens grouped at several scales and no
multiplications, convolutions early and attention late. **Equations and sizes are ours, so no number of the
paper belongs to these entries.**

A network is trained in its quantised form, without time axis; `Ge2mST.to_spiking` gives the spiking one, with
the same parameters under the same names and the same outputs. The residual stream is real-valued.

Axes: T time, B batch, C channels, H W map, h heads, d head width, K classes, w side of a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from spiking.layers import SpikeMatmul
from spiking.neurons import ExpGCode, ExpGIF, ExpGQuant
from zoo.build import build_model
from zoo.classifier import AnalogModel
from zoo.layers.convolution import conv1x1, conv3x3
from zoo.models.spikformer import truncated_linear
from zoo.registry import get_entry, register_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from zoo.layers.token_block import TokenBlock

    Activation = ExpGQuant | ExpGIF
    MakeActivation = Callable[[ExpGCode | None], Activation]

ONE_BIT = ExpGCode.grouped(1, 1)  # of queries and keys: fires where the potential reaches s / 2


class Layer(nn.Module):
    """ExpG-IF, convolution without bias, norm: ``[B, C, H, W]`` -> ``[B, C', H', W']``, in both forms.

    Args:
        conv: the convolution.
        make: builds one activation.
    """

    def __init__(self, conv: nn.Conv2d, make: MakeActivation) -> None:
        super().__init__()
        self.neuron = make(None)
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Real values in, real values out; in between levels or spikes."""
        return self.norm(self.neuron.weigh(self.conv, self.neuron(x)))  # type: ignore[no-any-return]


class GWSSA(nn.Module):
    """Group-wise spiking self-attention; without the shortcut.

    ``a = ExpG-IF(x)``; queries and keys are one bit each, values a train of T steps. A group of heads works
    inside windows of its own scale, ``A = q k^T`` counts coincidences, ``o = A v`` adds. The step of the
    neuron behind ``o`` absorbs every scale, so no softmax and no multiplier is left.

    Maps that windows do not tile are padded with zeros at the right and the bottom; zeros have no spikes.

    Args:
        dim: C.
        num_heads: h, shared evenly among the windows.
        windows: side w of the windows of each group of heads.
        make: builds one activation.
    """

    def __init__(self, dim: int, num_heads: int, windows: Sequence[int], make: MakeActivation) -> None:
        super().__init__()
        if dim % num_heads or num_heads % len(windows):
            raise ValueError(
                f"{dim} channels must divide into {num_heads} heads, and these into {len(windows)} groups,"
                f" one for each of the windows {list(windows)}"
            )
        self.num_heads, self.windows = num_heads, tuple(windows)
        self.neuron_in = make(None)
        for name in ("q", "k", "v"):
            self.add_module(f"{name}_conv", conv1x1(dim, dim))
            self.add_module(f"{name}_norm", nn.BatchNorm2d(dim))
        self.q_neuron, self.k_neuron, self.v_neuron = make(ONE_BIT), make(ONE_BIT), make(None)
        self.matmul1 = SpikeMatmul(spike_operand="b")
        self.matmul2 = SpikeMatmul(spike_operand="b")
        self.proj = Layer(conv1x1(dim, dim), make)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        a = self.neuron_in(x)
        q, k, v = (
            self.get_submodule(f"{n}_norm")(self.neuron_in.weigh(self.get_submodule(f"{n}_conv"), a))
            for n in ("q", "k", "v")
        )
        q, k = (self.one_bit(neuron, y) for neuron, y in ((self.q_neuron, q), (self.k_neuron, k)))
        parts = len(self.windows)
        groups = zip(q.chunk(parts, 1), k.chunk(parts, 1), self.windows, strict=True)
        maps = [(self.attention(a, b, w), w) for a, b, w in groups]

        def attend(values: Tensor) -> Tensor:
            """``A v``, of levels ``[B, C, H, W]`` or of one step of every train ``[T * B, C, H, W]``."""
            mixed = [self.mix(m, y, w) for (m, w), y in zip(maps, values.chunk(parts, 1), strict=True)]
            return torch.cat(mixed, dim=1)

        return self.proj(self.v_neuron.weigh(attend, self.v_neuron(v)))  # type: ignore[no-any-return]

    def one_bit(self, neuron: Activation, y: Tensor) -> Tensor:
        """0 or 1, emitted once and held: ``[B, C, H, W]``."""
        bits: Tensor = neuron(y)
        return bits[0] if isinstance(neuron, ExpGIF) else bits

    def attention(self, q: Tensor, k: Tensor, window: int) -> Tensor:
        """Coincidences of every two tokens of a window, ``[B, windows, h', w * w, w * w]``."""
        heads = self.num_heads // len(self.windows)
        q, k = to_windows(q, window, heads), to_windows(k, window, heads)
        return self.matmul1(k.transpose(-1, -2), q)  # type: ignore[no-any-return]  # [key, query]

    def mix(self, attention: Tensor, v: Tensor, window: int) -> Tensor:
        """``A v`` in every window; ``v`` may hold T trains for each of the B attention maps."""
        H, W = v.shape[-2:]
        y = to_windows(v, window, self.num_heads // len(self.windows))  # [T * B, windows, h', d, w * w]
        T = self.v_neuron.code.time_steps if isinstance(self.v_neuron, ExpGIF) else 1
        y = y.reshape(T, *attention.shape[:3], *y.shape[3:])
        # the values of a key go to a query as often as the two coincide
        out = self.matmul2(attention.transpose(-1, -2), y.transpose(-1, -2)).transpose(-1, -2)
        return from_windows(out.flatten(0, 1), window, H, W)


def to_windows(x: Tensor, window: int, heads: int) -> Tensor:
    """``[B, C, H, W]`` -> ``[B, windows, h, d, w * w]``, padded with zeros at the right and the bottom."""
    B, C, H, W = x.shape
    down, right = -H % window, -W % window
    x = F.pad(x, (0, right, 0, down))
    rows, columns = (H + down) // window, (W + right) // window
    x = x.reshape(B, heads, C // heads, rows, window, columns, window)
    return x.permute(0, 3, 5, 1, 2, 4, 6).reshape(B, rows * columns, heads, C // heads, window * window)


def from_windows(x: Tensor, window: int, H: int, W: int) -> Tensor:
    """The inverse of `to_windows`: ``[B, windows, h, d, w * w]`` -> ``[B, h * d, H, W]``."""
    B, _, heads, d, _ = x.shape
    rows, columns = -(-H // window), -(-W // window)
    x = x.reshape(B, rows, columns, heads, d, window, window).permute(0, 3, 4, 1, 5, 2, 6)
    return x.reshape(B, heads * d, rows * window, columns * window)[..., :H, :W]


class ConvBlock(nn.Module):
    """Separable convolution and grouped feed-forward part, each with a shortcut.

    Args:
        dim: C.
        group_size: channels of a group of the grouped convolution.
        make: builds one activation.
    """

    def __init__(self, dim: int, group_size: int, make: MakeActivation) -> None:
        super().__init__()
        inner = 2 * dim
        depthwise = nn.Conv2d(inner, inner, 7, padding=3, groups=inner, bias=False)
        self.separable = nn.Sequential(
            Layer(conv1x1(dim, inner), make), Layer(depthwise, make), Layer(conv1x1(inner, dim), make)
        )
        wide = 4 * dim
        if wide % group_size:
            raise ValueError(f"{wide} hidden channels do not divide into groups of {group_size}")
        grouped = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group_size, bias=False)
        self.up, self.grouped = Layer(conv1x1(dim, wide), make), Layer(grouped, make)
        self.down = Layer(conv1x1(wide, dim), make)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        x = x + self.separable(x)
        u = self.up(x)
        return x + self.down(u + self.grouped(u))  # type: ignore[no-any-return]


class AttnBlock(nn.Module):
    """`GWSSA` and a feed-forward part of ratio 4, each with a shortcut.

    Args:
        dim: C.
        num_heads: h.
        windows: see `GWSSA`.
        make: builds one activation.
    """

    def __init__(self, dim: int, num_heads: int, windows: Sequence[int], make: MakeActivation) -> None:
        super().__init__()
        self.attn = GWSSA(dim, num_heads, windows, make)
        self.mlp = nn.Sequential(Layer(conv1x1(dim, 4 * dim), make), Layer(conv1x1(4 * dim, dim), make))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W]`` -> ``[B, C, H, W]``."""
        x = x + self.attn(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class Ge2mST(AnalogModel):
    """Ge2mS-T, see the head of this file.

    The quantised form answers in one pass. The spiking form answers T steps of logits, whose mean is the
    answer; a step alone is its share of the code, no estimate of the answer. Frames of a sequence are
    independent of each other.

    Args:
        dims: C of the second to the fifth level; the first has half of the first.
        depths: blocks of the five levels; the first three of convolutions, the others of attention.
        num_heads: h of the two levels of attention.
        windows: sides of the attention windows; heads are shared evenly among them.
        group_size: channels of a group of the grouped convolutions.
        groups: G of the code, see `spiking.ExpGCode.grouped`.
        steps_per_group: n of the code; T = G n.
        order: of the code.
        most_spikes: of a neuron in its window; None for no limit.
        stem: ``"7x7"`` (stride 2) or ``"3x3"`` (stride 1, and the third level keeps the map), for small
            images.
        spiking: the spiking form, for evaluation.
        in_chans: C of the input.
        num_classes: K.
    """

    classifier_name = "head"

    def __init__(
        self,
        dims: Sequence[int] = (64, 128, 256, 320),
        depths: Sequence[int] = (1, 1, 2, 6, 2),
        num_heads: Sequence[int] = (8, 10),
        windows: Sequence[int] = (7, 14),
        group_size: int = 64,
        groups: int = 2,
        steps_per_group: int = 2,
        order: Literal["descending", "interleaved"] = "descending",
        most_spikes: int | None = None,
        stem: Literal["7x7", "3x3"] = "7x7",
        spiking: bool = False,
        in_chans: int = 3,
        num_classes: int = 1000,
    ) -> None:
        if (len(dims), len(depths), len(num_heads)) != (4, 5, 2):
            raise ValueError(
                "dims needs four numbers, depths five and num_heads two, got"
                f" {list(dims)}, {list(depths)}, {list(num_heads)}"
            )
        if stem not in ("7x7", "3x3"):
            raise ValueError(f"stem must be '7x7' or '3x3', got {stem!r}")
        super().__init__(num_classes=num_classes, in_chans=in_chans, num_features=dims[-1])
        code = ExpGCode.grouped(groups, steps_per_group, order, most_spikes)
        self.spiking = spiking
        if spiking:
            self.time_steps = code.time_steps

        def make(other: ExpGCode | None) -> Activation:
            return (ExpGIF if spiking else ExpGQuant)(other or code)

        width = dims[0] // 2
        kernel, stride = (7, 2) if stem == "7x7" else (3, 1)
        self.conv = nn.Conv2d(in_chans, width, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        reduction = stride
        levels: list[nn.Module] = []
        strides = (1, 2, 2 if stem == "7x7" else 1, 2, 1)
        for i, (dim, depth) in enumerate(zip((width, *dims), depths, strict=True)):
            level = nn.Sequential()
            if i:
                down = conv3x3(width, dim, strides[i])
                level.append(Layer(down, make))
            for _ in range(depth):
                level.append(
                    ConvBlock(dim, group_size, make)
                    if i < 3
                    else AttnBlock(dim, num_heads[i - 3], windows, make)
                )
            width = dim
            reduction *= strides[i]
            levels.append(level)
            self.feature_info.append({"num_chs": dim, "reduction": reduction, "module": f"levels.{i}"})
        self.levels = nn.Sequential(*levels)
        self.head_neuron = make(None)
        self.head = self.make_classifier(num_classes)

    def make_classifier(self, num_classes: int) -> nn.Module:
        """Linear with bias; truncated normal of 0.02."""
        return truncated_linear(self.num_features, num_classes)

    def forward_stem(self, x: Tensor) -> Tensor:
        """First convolution and norm: ``[B, C, H, W]`` -> ``[B, C', H', W']``.

        In the spiking form real values are multiplied here and by the classifier, nowhere else.
        """
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    def stages(self) -> Sequence[nn.Module]:
        """The levels of the hierarchy."""
        return list(self.levels)

    def token_blocks(self) -> Sequence[TokenBlock]:
        """None.

        Raises:
            ValueError: always, with the reasons.
        """
        raise ValueError(
            f"{self.architecture or type(self).__name__} cannot run on part of its tokens: its attention"
            " works in windows of the whole grid, and a layer gets a whole train, no steps to compare;"
            " Spikformer, QKFormer, Spike-driven Transformers and SpikingResformer can"
        )

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """``[B, C, H, W]`` -> logits ``[B, K]``; in the spiking form ``[T, B, K]``, whose mean they are."""
        neuron = self.head_neuron
        fired = neuron(x)
        if isinstance(neuron, ExpGIF):
            weights = torch.tensor(neuron.code.weights, dtype=x.dtype, device=x.device)
            pooled = fired.mean(dim=(-2, -1)) * (weights * neuron.code.time_steps).view(-1, 1, 1)
            pooled = pooled * neuron.known_step().to(x.dtype)
        else:
            pooled = neuron.weigh(lambda levels: levels.mean(dim=(-2, -1)), fired)
        return pooled if pre_logits else self.head(pooled)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, *, steps: bool = False) -> Tensor:
        """Logits ``[B, K]``; with ``steps=True`` ``[T, B, K]``, of a sequence all T of every frame."""
        if not self.spiking:
            return super().forward(x, steps=steps)
        logits = self.forward_head(self.forward_features(x))  # [T, frames * B, K]
        if x.dim() == 5:
            frames, B = x.shape[:2]
            logits = logits.reshape(-1, frames, B, logits.shape[-1]).transpose(0, 1).flatten(0, 1)
        return logits if steps else logits.mean(dim=0)

    def train(self, mode: bool = True) -> Ge2mST:
        """Switch mode; the spiking form cannot be trained."""
        if mode and self.spiking:
            mode = False
        super().train(mode)
        return self

    def to_spiking(self) -> Ge2mST:
        """The spiking form of this network: a copy with the same parameters, in evaluation mode.

        Raises:
            ValueError: it is spiking already, or was not built by an entry.
        """
        if self.spiking:
            raise ValueError("this network is in its spiking form already")
        if not self.architecture:
            raise ValueError("only a network that an entry of the zoo built can change its form")
        arguments = {**self.model_args, "spiking": True}
        twin = get_entry(self.architecture).fn(**arguments)
        assert isinstance(twin, Ge2mST)
        twin.to(self.conv.weight.device, self.conv.weight.dtype).load_state_dict(self.state_dict())
        return twin.eval()


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.95}
GREY = {"mean": (0.1307,), "std": (0.3081,), "crop_pct": 1.0}
NAMES = {"first_conv": "conv", "classifier": "head", "interpolation": "bicubic"}
PAPER = "2604.08894"


def _create(name: str, variant: dict[str, Any], **kwargs: Any) -> Ge2mST:
    return build_model(Ge2mST, name, variant, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES})
def ge2mst_xs(**kwargs: Any) -> Ge2mST:
    """10 M parameters; our design after the paper's abstract."""
    return _create("ge2mst_xs", {"dims": (64, 128, 256, 320)}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES})
def ge2mst_s(**kwargs: Any) -> Ge2mST:
    """21 M parameters; our design after the paper's abstract."""
    return _create("ge2mst_s", {"dims": (96, 192, 384, 480)}, **kwargs)


@register_model(paper=PAPER, cfg={**IMAGENET, **NAMES})
def ge2mst_m(**kwargs: Any) -> Ge2mST:
    """37 M parameters; our design after the paper's abstract."""
    return _create("ge2mst_m", {"dims": (128, 256, 512, 640)}, **kwargs)


@register_model(paper=PAPER, input_size=(1, 28, 28), num_classes=10, cfg={**GREY, **NAMES})
def ge2mst_nano(**kwargs: Any) -> Ge2mST:
    """A size for grey digits of 28 x 28; our design after the paper's abstract."""
    variant = {
        "dims": (16, 32, 48, 64),
        "depths": (1, 1, 1, 1, 1),
        "num_heads": (4, 4),
        "windows": (2, 4),
        "group_size": 16,
        "in_chans": 1,
        "num_classes": 10,
    }
    return _create("ge2mst_nano", variant, **kwargs)
