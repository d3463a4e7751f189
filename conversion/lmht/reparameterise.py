"""A trained LM-HT network as one of ordinary spikes (NeurIPS 2024, arXiv 2402.00411).

`reparameterise` turns a trained network of L levels and T steps into one of a single threshold and L T steps.
Works on modules as they are; nothing is exported.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from conversion.lmht import windows
from conversion.lmht.windows import (
    AFFINE,
    SAMPLES,
    Call,
    ReparameterisationError,
    divide_shift,
    levels_and_steps,
    neurons,
    window_sums,
)
from spiking import LMHT

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    L, T = levels_and_steps(model)
    source = copy.deepcopy(model).eval()
    order = windows.calls(source, _few(source, images))
    if not force:
        windows.refuse(order)
    affine = [call for call in order if isinstance(call.module, AFFINE)]
    _check_ends(order, affine)
    single = copy.deepcopy(source)
    _share_shifts([single.get_submodule(call.name) for call in affine], L)
    _replace_neurons(single)
    _set_time_steps(single, L, T)
    if not force:
        windows.check_sums(source, single, _few(source, images), L, order)
    _warn(agreement(source, single, images))
    return single


@torch.no_grad()
def _share_shifts(layers: Sequence[nn.Module], L: int) -> None:
    """Divide what layers add over the steps of a window, the first by its gain; the last gives it back."""
    for layer in layers[1:-1]:
        divide_shift(layer, L)
    _multiply(layers[0], 1.0 / L)
    divide_shift(layers[-1], L)
    _multiply(layers[-1], float(L))


def _replace_neurons(single: nn.Module) -> None:
    for name, neuron in list(neurons(single)):
        parent, _, child = name.rpartition(".")
        setattr(single.get_submodule(parent), child, single_threshold(neuron).eval())


def _set_time_steps(single: nn.Module, L: int, T: int) -> None:
    """L T steps in all modules that know their number, and in what the zoo rebuilds the network from."""
    modules: list[Any] = [m for m in single.modules() if not isinstance(m, LMHT)]
    for module in modules:
        if getattr(module, "time_steps", None) == T:
            module.time_steps = L * T
    arguments: Any = getattr(single, "model_args", None)
    if arguments is None:  # not of the zoo
        return
    own = {**(arguments.get("neuron_args") or {}), "levels": 1, "squash": False}
    arguments.update(time_steps=L * T, neuron_args=own)
    if arguments.get("dvs_mode") == "rect_tgim":
        arguments["dvs_frames"] = L * arguments["dvs_frames"]


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
    L, _ = levels_and_steps(model)
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


def _multiply(layer: nn.Module, factor: float) -> None:
    """Multiply what an affine layer gives."""
    if layer.weight is None:
        raise ReparameterisationError(f"{layer} has no gain to take a factor; build it with affine=True")
    for value in (layer.weight, layer.bias):
        if isinstance(value, Tensor):
            value.mul_(factor)
