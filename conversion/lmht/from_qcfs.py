"""LM-HT networks that start from a trained QCFS network, or a converted one (arXiv 2402.00411).

Training then goes on where the source ended. Works on modules as they are; nothing is exported.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from conversion.lmht.windows import AFFINE, divide_shift, levels_and_steps, neurons
from conversion.methods.integrator import IntegratorSite
from conversion.methods.parallel import ParallelNeuron
from conversion.network.site import Site, sites
from spiking.qcfs import QCFS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spiking import LMHT

Init = Literal["normalized", "scaled_bias"]
INITS: tuple[Init, ...] = ("normalized", "scaled_bias")


def from_qcfs(
    model: nn.Module, source: nn.Module, *, init: Init = "normalized", official_bias: bool = False
) -> None:
    """Start a fresh LM-HT network from a trained QCFS network of the same layers, or a converted network.

    Weights, norms and biases are copied in the order of registration; leak and matrix become 1 and 1 / T,
    the first potential half a threshold. With a QCFS of Q = L T levels and clipping value ``lambda``:

    ================= ================== ================ =========================== ====================
    start             threshold          first neuron     biases and means behind it  mean output
    ================= ================== ================ =========================== ====================
    normalized        ``lambda / L``     as it is         as they are                 equals the source
    scaled_bias       ``lambda``         currents times L times L                     L times the source
    ``official_bias`` ``lambda``         currents times L as they are                 of the authors' code
    ================= ================== ================ =========================== ====================

    The second is the paper's setting (its theorem 4.4 has this premise), the first the same divided by L; the
    authors' code leaves the biases alone, and with them the equality. For other Q the equality holds in
    expectation.

    A converted network gives weights and thresholds, also measured ones of a ReLU source. Its neurons must
    integrate and fire with one threshold a layer; what a method does besides (rehearsals of SRP and COS) is
    left out, since LM-HT neurons see all steps anyway.

    Args:
        model: an LM-HT network; changed in place.
        source: the trained network.
        init: see above.
        official_bias: start as the authors' code does, in the paper's scale but with unscaled biases.

    Raises:
        ValueError: unknown ``init``, layers that do not correspond, or neurons that have no counterpart (of
            DCGS and ECMT, of Parallel Conversion with corrections, one threshold a channel); the message
            names them.
    """
    if init not in INITS:
        raise ValueError(
            f"init must be one of {', '.join(INITS)}, got {init!r}; the start of the authors' code is"
            " official_bias=True"
        )
    L, T = levels_and_steps(model)
    ours, theirs = _layers(model), _layers(source)
    thresholds = _thresholds(source)
    cells = [neuron for _, neuron in neurons(model)]
    if len(thresholds) != len(cells):
        raise ValueError(f"the source has {len(thresholds)} activations, the network {len(cells)} neurons")
    _check_layers(ours, theirs)
    _check_quantiser({levels for _, levels in thresholds}, L, T)
    normalized = init == "normalized" and not official_bias
    with torch.no_grad():
        for (_, layer), (_, other) in zip(ours, theirs, strict=True):
            _copy(layer, other)
        for cell, (theta, _) in zip(cells, thresholds, strict=True):
            _start(cell, theta / L if normalized else theta)
        if normalized:
            return
        cells[0].input_scale.fill_(float(L))
        if not official_bias:
            for layer in _behind(model, cells[0]):
                divide_shift(layer, 1.0 / L)


def _copy(layer: nn.Module, other: nn.Module) -> None:
    for name, value in other.state_dict().items():
        layer.state_dict()[name].copy_(value)


def _start(cell: LMHT, theta: Tensor) -> None:
    """Leak 1, matrix 1 / T, half a threshold: what integrates and fires as the source's neuron does."""
    torch.as_tensor(cell.v_threshold).copy_(theta)
    cell.v_init.fill_(0.5)
    cell.input_scale.fill_(1.0)
    cell.alpha.fill_(0.0 if cell.squash else 1.0)
    cell.mask.fill_(0.0 if cell.squash else 1.0 / cell.time_steps)


def _thresholds(source: nn.Module) -> list[tuple[Tensor, int]]:
    """Threshold and number of levels of every activation; 0 levels for those of a ReLU source."""
    activations = [m for m in source.modules() if isinstance(m, QCFS)]
    if activations:
        return [(m.v_threshold.detach().reshape(()), m.levels) for m in activations]
    converted = sites(source)
    if not converted:
        raise ValueError(
            f"{type(source).__name__} has no QCFS activations, so no thresholds to start from; convert it"
            " with calibration images first, or train one with QCFS"
        )
    found = []
    for name, site in converted.items():
        _check_site(name, site)
        found.append((site.v_threshold.detach().reshape(()), site.activation.levels))
    return found


def _check_site(name: str, site: Site) -> None:
    kind = type(site).__name__
    if not isinstance(site, IntegratorSite | ParallelNeuron):
        raise ValueError(
            f"{name!r} of the source is a {kind}, which sends one of several levels and has no clipping value"
            " that LM-HT could start from; convert the ANN with qcfs, srp, cos or parallel"
        )
    if site.v_threshold.numel() != 1:
        raise ValueError(
            f"{name!r} of the source has a threshold for each channel, an LM-HT neuron has one; convert with"
            " qcfs and channelwise=False"
        )
    if isinstance(site, ParallelNeuron):
        corrections = [phi for phi in (site.phi_in, site.phi_out) if phi is not None]
        if any(bool((phi != 0).any()) for phi in corrections):
            raise ValueError(
                f"{name!r} of the source corrects its currents and outputs (phi_in, phi_out), which LM-HT"
                " neurons cannot hold; start from the QCFS network itself"
            )
    if not bool((site.v_threshold > 0).all()):
        raise ValueError(f"the threshold of {name!r} is not positive; calibrate the source")


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Convolutions and linear layers, then norms: those of a block may be registered in another order."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, AFFINE)]
    return sorted(found, key=lambda pair: isinstance(pair[1], _BatchNorm))


def _check_layers(ours: Sequence[tuple[str, nn.Module]], theirs: Sequence[tuple[str, nn.Module]]) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"the source has {len(theirs)} layers with weights, the network {len(ours)}")
    for (name, layer), (other_name, other) in zip(ours, theirs, strict=True):
        own = {key: tuple(value.shape) for key, value in layer.state_dict().items()}
        given = {key: tuple(value.shape) for key, value in other.state_dict().items()}
        if own != given:
            raise ValueError(
                f"{other_name!r} of the source does not fit {name!r} of the network: {given} and {own}; both"
                " need the same layers, channels and classes"
            )


def _check_quantiser(levels: set[int], L: int, T: int) -> None:
    levels = levels - {0}  # thresholds of ReLU are measured and belong to no number of levels
    if levels and levels != {L * T}:
        warnings.warn(
            f"the source was trained with Q = {sorted(levels)} levels, the network has L T = {L} * {T} ="
            f" {L * T}; only Q = L T starts exactly where the source ended",
            stacklevel=3,
        )


def _behind(model: nn.Module, first: LMHT) -> list[nn.Module]:
    """Layers registered after the first neuron."""
    modules = list(model.modules())
    return [m for m in modules[modules.index(first) :] if isinstance(m, AFFINE)]
