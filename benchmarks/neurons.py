"""Time and memory of a multi-step LIF neuron: ours, a plain loop, peers, and copies of the same bytes.

    python benchmarks/neurons.py [--quick] [--threads N]

One run prints everything: forward and forward+backward for T = 4, 16, 64 over the same 8.4 million numbers,
the same for small layers (64 x 128 neurons), peak memory, the first call of a fresh process, and what
`spiking.keep_memory` does, with and without it in a process of its own. The other tables are measured with
it, as under the command line; ``--release-memory`` leaves it out. Peers that are not installed are left out.
Neuron: decay 0.5, threshold 1, soft detached reset, arc tangent (alpha 2).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
import warnings
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _timing
import adapter
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    Layer = Callable[[Tensor], Tensor]

ELEMENTS = 4 * 32 * 64 * 32 * 32
PEERS = ("spikingjelly", "snntorch")
warnings.filterwarnings("ignore")


class _ATan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, g):
        (u,) = ctx.saved_tensors
        return g / (1 + (torch.pi * u).square())


def loop(x: Tensor) -> Tensor:
    """What one writes first: a Python loop, differentiated by autograd."""
    v = torch.zeros_like(x[0])
    out = []
    for current in x:
        h = 0.5 * v + current
        s = _ATan.apply(h - 1.0)
        v = h - s.detach()
        out.append(s)
    return torch.stack(out)


def spikingjelly() -> Layer:
    """SpikingJelly's multi-step node, reset before every call."""
    from spikingjelly.activation_based import neuron, surrogate

    node = neuron.LIFNode(
        tau=2.0, decay_input=False, v_reset=None, detach_reset=True,
        surrogate_function=surrogate.ATan(2.0), step_mode="m",
    )  # fmt: skip

    def run(x: Tensor) -> Tensor:
        node.reset()
        return node(x)

    return run


def snntorch() -> Layer:
    """SnnTorch's cell in a loop; its reset comes one step later."""
    import snntorch as snn
    from snntorch import surrogate

    cell = snn.Leaky(beta=0.5, spike_grad=surrogate.atan(2.0), reset_mechanism="subtract")

    def run(x: Tensor) -> Tensor:
        state, out = torch.zeros_like(x[0]), []
        for current in x:
            s, state = cell(current, state)
            out.append(s)
        return torch.stack(out)

    return run


def contestants() -> dict[str, Layer]:
    """Everybody who is here."""
    found: dict[str, Layer] = {"ours": adapter.make_lif(), "PyTorch loop": loop}
    if _timing.installed("spikingjelly"):
        found["SpikingJelly"] = spikingjelly()
    if _timing.installed("snntorch"):
        found["snnTorch"] = snntorch()
    return found


def forward_case(layer: Layer, x: Tensor) -> Callable[[], None]:
    """Inference."""

    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def training_case(layer: Layer, x: Tensor, g: Tensor) -> Callable[[], None]:
    """Forward and backward from a new leaf."""

    def run() -> None:
        leaf = x.detach().requires_grad_()
        layer(leaf).backward(g)

    return run


def times(shapes: dict[int, tuple[int, ...]], rounds: int, inner: int) -> tuple[str, float]:
    """A table over T, and the largest ratio of ours to SpikingJelly (or to the loop)."""
    layers = contestants()
    base = "SpikingJelly" if "SpikingJelly" in layers else "PyTorch loop"
    worst, rows = 0.0, {}
    for steps, shape in shapes.items():
        x, g = torch.randn(shape), torch.randn(shape)
        for what, copies in (("forward", 1), ("forward+backward", 2)):
            cases: dict[str, Callable[[], object]] = {
                name: forward_case(layer, x) if copies == 1 else training_case(layer, x, g)
                for name, layer in layers.items()
            }
            cases[f"copy x {copies}"] = lambda x=x, n=copies: [x.clone() for _ in range(n)]
            found = _timing.measure(cases, rounds, inner)
            for name in found:
                against = _timing.ratio(found, name, base)
                cell = f"{_timing.milliseconds(found[name])} ({against:.3f})"
                rows.setdefault((what, name), {})[steps] = cell
            if copies == 2:
                worst = max(worst, _timing.ratio(found, "ours", base))
    body = [[what, name, *cells.values()] for (what, name), cells in sorted(rows.items())]
    return _timing.table(["pass", "of", *[f"T={t}" for t in shapes]], body), worst


def memory(shapes: dict[int, tuple[int, ...]]) -> str:
    """Peak of forward+backward and what a forward pass keeps, in inputs."""
    rows = []
    for name, layer in contestants().items():
        row = [name]
        for shape in shapes.values():
            x, g = torch.randn(shape).requires_grad_(), torch.randn(shape)

            def both(x=x, g=g, layer=layer):
                out = layer(x)
                out.backward(g)
                return out

            both()
            x.grad = None
            most, _ = _timing.peak(both)
            x.grad = None
            _, after = _timing.peak(lambda x=x, layer=layer: layer(x))
            row.append(f"{most / x.nbytes:.2f} / {after / x.nbytes - 1:.2f}")
        rows.append(row)
    return _timing.table(["peak / kept", *[f"T={t}" for t in shapes]], rows)


def child(what: str) -> None:
    """Measurements that need a process of their own."""
    torch.set_num_threads(1)
    if what == "first":
        x = torch.zeros(4, 64, 128).requires_grad_()
        layer = adapter.make_lif()
        start = time.perf_counter()
        layer(x).sum().backward()
        print(json.dumps(time.perf_counter() - start))
        return
    x, g = torch.randn(4, ELEMENTS // 4), torch.randn(4, ELEMENTS // 4)
    run = training_case(adapter.make_lif(), x, g)
    for _ in range(5):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    found = _timing.measure({"ours": run, "copy": lambda: [x.clone(), x.clone()]}, rounds=9)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(json.dumps({k: _timing.milliseconds(v) for k, v in found.items()} | {"faults": faults // 22}))


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the numbers, three rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = _timing.arguments(parser)
    if args.child:
        return child(args.child)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    elements = ELEMENTS // 16 if args.quick else ELEMENTS
    rounds = 3 if args.quick else 9
    print(_timing.environment(args, *PEERS), "\n")
    large = {t: (t, elements // t) for t in (4, 16, 64)}
    small = {t: (t, 64, 128) for t in (4, 16, 64)}
    text, worst = times(large, rounds, 1)
    print(
        f"Milliseconds over {elements:,} numbers (ratio to SpikingJelly; to the loop without it)\n\n{text}\n"
    )
    text, worst_small = times(small, rounds, 4 if args.quick else 20)
    print(f"The same for a layer of 64 x 128 neurons\n\n{text}\n")
    print(f"Memory of forward+backward in inputs of {elements * 4 / 2**20:.0f} MiB\n\n{memory(large)}\n")
    first = min(_timing.in_new_process(__file__, "first") for _ in range(1 if args.quick else 3))
    print(f"First forward+backward of a fresh process, kernels compiled: {first:.2f} s\n")
    rows = []
    for setting, variables in (("on", {}), ("off", {"FULGURITE_MALLOC": "default"})):
        found = _timing.in_new_process(__file__, "pages", **variables)
        rows.append([setting, found["ours"], found["copy"], found["faults"]])
    print(_timing.table(["keep_memory()", "ours, ms", "copy x 2, ms", "page faults a round"], rows))
    print(f"\nLargest ratio, forward+backward: {worst:.3f} large, {worst_small:.3f} small")


if __name__ == "__main__":
    main()
