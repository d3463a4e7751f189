"""One training step of a small spiking VGG: ours, its modules one by one, SpikingJelly, and without neurons.

    python benchmarks/training_step.py [--quick] [--threads N] [--compiled]

Convolutions 3-32, 32-64, 64-128, 128-128 with batch norms and LIF neurons, 32 x 32 images, T = 4, batch 16;
forward, cross-entropy, backward and a step of SGD. "One by one" calls norm, neuron and pooling one after the
other, each with a kernel of its own; the peak is that of the tensors of a step. The floor is ReLU in the
place of neurons on T * B images, channels-last: what convolutions and norms cost by themselves.
"""

from __future__ import annotations

import argparse
import os
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import _timing
import adapter
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiking.layers import fold_time, norm_repeated

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTHS = (3, 32, 64, 128, 128)
STEPS, BATCH, SIDE, CLASSES = 4, 16, 32, 10
warnings.filterwarnings("ignore")


class Seed(nn.Module):
    """The layers that `adapter.SmallVGG` takes over."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(WIDTHS))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in pairs)
        self.bns = nn.ModuleList(nn.BatchNorm2d(o) for _, o in pairs)
        self.fc = nn.Linear(WIDTHS[-1] * (SIDE // 8) ** 2, CLASSES)


class OneByOne(adapter.SmallVGG):
    """Ours with nothing fused but the neuron."""

    def fire(
        self, norm: nn.Module, neuron: nn.Module, x: Tensor, repeats: int, pool: nn.Module | None
    ) -> Tensor:
        """As in `adapter.SmallVGG`."""
        current = norm_repeated(norm, x.flatten(0, 1), repeats).unflatten(0, x.shape[:2])
        spikes = neuron(current.expand(x.shape[0] * repeats, *x.shape[1:]))
        return spikes if pool is None else fold_time(pool, spikes)


class WithoutNeurons(nn.Module):
    """The floor: ReLU on T * B images."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.net = Seed()
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.format)

    def forward(self, x: Tensor, t: int) -> Tensor:
        """Images ``[B, 3, H, W]`` -> logits ``[B, K]``."""
        x = x.repeat(t, 1, 1, 1).to(memory_format=self.format)
        for i, (conv, norm) in enumerate(zip(self.net.convs, self.net.bns, strict=True)):
            x = torch.relu(norm(conv(x)))
            if i:
                x = F.avg_pool2d(x, 2)
        return self.net.fc(x.flatten(1)).unflatten(0, (t, -1)).mean(0)


class SpikingJelly(nn.Module):
    """The same network as its tutorials write it; resets itself."""

    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        self.reset = functional.reset_net
        body: list[nn.Module] = []
        for i, (c_in, c_out) in enumerate(itertools.pairwise(WIDTHS)):
            node = neuron.LIFNode(
                tau=2.0,
                decay_input=False,
                v_reset=None,
                detach_reset=True,
                surrogate_function=surrogate.ATan(2.0),
            )
            body += [layer.Conv2d(c_in, c_out, 3, padding=1, bias=False), layer.BatchNorm2d(c_out), node]
            if i:
                body.append(layer.AvgPool2d(2))
        body += [layer.Flatten(), layer.Linear(WIDTHS[-1] * (SIDE // 8) ** 2, CLASSES)]
        self.body = nn.Sequential(*body)
        functional.set_step_mode(self.body, "m")

    def forward(self, x: Tensor, t: int) -> Tensor:
        """Images ``[B, 3, H, W]`` -> logits ``[B, K]``."""
        self.reset(self.body)
        return self.body(x.unsqueeze(0).repeat(t, 1, 1, 1, 1)).mean(0)


def step(net: nn.Module) -> Callable[[], None]:
    """One optimiser step on fixed data."""
    x, y = torch.rand(BATCH, 3, SIDE, SIDE), torch.randint(0, CLASSES, (BATCH,))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x, STEPS), y).backward()
        optimizer.step()

    return run


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="also torch.compile of ours")
    args = _timing.arguments(parser)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {
        "ours": adapter.SmallVGG(Seed()),
        "ours, one by one": OneByOne(Seed()),
        "ReLU, channels-last (floor)": WithoutNeurons(channels_last=True),
        "ReLU, channels-first": WithoutNeurons(channels_last=False),
    }
    if _timing.installed("spikingjelly"):
        nets["SpikingJelly"] = SpikingJelly()
    if args.compiled:
        nets["ours, compiled"] = torch.compile(adapter.SmallVGG(Seed()))  # type: ignore[assignment]
    runs = {name: step(net) for name, net in nets.items()}
    found = _timing.measure(runs, 3 if args.quick else 15)
    peaks = {name: _timing.peak(run)[0] / 2**20 for name, run in runs.items()}
    base = "SpikingJelly" if "SpikingJelly" in nets else "ours"
    rows = [
        [
            name,
            _timing.milliseconds(times),
            f"{_timing.ratio(found, name, base):.3f}",
            f"{_timing.ratio(found, name, 'ReLU, channels-last (floor)'):.3f}",
            f"{peaks[name]:.1f}",
        ]
        for name, times in found.items()
    ]
    print(_timing.environment(args, "spikingjelly"), "\n")
    print(_timing.table(["network", "ms a step", f"of {base}", "of the floor", "peak, MiB"], rows))


if __name__ == "__main__":
    main()
