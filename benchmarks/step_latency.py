"""Latency of a single step: batch 1, T = 1 a call, 100 steps of a stream; ours beside SpikingJelly.

    python benchmarks/step_latency.py [--steps 100] [--rounds 5] [ENTRY ...]

Ours streams (`spiking.streaming`). SpikingJelly is the same network, layer for layer, with
its stateful nodes in single-step mode in the place of our neurons, reset before every stream.
The floor is the network with identities in their place.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import warnings
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch
from torch import Tensor, nn

import spiking
import zoo

if TYPE_CHECKING:
    from collections.abc import Callable

ENTRIES = ("spiking_cnn_nano", "spikingresformer_nano", "spikingresformer_ti")
FLOOR = "no neurons (floor)"
warnings.filterwarnings("ignore")


class Single(nn.Module):
    """A node of SpikingJelly in single-step mode, where a neuron of ours stood."""

    def __init__(self, node: nn.Module) -> None:
        super().__init__()
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        """``[1, B, ...]`` -> ``[1, B, ...]``."""
        return self.node(x[0]).unsqueeze(0)


def node(neuron: Any) -> nn.Module:
    """The node with the settings of ``neuron``."""
    from spikingjelly.activation_based import neuron as peers

    settings = {"v_threshold": neuron.v_threshold, "v_reset": neuron.v_reset, "step_mode": "s"}
    if isinstance(neuron, spiking.LIF):
        return peers.LIFNode(tau=neuron.tau, decay_input=neuron.decay_input, **settings)
    return peers.IFNode(**settings)


def with_neurons(net: nn.Module, make: Callable[[Any], nn.Module]) -> nn.Module:
    """A copy of a network with other modules in the place of its neurons."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, spiking.Neuron):
                setattr(module, name, make(child))
    return net


def streams(entry: str, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What runs a stream, by name; each gives the logits of the last step."""
    torch.manual_seed(0)
    ours = zoo.create(entry, time_steps=1).eval()
    side, channels = ours.default_cfg["input_size"][-1], ours.in_chans
    frames = torch.rand(steps, 1, 1, channels, side, side)

    def run(net: nn.Module) -> Tensor:
        with torch.no_grad():
            for frame in frames:
                out = net(frame)
        return out

    def streamed() -> Tensor:
        with spiking.streaming(ours):
            return run(ours)

    found: dict[str, Callable[[], Tensor]] = {"ours": streamed}
    if _timing.installed("spikingjelly"):
        from spikingjelly.activation_based import functional

        peer = with_neurons(ours, lambda neuron: Single(node(neuron)))

        def single() -> Tensor:
            functional.reset_net(peer)
            return run(peer)

        found["SpikingJelly, single-step"] = single
    bare = with_neurons(ours, lambda _: nn.Identity())
    return found | {FLOOR: lambda: run(bare)}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("entries", nargs="*", default=ENTRIES, metavar="ENTRY")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    args = _timing.arguments(parser)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    print(_timing.environment(args, "spikingjelly"), "\n")
    rows = []
    for entry in args.entries:
        runs = streams(entry, args.steps)
        outputs = {name: run() for name, run in runs.items()}
        if (peer := "SpikingJelly, single-step") in outputs and not torch.equal(
            outputs["ours"], outputs[peer]
        ):
            far = (outputs["ours"] - outputs[peer]).abs().max()
            print(f"{entry}: logits after {args.steps} steps differ by {far:.3g}\n")
        times = _timing.measure(runs, args.rounds, warm_up=0)
        base = next((name for name in runs if name.startswith("SpikingJelly")), "ours")
        for name, found in times.items():
            step = statistics.median(found) / args.steps * 1e3
            ratio = _timing.ratio(times, name, base)
            rows.append([entry, name, f"{step:.3f}", f"{ratio:.3f}"])
    print(_timing.table(["network", "steps by", "CPU ms a step", f"of {base}"], rows))


if __name__ == "__main__":
    main()
