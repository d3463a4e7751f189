"""What a converted network reaches at every T, next to the network it was made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from rich.progress import track

from lightning_modules.metrics import AccuracyOverTime, AgreementOverTime
from spiking import FiringRateMonitor
from spiking.measure.energy import E_AC, E_MAC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn

    from conversion import ConvertedModel
    from conversion.network.operation import Operations

    Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Point:
    """What the network reaches at one T.

    Attributes:
        time_steps: T, the steps whose output counts.
        latency: steps until that output is there; rehearsals (SRP, COS) come on top of T.
        accuracy: top-1.
        agreement: share of samples with the same top-1 as the ANN.
        logit_difference: mean absolute difference from the ANN's logits, in units of their mean size.
        firing_rate: spikes per neuron and step, over all steps that the network runs, rehearsals included.
        firing_rates: the same for each layer of neurons, by path.
        macs: of one sample.
        sops: additions of one sample, over all steps that the network runs.
        energy_mj: of one sample; 4.6 pJ a MAC, 0.9 pJ an addition, of layers with weights and of products.
        official_ratio: energy by that of the ANN, as the method's paper counts it; None where it does not.
        full_ratio: the same with norms, softmaxes, activations and updates of neurons charged, too.
    """

    time_steps: int
    latency: int
    accuracy: float
    agreement: float
    logit_difference: float
    firing_rate: float
    firing_rates: dict[str, float]
    macs: float
    sops: float
    energy_mj: float
    official_ratio: float | None
    full_ratio: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A converted network at every T, next to its source.

    Attributes:
        samples: how many samples the accuracies are means over.
        energy_samples: how many of them operations were counted on.
        ann_accuracy: top-1 of the source.
        ann_macs: of one sample.
        ann_energy_mj: of one sample.
        points: one for each T, in order.
    """

    samples: int
    energy_samples: int
    ann_accuracy: float
    ann_macs: float
    ann_energy_mj: float
    points: tuple[Point, ...]

    def at(self, time_steps: int) -> Point:
        """The point of this T, else that of the next smaller T, else the first."""
        below = [point for point in self.points if point.time_steps <= time_steps]
        return below[-1] if below else self.points[0]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self) | {"points": [asdict(point) for point in self.points]}


def compare(
    ann: nn.Module,
    snn: ConvertedModel,
    loader: Iterable[Batch],
    time_steps: Sequence[int],
    *,
    reconvert: Callable[[int], ConvertedModel] | None = None,
    energy_batches: int = 4,
    progress: bool = True,
) -> Comparison:
    """Run source and converted network over the same data, at every T.

    One pass serves all T where ``snn.method.anytime``. Otherwise there is a pass for each, for which T is
    set, or, where the method fixes it, the source is converted again. A batch goes through the spiking
    network in parts, so that it needs about as much memory as the source. ``snn`` keeps its T.

    Args:
        ann: the source, in evaluation mode.
        snn: the converted network, in evaluation mode, on the device of ``ann``.
        loader: batches (x, y), ``x [B, C, H, W]``, ``y [B]``.
        time_steps: every T of interest.
        reconvert: ``f(T)`` converts the source for another T; for methods that fix T.
        energy_batches: batches whose operations are counted, for each T; 0 counts all.
        progress: show progress bars.

    Raises:
        ValueError: no T, no sample, a label that is no class, or no way to another T.
    """
    wanted = _checked(time_steps, energy_batches)
    method, before, chunk = snn.method, snn.time_steps, snn.chunk
    snn.chunk = None  # rates are wanted for every step of one pass, and images already come in parts

    def at(steps: int) -> ConvertedModel:
        if method.free_time_steps:
            snn.time_steps = steps
        elif steps != before:
            return _reconverted(reconvert, method.name, before, steps)
        return snn

    passes = [(wanted[-1], wanted)] if method.anytime else [(steps, [steps]) for steps in wanted]
    points: list[Point] = []
    try:
        for steps, marks in passes:
            network = at(steps)
            run = _run(ann, network, loader, progress)
            for mark in marks:
                operations = _operations(at(mark) if method.anytime else network, loader, energy_batches)
                points.append(run.point(mark, method.latency(mark), operations))
    finally:
        snn.chunk = chunk
        if method.free_time_steps:
            snn.time_steps = before
    return Comparison(
        samples=run.samples,
        energy_samples=operations.samples,
        ann_accuracy=run.ann_accuracy,
        ann_macs=operations.ann_macs / operations.samples,
        ann_energy_mj=operations.ann_macs / operations.samples * E_MAC * 1e-9,
        points=tuple(points),
    )


