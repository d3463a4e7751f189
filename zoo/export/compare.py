"""Whether a file computes what the network does.

Rounding differs from program to program in the seventh digit. Where a potential lies that close to a
threshold, it decides whether a neuron fires, and one spike more changes what follows by much more than
rounding. So a difference is either as small as rounding, or it is compared with what the network itself does
when its own weights and inputs move by as little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.export.ports import Interface, Run

BATCHES = (3, 1)  # samples; another number than that of the trace
ROUNDING = 1e-4  # of the largest output: float32 sums over a deep network, in another order
NUDGE = 1e-6  # relative: a few of the last bits, what sums in another order differ by
NUDGED = 4  # times
LARGEST = 0.5  # of the largest output: beyond, nothing of the answer is left


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far outputs lie apart.

    Attributes:
        samples: that were compared.
        same: how many of them agree up to rounding.
        gap: the largest difference, in shares of the largest output.
        own: the network's own reaction to a nudge, on the same scale; None where nobody had to ask.
        note: how differences came about, in words.
        varied: whether the network answers differently to different inputs; a silent one tells little.
    """

    samples: int
    same: int
    gap: float
    own: float | None = None
    note: str = ""
    varied: bool = True

    def __str__(self) -> str:
        if self.same == self.samples:
            silent = (
                "; but the network gives the same answer to all of them, as untrained ones do whose neurons"
                " are silent, so this says little"
            )
            return (
                f"equal to PyTorch on {self.samples} random inputs: largest difference"
                f" {self.gap:.1e}{'' if self.varied else silent}"
            )
        return (
            f"equal to PyTorch on {self.same} of {self.samples} random inputs, largest difference"
            f" {self.gap:.1e} of the largest output{self.note}"
        )


def check(interface: Interface, run: Run, exact: Run | None = None, what: str = "the file") -> Comparison:
    """Compare what ``run`` gives with the network on random inputs.

    Args:
        interface: of the network.
        run: the file in its program.
        exact: the same without optimisations, which take sums in the order of the network.
        what: is compared, for a message.

    Raises:
        ExportError: the file computes something else, with figures.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = [interface.draw(count, generator) for count in BATCHES]
    wanted = [interface(inputs) for inputs in drawn]
    gaps = gaps_of(interface, wanted, [run(inputs) for inputs in drawn], what)
    same, gap = int((gaps <= ROUNDING).sum()), float(gaps.max())
    if same == len(gaps):
        return Comparison(samples=len(gaps), same=same, gap=gap, varied=varied(interface, wanted[0]))
    if exact is not None:
        plain = gaps_of(interface, wanted, [exact(inputs) for inputs in drawn], what)
        if bool((plain <= ROUNDING).all()):
            note = (
                "; without the optimisations of the program all are equal, so that is its rounding, by which"
                " spikes at a threshold come or go"
            )
            return Comparison(samples=len(gaps), same=same, gap=gap, note=note)
    own = own_reaction(interface, drawn, wanted, generator)
    if gap > 2 * own or gap > LARGEST:
        raise ExportError(
            f"{what} computes something else than the network: on {len(gaps) - same} of {len(gaps)} random"
            f" inputs outputs differ, by up to {gap:.2g} of the largest one, while the network itself moves"
            f" by {own:.2g} if its weights and inputs change by {NUDGE:g}"
        )
    note = (
        f"; the network itself moves by {own:.1e} if its weights and inputs change by {NUDGE:g}, as spikes at"
        " a threshold come or go"
    )
    return Comparison(samples=len(gaps), same=same, gap=gap, own=own, note=note)


def varied(interface: Interface, outputs: tuple[Tensor, ...]) -> bool:
    """Whether any output differs from sample to sample."""
    for port, output in zip(interface.outputs, outputs, strict=True):
        if port.batch is not None and bool((output != output.narrow(port.batch, 0, 1)).any()):
            return True
    return False


def gaps_of(
    interface: Interface,
    wanted: Sequence[tuple[Tensor, ...]],
    found: Sequence[tuple[Tensor, ...]],
    what: str = "the file",
) -> Tensor:
    """The largest difference of each sample over all outputs, each in shares of its largest value.

    Raises:
        ExportError: other outputs, other shapes, or NaN.
    """
    scale = [max(float(w[i].abs().max()) for w in wanted) or 1.0 for i in range(len(interface.outputs))]
    gaps = []
    for right, got in zip(wanted, found, strict=True):
        if [tuple(g.shape) for g in got] != [tuple(r.shape) for r in right]:
            raise ExportError(
                f"{what} gives shapes {[list(g.shape) for g in got]}, the network"
                f" {[list(r.shape) for r in right]}"
            )
        apart = []
        for port, r, g, largest in zip(interface.outputs, right, got, scale, strict=True):
            if not bool(g.isfinite().all()):
                raise ExportError(f"{what} gives NaN or infinity in {port.name!r}, the network does not")
            rest = (r - g).abs().double() / largest
            if port.batch is not None:
                apart.append(rest.movedim(port.batch, 0).flatten(1).amax(1))
            elif float(rest.max()) > 0:
                raise ExportError(f"{what} gives other values in {port.name!r} than the network")
        gaps.append(torch.stack(apart).amax(0))
    return torch.cat(gaps)


def own_reaction(
    interface: Interface,
    drawn: Sequence[tuple[Tensor, ...]],
    wanted: Sequence[tuple[Tensor, ...]],
    generator: torch.Generator,
) -> float:
    """The largest gap between the network and itself with weights and inputs nudged by rounding errors."""
    largest = 0.0
    tensors = dict(interface.program.named_parameters()) | dict(interface.program.named_buffers())
    for _ in range(NUDGED):
        moved = {name: nudged(value, generator) for name, value in tensors.items()}
        found = []
        for inputs in drawn:
            given = tuple(nudged(x, generator) for x in inputs)
            answer = torch.func.functional_call(interface.program, moved, given)
            found.append((answer,) if isinstance(answer, Tensor) else tuple(answer))
        largest = max(largest, float(gaps_of(interface, wanted, found, "the nudged network").max()))
    return largest


def nudged(x: Tensor, generator: torch.Generator) -> Tensor:
    """``x`` with relative noise, if it holds real numbers."""
    if not x.is_floating_point():
        return x
    return x * (1 + NUDGE * torch.randn(x.shape, generator=generator, dtype=x.dtype))
