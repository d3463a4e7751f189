"""A neuron of the user's own: its kernel, the one written by hand, the same lines step by step, and peers.

    python benchmarks/written_neuron.py

CLIF in the lines of a `spiking.StepNeuron` and of SpikingJelly's FlexSN as it runs by itself; forward, and
forward with backward, on one thread.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import torch

import spiking

if TYPE_CHECKING:
    from collections.abc import Callable

    Layer = Callable[[torch.Tensor], torch.Tensor]

SHAPES = ((4, 32, 64, 32, 32), (16, 8, 64, 32, 32), (4, 8, 64))


class CLIF(spiking.StepNeuron):
    """As `spiking.CLIF`."""

    state_names = ("v", "m")
    tau = 2.0

    def dynamics(self, x: Any, v: Any, m: Any) -> tuple[Any, ...]:
        """See arXiv 2402.04663."""
        h = v * (1.0 - 1.0 / self.tau) + x
        s = self.fire(h - self.v_threshold)
        m = m * torch.sigmoid(h / self.tau) + s
        return s, h - s * (self.v_threshold + torch.sigmoid(m)), m


def contestants() -> dict[str, Layer]:
    """By name; the peer where it is installed."""
    found: dict[str, Layer] = {
        "by hand": spiking.CLIF(surrogate="atan"),
        "written": CLIF(surrogate="atan"),
        "line by line": CLIF(surrogate="atan", backend="reference"),
    }
    if not _timing.installed("spikingjelly"):
        return found
    from spikingjelly.activation_based import functional, neuron, surrogate

    def core(x: Any, v: Any, m: Any) -> tuple[Any, ...]:
        h = v * 0.5 + x
        s = surrogate.atan.apply(h - 1.0, 2.0)
        m = m * torch.sigmoid(h / 2.0) + s
        return s, h - s * (1.0 + torch.sigmoid(m)), m

    def run(layer: Any, x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(layer)
        y: torch.Tensor = layer(x)
        return y

    found["FlexSN"] = partial(run, neuron.FlexSN(core, num_states=2, step_mode="m"))
    node = neuron.ComplementaryLIFNode(tau=2.0, surrogate_function=surrogate.ATan(2.0), step_mode="m")
    return {**found, "ComplementaryLIFNode": partial(run, node)}


def both(layer: Layer, x: torch.Tensor, g: torch.Tensor) -> None:
    """Forward and backward."""
    torch.autograd.grad(layer(x), x, g)


def main() -> None:
    """Print the table."""
    args = _timing.arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]))
    torch.set_num_threads(1)
    print(f"{_timing.environment(args, 'torch', 'spikingjelly')}; load {os.getloadavg()[0]:.1f}\n")
    rows = []
    for shape in SHAPES:
        x, g = (torch.randn(shape) + 0.5).requires_grad_(), torch.randn(shape)
        layers, small = contestants(), x.numel() < 1e5
        first = layers["by hand"](x)
        for name, layer in layers.items():
            assert torch.equal(layer(x), first), name
        rounds, inner = (30, 20) if small else (7, 1)
        forward = _timing.measure({n: partial(run, x) for n, run in layers.items()}, rounds, inner)
        whole = _timing.measure({n: partial(both, run, x, g) for n, run in layers.items()}, rounds, inner)
        for name in layers:
            share = _timing.ratio(whole, name, "by hand")
            times = (_timing.milliseconds(forward[name]), _timing.milliseconds(whole[name]))
            rows.append(("x".join(map(str, shape)), name, *times, f"{share:.2f}"))
    print(_timing.table(("T, B, ...", "CLIF", "forward, ms", "with backward, ms", "by hand = 1"), rows))


if __name__ == "__main__":
    main()
