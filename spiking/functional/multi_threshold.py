"""Neurons that send one of several levels, over whole sequences: ECMT (2502.21193) and DCGS (2503.00301).

Three forms of one neuron, all fast ways to what `multi_threshold_reference` defines:

* `rate_coded`: currents in, levels out; what is sent means its average over time;
* `differential`: currents in differential code in, levels out; a level sent at step t moves the represented
  value by ``level / t``;
* `track`: represented values in and out. Where a network keeps every signal as the value represented at each
  step, affine layers run unchanged with their bias in every step, a function F is just F, a product a
  product; only neurons know of time.

`spiking.levels.Levels` says which levels there are. ``kind`` says what the neuron stands for:
``"identity"``; ``"relu"``, which takes back no more than it has sent; ``"positive"``, a ReLU that takes back
nothing.

Backward, the quantiser counts as ``clamp(u - v_0, -low, high)`` of the potential, with slope 0 on the
bounds; ``high`` and ``low`` are the largest levels, for the ReLU kind ``low`` is at most what was sent, for
the positive kind it is 0. The published methods train nothing; this is the straight-through rule of
quantised networks, under which `track` has the gradient of the ReLU or identity it stands for wherever it is
not saturated. Thresholds get no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiking.functional.codes import Count, represented
from spiking.functional.dispatch import check, choose, made
from spiking.kernels import layout
from spiking.kernels.operands import Operands
from spiking.reference import multi_threshold as reference
from spiking.reference.firing import SIGMOID
from spiking.reference.neurons import state_dtype

if TYPE_CHECKING:
    from spiking.kernels.launch import Launch
    from spiking.levels import Levels

KINDS = ("identity", "relu", "positive")
CODES = ("differential", "rate")

RateState = tuple[Tensor, ...]  # potential, and for the ReLU kind the sum of all sent [B, ...]
TrackState = tuple[Count, Tensor]  # steps done; output mean (differential) or sum of spikes (rate) [B, ...]
SlotState = tuple[Count, Tensor, Tensor, Tensor]  # steps done, bias, input mean, output mean [B, ...]


def rate_coded(
    x: Tensor,
    levels: Levels,
    state: RateState | None = None,
    *,
    kind: str = "identity",
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, RateState | None]:
    """Charge, send the level that the potential asks for, subtract it.

    With `Levels.smallest` the neuron of ECMT. With `Levels.largest` those of DCGS: ``MTH`` (positive),
    ``MTH_with_neg`` (relu), ``MTH_with_neg_line`` (identity); with `Levels.single` its ``IF``,
    ``IF_with_neg`` and ``IF_with_neg_line``.

    Args:
        x: currents ``[T, B, ...]``, float.
        levels: thresholds.
        state: as given by the call before, None for rest.
        kind: see the head of this file.
        backend: see `spiking.functional.neurons`; there is no Triton kernel.
        keep_state: whether the last state is wanted; None is given if not.

    Returns:
        What is sent ``[T, B, ...]`` in the dtype of ``x``, and the state.
    """
    _check(x, levels, kind)
    check(x, *(state or ()))
    engine = choose(x, backend, SIGMOID, has_triton=False)
    count = 2 if kind == "relu" else 1
    if engine == "reference":
        given = None if state is None else (state[0], state[-1])  # not looked at by other kinds
        s, (v, sent) = reference.rate_coded(x, levels, given, kind=kind)
        return s, (v, sent)[:count] if keep_state else None
    first, second, *_ = (*(state or ()), None, None)
    launch = made(_rate_coded, engine=engine, keep=keep_state, kind=kind, **_switches(levels))
    s, ends = _fused(x, _operands(x, levels, first, second), launch)
    return s, ends if keep_state else None


def rate_start(x: Tensor, levels: Levels, kind: str) -> RateState:
    """The state of `rate_coded` before the first of steps like ``x [B, ...]``."""
    v = reference.start(levels, x.to(state_dtype(x))).clone()
    return (v, torch.zeros_like(v)) if kind == "relu" else (v,)


def track(
    mi: Tensor,
    levels: Levels,
    state: TrackState | None = None,
    *,
    kind: str = "identity",
    code: str = "differential",
    with_spikes: bool = False,
    backend: str = "auto",
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None, TrackState | None]:
    """A neuron between represented values: the output mean follows the input mean in steps of its levels.

    Differential code: ``u = t (mi_t - mo_{t-1}) + v_0``, ``s_t = Q(u)`` with ``t mo_{t-1}`` sent so far, and
    ``mo_t = mo_{t-1} + s_t / t``: the closed form of `differential`. A bias in front needs no care, since
    ``mi`` contains it. Where a ReLU has sent exactly a level, rounding decides in the authors' code whether
    it may take it back; here it may (`spiking.levels.MARGIN`).

    Rate code: ``u = t mi_t - S + v_0``, ``S = S + s_t``, ``mo_t = S / t``: `rate_coded` between the means of
    its input and output.

    Args:
        mi: represented input ``[T, B, ...]``, float.
        levels: thresholds.
        state: as given by the call before, None for the start.
        kind: see the head of this file.
        code: ``"differential"`` or ``"rate"``.
        with_spikes: whether what is sent is wanted, too; costs as much again.
        backend: see `rate_coded`.
        keep_state: whether the last state is wanted; None is given if not.

    Returns:
        Represented output ``[T, B, ...]`` in the dtype of ``mi``; what is sent ``[T, B, ...]`` or None; the
        state.
    """
    if code not in CODES:
        raise ValueError(f"unknown code {code!r}; known: {', '.join(CODES)}")
    _check(mi, levels, kind)
    done, held = state if state is not None else (0, None)
    check(mi, held)
    engine = choose(mi, backend, SIGMOID, has_triton=False)
    if engine == "reference":
        mo, sent, end = reference.track(mi, levels, state, kind=kind, code=code)
        return mo, sent if with_spikes else None, end if keep_state else None

    def run(emit: str, keep: bool) -> tuple[Tensor, RateState]:
        switches = {"kind": kind, "code": code, "emit": emit, **_switches(levels)}
        launch = _tracking(engine, keep, done + 1, **switches)
        return _fused(mi, operands, launch)

    operands = _operands(mi, levels, held)
    mo, ends = run("mean", keep_state)
    s = run("spikes", False)[0] if with_spikes else None
    return mo, s, (done + len(mi), ends[0]) if keep_state else None


def differential(
    x: Tensor,
    levels: Levels,
    state: SlotState | None = None,
    *,
    kind: str = "identity",
    backend: str = "auto",
) -> tuple[Tensor, SlotState]:
    """A differential neuron on currents with the bias in slot 0: ``MTH_diff``, ``IF_diff`` and their kin.

    Runs `track` on the running mean of its input.

    Args:
        x: currents ``[T + 1, B, ...]``, of which the first is the bias; without it where ``state`` is given.
        levels: thresholds: `Levels.largest` for ``MTH_diff``, `Levels.single` for ``IF_diff``.
        state: as given by the call before, None for the start.
        kind: ``"relu"``, or ``"identity"`` for the ``_line`` neurons.
        backend: see `rate_coded`.

    Returns:
        What is sent, shaped as ``x``; zero in slot 0. And the state.
    """
    _check(x, levels, kind)
    done: Count
    if state is None:
        bias, steps = x[0].to(state_dtype(x)), x[1:]
        done, mean, held = 0, bias, torch.zeros_like(bias)
    else:
        (done, bias, mean, held), steps = state, x
    silent = [torch.zeros_like(x[:1])] if state is None else []
    if not len(steps):
        return torch.cat(silent), (done, bias, mean, held)
    mi, (_, mean) = represented(steps.to(mean.dtype), bias, (done, mean))
    _, s, end = track(mi, levels, (done, held), kind=kind, with_spikes=True, backend=backend)
    assert s is not None
    assert end is not None
    return torch.cat([*silent, s.to(x.dtype)]), (end[0], bias, mean, end[1])


def unit_spikes(s: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """What is sent as spikes of 0 and 1, one train a level, and the sizes of the levels.

    ECMT's parallel parameter normalisation (2502.21193): a layer ``W`` behind the neuron takes a copy
    ``sizes[i] * W`` for each train, so that it receives plain spikes, at most one of all trains at a
    time. The copies are bit shifts of each other. ``W(s) = sum_i sizes[i] * W(trains[i])``, so the
    neurons here send levels through ``W`` itself.

    Args:
        s: what is sent ``[T, B, ...]``.
        levels: thresholds that all neurons share.

    Returns:
        ``[2 n, T, B, ...]`` of zeros and ones, and ``[2 n]``; the largest positive level first, then the
        largest negative one, and so on, as in the authors' code.
    """
    sides = [levels.unit, levels.unit if levels.negative_unit is None else levels.negative_unit]
    if any(side.numel() != 1 for side in sides):
        raise ValueError("only levels that all neurons share can move into the next layer's weights")
    steps = 2.0 ** torch.arange(levels.n - 1, -1, -1, device=s.device, dtype=s.dtype)
    up, down = (side.to(s).reshape(1).clamp_min(0) * steps for side in sides)
    sizes = torch.stack([up, -down], dim=1).flatten()
    trains = (s == sizes.view(-1, *(1,) * s.dim())) & (s != 0)
    return trains.to(s.dtype), sizes


def _check(x: Tensor, levels: Levels, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    check(x)
    levels.check(x.shape[1:])


def _sides(levels: Levels) -> list[Tensor]:
    return [side for side in (levels.unit, levels.negative_unit) if side is not None]


def _switches(levels: Levels) -> dict[str, Any]:
    """What the rules need to know of thresholds beside their values."""
    sides = _sides(levels)
    shared = all(side.numel() == 1 for side in sides)
    return {"n": levels.n, "fires": levels.fires, "two_sided": len(sides) == 2, "shared": shared}


def _operands(x: Tensor, levels: Levels, v: Tensor | None, m: Tensor | None = None) -> Operands:
    """States and thresholds: a table if all neurons share them, else one for every neuron."""
    sides, inner = _sides(levels), x.shape[2:]
    if all(side.numel() == 1 for side in sides):
        return Operands(v=v, m=m, table=torch.cat([side.reshape(1) for side in sides]).float())
    units = torch.stack([_of_a_sample(side, inner) for side in sides])
    return Operands(v=v, m=m, coefficients=layout.over_neurons(units, x))


def _rate_coded(engine: str, keep: bool, **switches: Any) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import multi_threshold as rules

    return Launch(rules.RateCoded(**switches), engine, keep, {"first": 1.0})


def _tracking(engine: str, keep: bool, first: Count, **switches: Any) -> Launch:
    from spiking.kernels.launch import Launch
    from spiking.kernels.rules import multi_threshold as rules

    return Launch(rules.Tracking(**switches), engine, keep, {"first": float(first)})


def _fused(x: Tensor, operands: Operands, launch: Launch) -> tuple[Tensor, RateState]:
    from spiking.kernels import ops  # loads the compiler, so not before it is wanted

    return ops.neuron(x, operands, launch)


def _of_a_sample(side: Tensor, inner: torch.Size) -> Tensor:
    """``[B = 1, ...]`` or less -> the shape of one sample."""
    return (side[0] if side.dim() > len(inner) else side).expand(inner)