def _reconverted(
    reconvert: Callable[[int], ConvertedModel] | None, name: str, fixed: int, steps: int
) -> ConvertedModel:
    if reconvert is None:
        raise ValueError(
            f"{name} fixes T = {fixed} when it calibrates; the accuracy at T = {steps} takes another"
            " conversion: pass reconvert"
        )
    return reconvert(steps)


def _checked(time_steps: Sequence[int], energy_batches: int) -> list[int]:
    wanted = sorted(set(time_steps))
    if not wanted or wanted[0] < 1:
        raise ValueError(f"evaluate_at must name time steps of at least 1, got {list(time_steps)}")
    if energy_batches < 0:
        raise ValueError(f"energy_batches must be 0 or more, got {energy_batches}")
    return wanted


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One pass over the data; tensors are indexed by step unless the method has no meaningful steps."""

    samples: int
    ann_accuracy: float
    accuracy: Tensor
    agreement: Tensor
    difference: Tensor
    names: list[str]
    counts: Tensor  # [L, window, 2]: spikes and neurons
    first: int

    def point(self, steps: int, latency: int, operations: Operations) -> Point:
        at = min(steps, len(self.accuracy)) - 1
        seen = self.counts[:, : self.first + steps].sum(dim=1)
        rates = {n: float(s / c) for n, (s, c) in zip(self.names, seen.tolist(), strict=True) if c}
        spikes, neurons = seen.sum(dim=0).tolist()
        macs, sops = operations.macs / operations.samples, operations.sops / operations.samples
        official = operations.official_ratio
        return Point(
            time_steps=steps,
            latency=latency,
            accuracy=float(self.accuracy[at]),
            agreement=float(self.agreement[at]),
            logit_difference=float(self.difference[at]),
            firing_rate=spikes / neurons,
            firing_rates=rates,
            macs=macs,
            sops=sops,
            energy_mj=(macs * E_MAC + sops * E_AC) * 1e-9,
            official_ratio=None if official is None else float(official[-1]),
            full_ratio=float(operations.full_ratio[-1]),
        )


def _run(ann: nn.Module, snn: ConvertedModel, loader: Iterable[Batch], progress: bool) -> _Run:
    accuracy, ann_accuracy, agreement = AccuracyOverTime(), AccuracyOverTime(), AgreementOverTime()
    device = next(snn.parameters()).device
    for metric in (accuracy, ann_accuracy, agreement):
        metric.to(device)
    with torch.no_grad(), FiringRateMonitor(snn) as monitor:
        label = f"accuracy {'up to' if snn.method.anytime else 'at'} T = {snn.time_steps}"
        for x, y in track(loader, label, disable=not progress):
            x, y = x.to(device), y.to(device)
            _check_labels(y, snn.num_classes)
            reference = ann(x)
            logits = _in_parts(snn, x)
            if not snn.method.anytime:
                logits = logits.mean(dim=0, keepdim=True)  # steps alone mean nothing
            ann_accuracy.update(reference.unsqueeze(0), y)
            accuracy.update(logits, y)
            agreement.update(logits, reference)
    samples = int(accuracy.total)
    if not samples:
        raise ValueError("the evaluation data hold no sample; check the data module's test set")
    same, difference = agreement.compute()
    return _Run(
        samples=samples,
        ann_accuracy=float(ann_accuracy.compute()),
        accuracy=accuracy.compute().reshape(-1).cpu(),  # torchmetrics squeezes T = 1
        agreement=same.reshape(-1).cpu(),
        difference=difference.reshape(-1).cpu(),
        names=monitor.names,
        counts=monitor.counts().cpu(),
        first=snn.clock.first,
    )


def _in_parts(snn: ConvertedModel, x: Tensor) -> Tensor:
    """Logits of all steps ``[T, B, K]``; a part over its steps is about as large as the whole batch."""
    return torch.cat([snn(piece, steps=True) for piece in _parts(snn, x)], dim=1)


def _parts(snn: ConvertedModel, x: Tensor) -> Sequence[Tensor]:
    return torch.split(x, max(1, len(x) // snn.clock.window))


def _operations(snn: ConvertedModel, loader: Iterable[Batch], batches: int) -> Operations:
    device = next(snn.parameters()).device
    found = [
        snn.count_operations(piece)
        for x, _ in islice(loader, batches or None)
        for piece in _parts(snn, x.to(device))
    ]
    return sum(found[1:], start=found[0])


def _check_labels(y: Tensor, num_classes: int) -> None:
    if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        wrong = int(y.max()) if int(y.max()) >= num_classes else int(y.min())
        raise ValueError(
            f"the data hold label {wrong}, but the network has {num_classes} classes (0 to"
            f" {num_classes - 1}); it was trained on other data"
        )
