"""Operations of ECMT (2502.21193) and DCGS (2503.00301) as their codes count them, step by step.

A synaptic operation (SOP) is a non-zero entry meeting a weight; a MAC is any entry meeting one. Masks are
any tensors whose non-zero entries count, ``[T, B, ...]``; counts are ``[T]`` float64, of all samples
together. Which layers count differs: ECMT takes linear layers and products, and in these the sums with
step t; DCGS also convolutions, and what was sent before step t. `spiking.profile_energy` measures a whole
converted network; these are the figures that the papers print, and a fuller one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from spiking.energy import E_AC, E_MAC

if TYPE_CHECKING:
    from collections.abc import Sequence

Counts = tuple[Tensor, Tensor]  # SOPs and MACs at each step [T]


def linear_operations(x: Tensor, out_features: int) -> Counts:
    """A linear layer: every entry meets ``out_features`` weights.

    Args:
        x: input ``[T, B, ..., I]``.
        out_features: O.
    """
    ones = torch.full((len(x),), float(x[0].numel()), dtype=torch.float64, device=x.device)
    return _total(x != 0) * out_features, ones * out_features


def conv_operations(x: Tensor, weight: Tensor, **settings: Any) -> Counts:
    """A convolution: the entries that a kernel of ones collects, exact at borders.

    Args:
        x: input ``[T, B, C, ...]``, with one to three axes of space.
        weight: ``[O, C / groups, ...]``; only its shape counts.
        settings: ``stride``, ``padding``, ``dilation`` and ``groups`` of the convolution.
    """
    fan_out = weight.shape[0] // settings.pop("groups", 1)
    kernel = x.new_ones((1, 1, *weight.shape[2:]), dtype=torch.float64)
    collect = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[x.dim() - 3]
    here = (x != 0).sum((1, 2), dtype=torch.float64).unsqueeze(1)  # all channels see the same taps
    dense = torch.full_like(here, float(x.shape[1] * x.shape[2]))
    sop, mac = (_total(collect(each, kernel, **settings)) for each in (here, dense))
    return sop * fan_out, mac * fan_out


def product_operations(a: Tensor, b: Tensor, known_a: Tensor, known_b: Tensor) -> Counts:
    """A matrix product of two signals, in three partial products of which one factor is what was sent now.

    ``a_t b_t``, ``a_t B`` and ``A b_t`` as products of masks, so there may be more SOPs than MACs.

    Args:
        a: what is sent, ``[T, B, ..., M, K]``.
        b: what is sent, ``[T, B, ..., K, N]``.
        known_a: A, shaped as ``a``: in ECMT the sum with step t, ``a.cumsum(0)``; in DCGS `sent_before`.
        known_b: B, shaped as ``b``.
    """
    rows_a, rows_known = (_total(m != 0, m.dim() - 2) for m in (a, known_a))  # [T, B, ..., K]
    cols_b, cols_known = (_total(m != 0, m.dim() - 1) for m in (b, known_b))
    sop = _total(rows_a * cols_b) + _total(rows_a * cols_known) + _total(rows_known * cols_b)
    mac = _total(torch.full_like(rows_a, a.shape[-2]) * torch.full_like(cols_b, b.shape[-1]))
    return sop, mac


def sent_before(x: Tensor) -> Tensor:
    """Whether anything was sent before step t: ``[T, ...]``.

    Args:
        x: what is sent ``[T, ...]``.
    """
    earlier = (x != 0).cumsum(0)
    return torch.cat([torch.zeros_like(earlier[:1]), earlier[:-1]]) > 0


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


def _total(x: Tensor, axis: int | None = None) -> Tensor:
    """Sums over an axis, or over all but the first."""
    return x.sum(tuple(range(1, x.dim())) if axis is None else axis, dtype=torch.float64)
