"""LM-HT (NeurIPS 2024, arXiv 2402.00411): single-threshold networks from it, and LM-HT networks from QCFS.

`reparameterise` turns a trained network of L levels and T steps into one of ordinary spikes and L T steps.
`from_qcfs` gives a network the weights of a QCFS source, or of what was converted from one, so that training
goes on where the source ended. Both work on modules as they are; nothing is exported.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from conversion.lmht import windows
from conversion.lmht.windows import AFFINE, SAMPLES, Call, ReparameterisationError, neurons, window_sums
from conversion.methods.integrator import IntegratorSite
from conversion.methods.parallel import ParallelNeuron
from conversion.network.site import Site, sites
from spiking import LMHT
from spiking.qcfs import QCFS

if TYPE_CHECKING:
    from collections.abc import Sequence

Init = Literal["normalized", "scaled_bias"]
INITS: tuple[Init, ...] = ("normalized", "scaled_bias")


# ---------------------------------------------------------------- one threshold


def single_threshold(neuron: LMHT) -> LMHT:
    """The neuron over windows of L steps, which emits at most one spike a step.

    The leak acts where a window begins, and every step of a window sees the currents of whole windows:
    ``leak[k] = lambda[k / L]`` for k divisible by L, else 1; ``omega[a, b] = omega[a / L, b / L] / L``.
    If a window begins with a potential in ``[0, theta)`` and its current lies in ``[0, L theta]``, it emits
    what ``neuron`` emits at that step; elsewhere it may differ.
    """
    L, T = neuron.levels, neuron.time_steps
    steps = {"time_steps": L * T, "time_steps_in": L * neuron.time_steps_in}
    single = LMHT(**steps, levels=1, squash=False, backend=neuron.backend)
    single = single.to(neuron.mask.device, neuron.mask.dtype)
    with torch.no_grad():
        for name in ("v_threshold", "v_init", "input_scale"):
            getattr(single, name).copy_(getattr(neuron, name))
        leak = torch.ones(T, L, dtype=neuron.mask.dtype, device=neuron.mask.device)
        leak[:, 0] = neuron.leak()
        single.alpha.copy_(leak.flatten())
        single.set_matrix(neuron.matrix().repeat_interleave(L, 0).repeat_interleave(L, 1) / L)
    return single


def reparameterise(model: nn.Module, images: Tensor, *, force: bool = False) -> nn.Module:
    """The network with ordinary spikes over L T steps, which gives the same outputs.

    Neurons become `single_threshold`. A layer between neurons sees windows that add up to what it saw
    before, so its shift is divided by L: biases of convolutions, linear and batch norm layers, and the
    running means. The first layer sees the image itself at every step; its output is divided by L. The
    last layer's is multiplied by L, so that the mean over L T steps is what the mean over T was (the
    authors' code leaves a factor 1 / L). All of it is exact where windows keep to the premise of
    `single_threshold`; a warning tells how many do not on these images.

    Args:
        model: a network whose neurons are all LM-HT of one L and T; left as it is. One of the zoo, or a
            module over sequences ``[T, B, ...]``; to sequences every step must be given L times.
        images: a batch of its inputs.
        force: convert although it is known or found not to add up.

    Returns:
        A copy in evaluation mode; of the zoo, it can be saved and loaded.

    Raises:
        ReparameterisationError: something between neurons does not commute with the sum over a window
            (max-pooling, attention, layer norm); names the layer.
    """
    L, T = _levels(model)
    source = copy.deepcopy(model).eval()
    order = windows.calls(source, _few(source, images))
    if not force:
        windows.refuse(order)
    affine = [call for call in order if isinstance(call.module, AFFINE)]
    _check_ends(order, affine)
    single = copy.deepcopy(source)
    layers = [single.get_submodule(call.name) for call in affine]
    with torch.no_grad():
        for layer in layers[1:-1]:
            _divide_shift(layer, L)
        _multiply(layers[0], 1.0 / L)
        _divide_shift(layers[-1], L)
        _multiply(layers[-1], float(L))
    for name, neuron in list(neurons(single)):
        parent, _, child = name.rpartition(".")
        setattr(single.get_submodule(parent), child, single_threshold(neuron).eval())
    for module in single.modules():
        if not isinstance(module, LMHT) and getattr(module, "time_steps", None) == T:
            module.time_steps = L * T  # type: ignore[assignment]
    arguments: Any = getattr(single, "model_args", None)
    if arguments is not None:  # of the zoo: what rebuilds it
        own = {**(arguments.get("neuron_args") or {}), "levels": 1, "squash": False}
        arguments.update(time_steps=L * T, neuron_args=own)
        if arguments.get("dvs_mode") == "rect_tgim":
            arguments["dvs_frames"] = L * arguments["dvs_frames"]
    if not force:
        windows.check_sums(source, single, _few(source, images), L, order)
    _warn(agreement(source, single, images))
    return single


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a reparameterised network compares with its source on a batch.

    Attributes:
        windows: share of windows that emit as many spikes as the source's step, by path of the neuron.
        difference: largest difference of the outputs.
        predictions: share of samples whose largest output is the same.
    """

    windows: dict[str, float]
    difference: float
    predictions: float


