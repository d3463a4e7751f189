"""Operations of a converted network, step by step, and energy by that of its source.

Two counts go side by side. The *full* one is that of `spiking.measure.operations`, as everywhere else: MACs
include zero padding, and additions are scaled to it. The *paper* one is what the codes of ECMT (2502.21193)
and DCGS (2503.00301) count: a synaptic operation (SOP) is a non-zero entry meeting a weight, a MAC any entry
meeting one, and zero padding is no entry. Which layers the papers count differs: ECMT takes linear layers
and products, and in these the sums with step t; DCGS also convolutions, and what was sent before step t.

Masks are any tensors whose non-zero entries count, ``[T, B, ...]``; counts are ``[T]`` float64, of all
samples together.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.measure.energy import E_AC, E_MAC
from spiking.measure.operations import convolution, linear, partial_products

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spiking.measure.operations import Work

Counts = tuple[Tensor, Tensor]  # SOPs and MACs at each step [T]


def linear_operations(x: Tensor, out_features: int) -> Counts:
    """A linear layer: every entry meets ``out_features`` weights.

    Args:
        x: input ``[T, B, ..., I]``.
        out_features: O.
    """
    return _counts(linear(x != 0, out_features))


def conv_operations(x: Tensor, weight: Tensor, **settings: Any) -> Counts:
    """A convolution: the entries that a kernel of ones collects, none of them from zero padding.

    Args:
        x: input ``[T, B, C, ...]``, with one to three axes of space.
        weight: ``[O, C / groups, ...]``; only its shape counts.
        settings: of `spiking.measure.operations.convolution`.
    """
    return _counts(convolution(x != 0, weight.shape, **settings))


def product_operations(a: Tensor, b: Tensor, known_a: Tensor, known_b: Tensor) -> Counts:
    """A matrix product of two signals, in three partial products of which one factor is what was sent now.

    Args:
        a: what is sent, ``[T, B, ..., M, K]``.
        b: what is sent, ``[T, B, ..., K, N]``.
        known_a: A, shaped as ``a``: in ECMT the sum with step t, ``a.cumsum(0)``; in DCGS `sent_before`.
        known_b: B, shaped as ``b``.
    """

    def product(left: Tensor, right: Tensor) -> Tensor:
        rows, columns = left.sum(-2, dtype=torch.float64), right.sum(-1, dtype=torch.float64)
        return (rows * columns).flatten(1).sum(1)

    dense = product(torch.ones_like(a), torch.ones_like(b))
    return partial_products(product, a != 0, b != 0, known_a != 0, known_b != 0), dense


def _counts(work: Work) -> Counts:
    """SOPs and MACs as the papers' codes count them, which leave zero padding out."""
    return work.reached, torch.full_like(work.reached, float(work.real))


def mean_rate(layers: Sequence[Counts]) -> Tensor:
    """SOPs by MACs, over all layers and the steps 1..t: ``[T]``."""
    sop, mac = (sum(counts[i] for counts in layers) for i in (0, 1))
    assert isinstance(sop, Tensor)
    assert isinstance(mac, Tensor)
    return sop.cumsum(0) / mac.cumsum(0)


def energy_ratio(rate: Tensor) -> Tensor:
    """Energy after t steps by that of the float network, as published: ``t (0.9 pJ / 4.6 pJ) rate(t)``.

    Norms, softmaxes and neurons are free in this, and real-valued inputs of counted layers cost no more than
    spikes; see `full_energy_ratio`.

    Args:
        rate: `mean_rate` ``[T]``.
    """
    t = torch.arange(1, len(rate) + 1, device=rate.device, dtype=rate.dtype)
    return t * (E_AC / E_MAC) * rate


def full_energy_ratio(
    sop: Tensor,
    analog: Tensor,
    evaluations: Tensor,
    updates: Tensor,
    *,
    ann_macs: float,
    ann_evaluations: float,
) -> Tensor:
    """The same with everything charged that one operation a value can stand for: ``[T]``.

    Additions cost 0.9 pJ: SOPs and neuron updates. MACs cost 4.6 pJ: those of layers whose input is
    real-valued, and one for every value that a norm, a softmax, an activation or another exact unit gives
    out; the float network pays for these, too.

    Args:
        sop: SOPs of layers whose input is spikes, at each step ``[T]``.
        analog: MACs of the other layers, at each step ``[T]``; a still input needs them once.
        evaluations: values that exact units give out, at each step ``[T]``.
        updates: neurons that are updated, at each step ``[T]``.
        ann_macs: MACs of the float network.
        ann_evaluations: values that its norms, softmaxes and activations give out.
    """
    spent = E_AC * (sop + updates) + E_MAC * (analog + evaluations)
    return spent.cumsum(0) / (E_MAC * (ann_macs + ann_evaluations))


@dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """What one layer with weights, or one product of two signals, does for all samples together.

    Attributes:
        name: path of the layer.
        kind: ``"conv"``, ``"linear"`` or ``"matmul"``.
        spikes: whether its inputs are spikes.
        sops: additions at each step ``[T]``; 0 where the inputs are real-valued.
        macs: multiplications with additions at each step ``[T]``; 0 where the inputs are spikes.
        official: SOPs and MACs as the code of the method's paper counts them.
        ann_macs: MACs of the float network.
        real_macs: the same without those on zero padding; None where there is none.
        spikes_in: spikes that arrive.
        elements: inputs that could be spikes.
    """

    name: str
    kind: str
    spikes: bool
    sops: Tensor
    macs: Tensor
    official: Counts
    ann_macs: float
    real_macs: float | None = None
    spikes_in: float = 0.0
    elements: float = 0.0

    @property
    def dense_macs(self) -> float:
        """MACs over all steps if no input were zero."""
        return self.ann_macs * len(self.sops) if self.spikes else float(self.macs.sum())

    @property
    def padding(self) -> float:
        """Share of the MACs that falls on zero padding."""
        return 0.0 if self.real_macs is None or not self.ann_macs else 1 - self.real_macs / self.ann_macs

    def __add__(self, other: LayerOperations) -> LayerOperations:
        return replace(
            self,
            spikes=self.spikes and other.spikes,
            sops=self.sops + other.sops,
            macs=self.macs + other.macs,
            official=(self.official[0] + other.official[0], self.official[1] + other.official[1]),
            ann_macs=self.ann_macs + other.ann_macs,
            real_macs=_known(self.real_macs, self.ann_macs) + _known(other.real_macs, other.ann_macs),
            spikes_in=self.spikes_in + other.spikes_in,
            elements=self.elements + other.elements,
        )


@dataclass(frozen=True, kw_only=True)
class Operations:
    """All operations of a converted network on some images, step by step; ``str()`` gives both ratios.

    Attributes:
        layers: one for each layer with weights and each product of two signals, in order of execution.
        evaluations: values that exactly evaluated operations (norms, softmaxes, activations, element-wise
            products) give out at each step ``[T]``.
        updates: neurons that are updated at each step ``[T]``.
        ann_evaluations: values that these operations, and the activations that neurons stand for, give out
            in the float network.
        samples: how many images.
        counted: kinds of layers that the paper counts; empty where it gives no such ratio.
        uncounted: values over all steps that are given out by what is neither a layer with weights nor a
            product, by operation; ``full_ratio`` charges those in ``evaluations`` and ``updates``.
    """

    layers: tuple[LayerOperations, ...]
    evaluations: Tensor
    updates: Tensor
    ann_evaluations: float
    samples: int
    counted: frozenset[str] = frozenset()
    uncounted: Mapping[str, float] = field(default_factory=dict)

    @property
    def sops(self) -> float:
        """Additions of all samples, over all steps."""
        return sum(float(layer.sops.sum()) for layer in self.layers)

    @property
    def macs(self) -> float:
        """MACs of all samples, over all steps."""
        return sum(float(layer.macs.sum()) for layer in self.layers)

    @property
    def ann_macs(self) -> float:
        """MACs of the float network, of all samples."""
        return sum(layer.ann_macs for layer in self.layers)

    @property
    def official_ratio(self) -> Tensor | None:
        """`energy_ratio` after each step ``[T]`` as the paper counts it; None where it gives none."""
        counts = [layer.official for layer in self.layers if layer.kind in self.counted]
        return energy_ratio(mean_rate(counts)) if counts else None

    @property
    def full_ratio(self) -> Tensor:
        """`full_energy_ratio` after each step ``[T]``."""
        nothing = torch.zeros_like(self.updates)
        return full_energy_ratio(
            sum((layer.sops for layer in self.layers), start=nothing),
            sum((layer.macs for layer in self.layers), start=nothing),
            self.evaluations,
            self.updates,
            ann_macs=self.ann_macs,
            ann_evaluations=self.ann_evaluations,
        )

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            layers=tuple(a + b for a, b in zip(self.layers, other.layers, strict=True)),
            evaluations=self.evaluations + other.evaluations,
            updates=self.updates + other.updates,
            ann_evaluations=self.ann_evaluations + other.ann_evaluations,
            samples=self.samples + other.samples,
            counted=self.counted,
            uncounted=dict(Counter(self.uncounted) + Counter(other.uncounted)),
        )

    def __str__(self) -> str:
        official = self.official_ratio
        full = [f"{float(v):.3f}" for v in self.full_ratio]
        paper = ["-"] * len(full) if official is None else [f"{float(v):.3f}" for v in official]
        rows = [f"{t:>3}  {p:>6}  {f:>6}" for t, (p, f) in enumerate(zip(paper, full, strict=True), 1)]
        return "\n".join(["  T   paper    full", *rows, "", LEGEND])


LEGEND = f"""energy by that of the float network; {E_MAC} pJ a MAC, {E_AC} pJ an addition
paper: the layers that the paper counts, every input taken for spikes
full: real-valued inputs cost MACs, as do values of norms, softmaxes and activations, for which the float
network pays, too; an update of a neuron costs an addition"""


def _known(value: float | None, default: float) -> float:
    return default if value is None else value
