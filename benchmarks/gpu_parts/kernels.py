"""Part (a): every Triton kernel against the oracle, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import spiking
from spiking import functional, reference, surrogate
from spiking.normed import norm_fire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gpu_parts.work import Work

ATAN = surrogate.ATan()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNIT = 2.0**-6  # gradients of the outputs; the second-order neuron's grow beyond float16 if they are larger
# T and layout; each costs a compilation or two of every kernel and dtype, so this is no full grid
SHAPES = (
    (1, "odd sizes"),
    (4, "contiguous"),
    (4, "channels-last"),
    (4, "gaps"),
    (16, "channels-last"),
    (16, "repeated"),
)


@dataclass(frozen=True)
class Case:
    """One kernel on one tensor.

    Attributes:
        run: ``run(module, x, extra)`` -> output ``[T, ...]`` and what else has to agree.
        x: currents on the CPU.
        extra: learnt numbers and states.
    """

    run: Callable[[Any, Tensor, list[Tensor], str], tuple[Tensor, ...]]
    x: Tensor
    extra: tuple[Tensor, ...] = ()


def _leaky(name: str, **settings: Any) -> Any:
    def run(module: Any, x: Tensor, extra: list[Tensor], backend: str) -> tuple[Tensor, ...]:
        engine = {"backend": backend} if module is functional else {}
        *learnt, v = extra
        spikes, end = getattr(module, name)(x, *learnt, v, surrogate=ATAN, **settings, **engine)
        return spikes, end

    return run


def _dynamic(module: Any, x: Tensor, extra: list[Tensor], backend: str) -> tuple[Tensor, ...]:
    engine = backend if module is functional else "reference"
    spikes, ends = functional.dynamic(x, *extra, surrogate=ATAN, backend=engine)
    return spikes, *ends


class _Adaptive(spiking.StepNeuron):
    """What a user might write; without exponentials, whose last bits differ between CPU and GPU."""

    state_names = ("v", "a")

    def dynamics(self, x: Any, v: Any, a: Any) -> tuple[Any, ...]:
        h = v + (x - v) / 3.0
        s = self.fire(h - (self.v_threshold + a))
        return s, h - s * self.v_threshold, 0.9 * a + 0.2 * s


def _written(module: Any, x: Tensor, extra: list[Tensor], backend: str) -> tuple[Tensor, ...]:
    neuron = _Adaptive(surrogate=ATAN, backend=backend if module is functional else "reference")
    spikes, ends = neuron.run(x, tuple(extra), keep_state=True)
    return spikes, *(ends or ())


def _normed(pool: nn.Module | None) -> Any:
    """A norm and what follows it; its numbers are powers of two, which no device rounds."""

    def run(module: Any, x: Tensor, extra: list[Tensor], backend: str) -> tuple[Tensor, ...]:
        norm = nn.BatchNorm2d(x.shape[2], eps=0.0, affine=False).to(x.device).eval()
        norm.running_mean, norm.running_var = norm.running_mean + 0.5, norm.running_var * 4.0
        if module is functional:
            return (norm_fire(norm, spiking.LIF(surrogate=ATAN, backend=backend), x, pool=pool),)
        neuron = spiking.LIF(surrogate=ATAN, backend="reference")
        return (norm_fire(norm, neuron, x.float(), pool=pool).to(x.dtype),)

    return run


def _lmht(module: Any, x: Tensor, extra: list[Tensor], backend: str) -> tuple[Tensor, ...]:
    engine = backend if module is functional else "reference"
    fixed = x.new_tensor(1.0, dtype=torch.float32), x.new_tensor(0.5, dtype=torch.float32)
    return (functional.lmht(x, *extra, *fixed, levels=2, backend=engine),)


def _drive(shape: tuple[int, ...], scale: float = 2.0, shift: float = 0.8, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def _currents(steps: int, layout: str, tiny: bool) -> Tensor:
    """Currents ``[T, ...]`` in a layout."""
    b, c, h = (2, 3, 6) if tiny else (4, 64, 14)
    if layout == "contiguous":
        return _drive((steps, b, c, h, h))
    if layout == "channels-last":
        return _drive((steps * b, c, h, h)).to(memory_format=torch.channels_last).unflatten(0, (steps, b))
    if layout == "odd sizes":
        return _drive((steps, 1, 257 if tiny else 1009))
    if layout == "gaps":
        return _drive((steps, b, 2 * c * h))[..., ::2]
    return _drive((1, b, c * h)).expand(steps, b, c * h)


def _kernels(x: Tensor, full: bool) -> Iterator[tuple[str, Case]]:
    """Every kernel over ``x``; with ``full`` in all its forms."""
    steps, v = len(x), _drive(tuple(x.shape[1:]), 0.3, 0.1, seed=1)
    for reset, detach in ((0.0, False), (None, True)):
        common = {"v_reset": reset, "detach_reset": detach}
        hard = reset is not None
        how = "hard reset" if hard else "soft reset"
        if hard or full:
            yield f"IF, {how}", Case(_leaky("if_", **common), x, (v,))
            # a rate of 1/2: sigmoids of CPU and GPU may differ in their last bit
            yield f"KLIF, {how}", Case(_leaky("klif", **common), x, (torch.tensor(1.3), v))
            yield f"PLIF, {how}", Case(_leaky("plif", **common), x, (torch.tensor(0.0), v))
        for tau in (2.0, 3.0):
            if full or hard == (tau == 2.0):
                run = _leaky("lif", tau=tau, decay_input=hard, **common)
                yield f"LIF, tau {tau:g}, {how}", Case(run, x, (v,))
    u = _drive(tuple(x.shape[1:]), 0.1, 0.0, seed=2)
    yield "second order", Case(_dynamic, (x.float() * 0.3).to(x.dtype), (v, u))
    yield "written by a user", Case(_written, x, (v, u))
    if x.dim() == 5:
        for pool in (None, nn.AvgPool2d(2), nn.MaxPool2d(2)):
            behind = "" if pool is None else f", {type(pool).__name__}"
            yield f"norm and LIF{behind}", Case(_normed(pool), x)
    matrix = (torch.rand(steps, steps, generator=torch.Generator().manual_seed(3)) * 1.4 + 0.3) / steps
    leak = torch.rand(steps, generator=torch.Generator().manual_seed(4)) + 0.5
    yield "LM-HT", Case(_lmht, x, (matrix, leak))


def groups(tiny: bool) -> dict[str, dict[str, Case]]:
    """Cases by kernel and dtype, then by shape."""
    found: dict[str, dict[str, Case]] = {}
    for label, dtype in DTYPES.items():
        for steps, layout in SHAPES[2:3] if tiny else SHAPES:
            x = _currents(steps, layout, tiny).to(dtype)
            for kernel, case in _kernels(x, full=label == "float32" and not tiny):
                found.setdefault(f"{kernel}, {label}", {})[f"T = {steps}, {layout}"] = case
    return found


def compare(case: Case, device: str) -> tuple[float, float]:
    """Share of outputs that differ, and the largest error of a gradient in units of its largest entry.

    The oracle runs on the CPU; outputs have to agree to the bit.
    """
    found: list[tuple[list[Tensor], list[Tensor]]] = []
    for module, place in ((functional, device), (reference, "cpu")):
        leaves = [t.to(place).detach().requires_grad_() for t in (case.x, *case.extra)]
        outputs = case.run(module, leaves[0], leaves[1:], "triton")
        loss = torch.zeros((), device=place)
        for i, out in enumerate(outputs):
            weight = _drive(tuple(out.shape), UNIT, 0.0, seed=7 + i).to(place)
            loss = loss + (out.float() * weight).sum()
        grads = torch.autograd.grad(loss, leaves)
        found.append(([t.detach().cpu() for t in outputs], [t.float().cpu() for t in grads]))
    (outputs, grads), (want, want_grads) = found
    wrong = sum(int((a != b).sum()) for a, b in zip(outputs, want, strict=True))
    error = max(_error(a, b) for a, b in zip(grads, want_grads, strict=True))
    return wrong / sum(t.numel() for t in want), error


def _error(got: Tensor, want: Tensor) -> float:
    scale = want.abs().max().clamp(min=UNIT)  # a sum over all neurons may come out near 0
    return float((got - want).abs().max() / scale)


def tolerance(dtype: torch.dtype) -> float:
    """What a gradient may be off by: roundings of the dtype it is stored in, sums of float32."""
    return 1e-4 if dtype is torch.float32 else 4 * torch.finfo(dtype).eps


def verdict(cases: Mapping[str, Case], device: str) -> dict[str, Any]:
    """How many cases there are and how many are wrong, and the largest errors."""
    wrong, worst, share = [], 0.0, 0.0
    for name, case in cases.items():
        differ, error = compare(case, device)
        worst, share = max(worst, error), max(share, differ)
        if differ or not error <= tolerance(case.x.dtype):
            wrong.append(name)
    values = {"cases": len(cases), "wrong": len(wrong), "outputs that differ": share}
    return values | {"gradient error": float(f"{worst:.2g}")} | ({"first": wrong[0]} if wrong else {})


def run(work: Work) -> None:
    """A row for every kernel and dtype."""
    for name, cases in groups(work.tiny).items():
        work.case(name, lambda cases=cases: verdict(cases, work.device), needs=0.0 if work.tiny else 4.0)