def agreement(model: nn.Module, single: nn.Module, images: Tensor) -> Agreement:
    """Compare a network with what `reparameterise` made of it, neuron by neuron."""
    L, _ = _levels(model)
    model, single = copy.deepcopy(model).eval(), copy.deepcopy(single).eval()
    emitted: dict[str, Tensor] = {}
    shares: dict[str, float] = {}

    def record(name: str) -> Any:
        return lambda m, inputs, y: emitted.__setitem__(name, (y / m.spike_value).round().to(torch.uint8))

    def compare(name: str) -> Any:
        def hook(m: LMHT, inputs: Any, y: Tensor) -> None:
            spikes = window_sums((y / m.spike_value).round(), L).to(torch.uint8)
            shares[name] = float((spikes == emitted.pop(name)).double().mean())

        return hook

    with windows.hooked(model, record):
        want = windows.run(model, images)
    with windows.hooked(single, compare):
        got = windows.run(single, windows.windows(model, images, L))
    same = got.flatten(1).argmax(1) == want.flatten(1).argmax(1)
    return Agreement(
        windows=shares, difference=float((got - want).abs().max()), predictions=float(same.double().mean())
    )


def _warn(found: Agreement) -> None:
    worst = min(found.windows, key=lambda name: found.windows[name])
    if found.windows[worst] < 1.0:
        warnings.warn(
            f"on these images {1 - found.windows[worst]:.2%} of the windows of {worst!r} differ from the"
            " network's steps: a potential is carried outside [0, theta) into a current of the wrong sign or"
            f" size; the outputs differ by at most {found.difference:.3g}",
            stacklevel=3,
        )


def _levels(model: nn.Module) -> tuple[int, int]:
    sizes = {(neuron.levels, neuron.time_steps) for _, neuron in neurons(model)}
    if not sizes:
        raise ReparameterisationError(f"{type(model).__name__} has no LM-HT neurons")
    if len(sizes) > 1:
        raise ReparameterisationError(f"the neurons differ in their levels and steps (L, T): {sorted(sizes)}")
    return sizes.pop()


def _few(model: nn.Module, images: Tensor) -> Tensor:
    still = hasattr(model, "time_steps") and images.dim() == 4
    return images[:SAMPLES] if still else images[:, :SAMPLES]


def _check_ends(order: Sequence[Call], affine: Sequence[Call]) -> None:
    first = next(i for i, call in enumerate(order) if isinstance(call.module, LMHT))
    last = max(i for i, call in enumerate(order) if isinstance(call.module, LMHT))
    places = [order.index(call) for call in affine]
    if not places or places[0] > first:
        raise ReparameterisationError(
            f"no convolution, linear layer or norm comes before {order[first].name!r}, the first neuron, to"
            " take the division by L"
        )
    if places[-1] < last:
        raise ReparameterisationError(
            f"no convolution, linear layer or norm comes behind {order[last].name!r}, the last neuron, to"
            " take the multiplication by L; give the network a classifier"
        )


def _divide_shift(layer: nn.Module, by: float) -> None:
    """Let an affine layer see a part of what it saw, and give that part of what it gave."""
    for name in ("bias", "running_mean"):
        value = getattr(layer, name, None)
        if value is not None:
            value.div_(by)


def _multiply(layer: nn.Module, factor: float) -> None:
    """Multiply what an affine layer gives."""
    if layer.weight is None:
        raise ReparameterisationError(f"{layer} has no gain to take a factor; build it with affine=True")
    for value in (layer.weight, layer.bias):
        if value is not None:
            value.mul_(factor)  # type: ignore[operator]


# ---------------------------------------------------------------- from a QCFS network


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

    A converted network lends weights and thresholds, also measured ones of a ReLU source. Its neurons must
    integrate and fire with one threshold a layer; what a method does besides (rehearsals of SRP and COS) is
    left behind, since LM-HT neurons see all steps anyway.

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
    L, T = _levels(model)
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
            for name, value in other.state_dict().items():
                layer.state_dict()[name].copy_(value)
        for cell, (theta, _) in zip(cells, thresholds, strict=True):
            torch.as_tensor(cell.v_threshold).copy_(theta / L if normalized else theta)
            cell.v_init.fill_(0.5)
            cell.input_scale.fill_(1.0)
            cell.alpha.fill_(0.0 if cell.squash else 1.0)
            cell.mask.fill_(0.0 if cell.squash else 1.0 / T)
        if normalized:
            return
        cells[0].input_scale.fill_(float(L))
        if not official_bias:
            for layer in _behind(model, cells[0]):
                _divide_shift(layer, 1.0 / L)


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
