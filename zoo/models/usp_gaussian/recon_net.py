"""Recon-Net of USP-Gaussian (arXiv 2411.10504): spikes around a time -> the grey image at that time.

Convolutions of 3 x 3 with ReLU and without norms; parameter names are the authors'. With spiking neurons in
the place of the ReLUs (ours) the input is shown T times, and the last convolution reads firing rates.

Axes: T time steps of the network, B images, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from spiking.arguments import integer
from spiking.camera import BINS, SHORT
from spiking.layers import fold_time
from zoo.base import ZooModel
from zoo.build import build_model
from zoo.errors import CheckpointError
from zoo.layers.convolution import conv3x3, leaky_defaults, neuron_factory
from zoo.registry import register_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Inputs = Literal["two", "one"]
# mean square of what a layer with neurons sees, by its name: spikes of the camera, sums of four, own spikes
POWER = {"preprocess_spk": 0.25, "preprocess_voxel": 1.5}
HIDDEN_POWER = 0.15
SCENE = "spike_net."
NEURON_DEFAULTS = leaky_defaults(surrogate="atan", decay_input=False)


class Block(nn.Sequential):
    """Convolution (key ``0``) and activation (key ``1``); ``[T, B, C, H, W]`` -> ``[T, B, C', H, W]``."""

    def __init__(self, c_in: int, c_out: int, activation: nn.Module) -> None:
        super().__init__(conv3x3(c_in, c_out, bias=True), activation)

    def forward(self, x: Tensor, time_steps: int = 1) -> Tensor:
        """``T`` of ``x`` is 1 or ``time_steps``: steps that do not differ are convolved once."""
        y: Tensor = fold_time(self[0], x)
        activated: Tensor = self[1](y.expand(time_steps, *y.shape[1:]))
        return activated


class ReconNet(ZooModel):
    """Recon-Net, see the head of this file.

    Args:
        inputs: ``"two"``: a short window, and the counts of a long one; ``"one"``: the short window alone.
        channels: C of the hidden layers.
        short: frames of the short window.
        bins: channels of the long window.

    Raises:
        ValueError: other inputs, or another number of layers.
    """

    def __init__(
        self,
        inputs: Inputs = "two",
        channels: Sequence[int] = (64, 128, 64, 16),
        short: int = SHORT,
        bins: int = BINS,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        if inputs not in get_args(Inputs):
            raise ValueError(f"inputs must be 'two' or 'one', got {inputs!r}")
        if len(channels) != 4:
            raise ValueError(f"channels are those of the 4 hidden layers, got {len(channels)}: {channels}")
        self.inputs: Inputs = inputs
        widths = [integer("channels", c) for c in channels]
        self.short, self.bins = integer("short", short), integer("bins", bins)
        if inputs == "two":
            self.preprocess_spk = Block(self.short, widths[0], activation())
            self.preprocess_voxel = Block(self.bins, widths[0], activation())
        else:
            widths.insert(0, self.short)
        self.depth = len(widths) - 1
        for i in range(self.depth):
            self.add_module(f"convBlock{i + 1}", Block(widths[i], widths[i + 1], activation()))
        self.conv = conv3x3(widths[-1], 1, bias=True)

    def forward(self, short: Tensor, voxel: Tensor | None = None, tau: Tensor | float = 0.0) -> Tensor:
        """Reconstruct images.

        Args:
            short: spikes around each time, ``[B, 41, H, W]``.
            voxel: counts of the long window, ``[B, 34, H, W]``, or one for all, ``[1, 34, H, W]``.
            tau: where in the exposure each time lies, from 0 to 1, ``[B]``.

        Returns:
            Grey images ``[B, 1, H, W]``, in spikes a frame.

        Raises:
            ValueError: shapes that do not fit, a missing or a needless voxel.
        """
        x = self._mixed(short, voxel, tau)
        for i in range(self.depth):
            x = self.get_submodule(f"convBlock{i + 1}")(x, self.time_steps)
        y: Tensor = self.conv(x.mean(0))
        return y

    def _mixed(self, short: Tensor, voxel: Tensor | None, tau: Tensor | float) -> Tensor:
        """The input of the first block that both variants have, ``[T, B, C, H, W]``."""
        dtype = self.conv.weight.dtype
        self._check("short window", short, self.short)
        spikes = short.to(dtype).unsqueeze(0)
        if self.inputs == "one":
            if voxel is not None:
                raise ValueError("this Recon-Net takes no voxel: it was built with inputs='one'")
            return spikes
        if voxel is None:
            raise ValueError("this Recon-Net takes a voxel, too: it was built with inputs='two'")
        self._check("voxel", voxel, self.bins)
        if voxel.shape[0] not in (1, short.shape[0]) or voxel.shape[-2:] != short.shape[-2:]:
            raise ValueError(f"voxel {tuple(voxel.shape)} does not fit to short window {tuple(short.shape)}")
        where = torch.as_tensor(tau, dtype=dtype, device=short.device).reshape(-1, 1, 1, 1)
        long: Tensor = self.preprocess_voxel(voxel.to(dtype).unsqueeze(0), self.time_steps)
        near: Tensor = self.preprocess_spk(spikes, self.time_steps)
        return long + near + where

    @staticmethod
    def _check(what: str, x: Tensor, channels: int) -> None:
        if x.dim() != 4 or x.shape[1] != channels:
            raise ValueError(f"expected a {what} [B, {channels}, H, W], got {tuple(x.shape)}")


class SpikingReconNet(ReconNet):
    """Recon-Net with spiking neurons in the place of its ReLUs.

    Args:
        inputs: see `ReconNet`.
        channels: see `ReconNet`.
        short: see `ReconNet`.
        bins: see `ReconNet`.
        neuron: name of the neuron, see ``spiking.list_neurons``.
        neuron_args: its arguments (default: tau 2, threshold 1, hard reset, ATan, detached reset).
        time_steps: T.
    """

    recorded = ("time_steps",)
    takes_time_steps = True

    def __init__(
        self,
        inputs: Inputs = "two",
        channels: Sequence[int] = (64, 128, 64, 16),
        short: int = SHORT,
        bins: int = BINS,
        neuron: str = "lif",
        neuron_args: dict[str, Any] | None = None,
        time_steps: int = 4,
    ) -> None:
        T = integer("time_steps", time_steps)
        make = neuron_factory(neuron, neuron_args, NEURON_DEFAULTS, T)
        super().__init__(inputs, channels, short, bins, activation=make)
        self.time_steps = T
        self._let_neurons_fire()

    def _let_neurons_fire(self) -> None:
        """Give currents the spread of a threshold of 1; usual weights leave the last layers silent."""
        for name, block in self.named_children():
            if isinstance(block, Block):
                weight, bias = block.get_parameter("0.weight"), block.get_parameter("0.bias")
                power = POWER.get(name, HIDDEN_POWER)
                nn.init.normal_(weight, std=(weight[0].numel() * power) ** -0.5)
                nn.init.zeros_(bias)


def checkpoint_filter_fn(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Map the authors' keys to ours: they are the same, in a file that may hold a whole scene, and repeated.

    Their network lists its layers a second time under ``seq``, and a checkpoint of nerfstudio has it among
    Gaussians and cameras as ``_model.spike_net``.
    """
    if any(SCENE in key for key in state):
        state = {key.partition(SCENE)[2]: value for key, value in state.items() if SCENE in key}
    depth = getattr(model, "depth", 0)
    names = {f"seq.{i}": f"convBlock{i + 1}" for i in range(depth)} | {f"seq.{depth}": "conv"}
    for key in [key for key in state if key.startswith("seq.")]:
        own = names.get(key.rpartition(".")[0].removesuffix(".0"), "")
        twin = state.get(key.replace(key[: len("seq.0")], own, 1))
        if twin is None or not torch.equal(twin, state[key]):
            raise CheckpointError(f"{key} is not the weight that the file has under {own or 'its own name'}")
        del state[key]
    return state


@register_model(
    paper="2411.10504",
    task="reconstruction",
    cfg={"short_window": SHORT, "long_window_bins": BINS, "output": "grey image [B, 1, H, W]"},
    small={"channels": (4, 8, 4, 4)},
    checkpoint_filter_fn=checkpoint_filter_fn,
)
def usp_recon_net(**kwargs: Any) -> ReconNet:
    """0.20 M parameters, trained from scratch for each scene; ``neuron="lif"`` makes it a spiking one."""
    cls = ReconNet if kwargs.get("neuron") is None else SpikingReconNet
    return build_model(cls, "usp_recon_net", {}, **kwargs)
