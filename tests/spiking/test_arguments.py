"""Hostile arguments end in ValueError or TypeError that names the argument, or in a neuron that works.

Values are drawn from a seed for each argument of each public constructor and function.
"""

from __future__ import annotations

import inspect
import math
import random
from typing import Any

import pytest
import torch

import spiking
from spiking import encode, functional
from spiking.budget import require_memory
from spiking.layers import BNTT, TDBN, TEBN, SpikeMatmul, TimeBatchNorm2d
from spiking.neurons import NEURONS
from spiking.qcfs import QCFS
from spiking.surrogate import SURROGATES, Surrogate
from spiking.surrogate.base import LARGEST, SMALLEST

HOSTILE: list[Any] = [
    0, -1, 1, 2, 3.5, -0.0, 1e-300, 1e300, -1e300, 1e39, 10**400, -(10**400), float("nan"), float("inf"),
    float("-inf"), True, False, None, "", "2", "no", "rect", b"2", [], [2], (2,), {}, {"name": "rect"}, {2},
    object(), int, complex(1, 1), torch.tensor(2.0), torch.tensor([2.0, 3.0]), torch.tensor(2),
    torch.zeros(0), torch.zeros(2, dtype=torch.complex64), torch.tensor(float("nan")),
]  # fmt: skip
LETTERS = {"time_steps": ["T = "], "channels": ["C = "]}
T, B, C = 4, 2, 3
X = torch.rand(T, B, C, generator=torch.Generator().manual_seed(0)) * 2


def refusal(call: Any) -> tuple[Exception | None, Any]:
    """The error that ``call`` ends in if it is one of ours, or what it gives."""
    try:
        return None, call()
    except (ValueError, TypeError) as error:
        return error, None


def refused_or_works(name: str, value: Any, call: Any) -> bool:
    """Run ``call``; whether it was refused, with the argument's name."""
    error, y = refusal(call)
    if error is not None:
        words = [name, name.replace("_", " "), *LETTERS.get(name, [])]
        assert any(word in str(error) for word in words), f"{name} = {value!r:.40}: {error!s:.200}"
        assert len(str(error)) < 600, str(error)[:80]
        return True
    for part in y if isinstance(y, tuple) else (y,):
        if isinstance(part, torch.Tensor):
            assert not part.isnan().any(), f"{name} = {value!r:.40} gives NaN"
    return False


CONSTRUCTORS = {
    **{cls.__name__: (cls, {"time_steps": T}) for cls in NEURONS.values()},
    "QCFS": (QCFS, {"levels": 4}),
    **{
        cls.__name__: (cls, {"num_features": C, "time_steps": T})
        for cls in (TDBN, TEBN, BNTT, TimeBatchNorm2d)
    },
    "SpikeMatmul": (SpikeMatmul, {}),
}


@pytest.mark.parametrize("label", CONSTRUCTORS)
def test_constructors(label):
    cls, given = CONSTRUCTORS[label]
    known = inspect.signature(cls).parameters
    given = {k: v for k, v in given.items() if k in known}
    refused = 0
    for name in known:
        for value in HOSTILE:

            def call(name=name, value=value):
                module = cls(**{**given, name: value})
                if isinstance(module, spiking.Neuron) and name != "time_steps":
                    x = X.unsqueeze(-1) if label == "GLIF" else X
                    return module(x) if getattr(module, "time_steps_in", T) == T else None
                return None

            refused += refused_or_works(name, value, call)
    assert refused > len(known)


FUNCTIONS = {
    "if_": {},
    "lif": {"tau": 2.0, "decay_input": True},
    "plif": {"w": torch.tensor(0.0), "decay_input": True},
    "klif": {"k": torch.tensor(1.0), "tau": 2.0, "scale_reset": False},
    "clif": {"tau": 2.0, "v_threshold": 1.0, "surrogate": spiking.get_surrogate("rect")},
}
FIRING = {
    "v_threshold": 1.0,
    "v_reset": 0.0,
    "detach_reset": False,
    "surrogate": spiking.get_surrogate("atan"),
}


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, backend):
    function = getattr(functional, name)
    given = {**FUNCTIONS[name], "backend": backend} | ({} if name == "clif" else FIRING)
    refused = 0
    for argument in (*given, "v"):
        for value in HOSTILE:
            if argument in ("w", "k") and isinstance(value, torch.Tensor) and value.isnan().any():
                continue  # a parameter of the network: spiking.check_finite and the tasks look at these
            refused += refused_or_works(
                "state" if argument == "v" else argument,
                value,
                lambda argument=argument, value=value: function(X, **{**given, argument: value}),
            )
    assert refused > len(given) * 5
    for value in HOSTILE:
        error, _ = refusal(lambda value=value: function(value, **given))
        assert error is None or "neuron" in str(error)


@pytest.mark.parametrize("name", ["direct", "poisson", "latency"])
def test_encoders(name):
    function = getattr(encode, name)
    for value in HOSTILE:
        refused_or_works("time_steps", value, lambda value=value: function(X.clamp(0, 1), value))
        if not isinstance(value, torch.Tensor):
            with pytest.raises(TypeError, match="must be a tensor"):
                function(value, 2)


def finite_slopes(surrogate: Surrogate, backend: str):
    spread = [0.0, 1e-30, 1e-7, 0.25, 0.5, 1.0, 2.5, 100.0, 1e4, 1e30]
    x = torch.tensor([s * c for s in (1, -1) for c in spread]).repeat(2, 1, 1).requires_grad_()
    y, _ = functional.if_(x, surrogate=surrogate, backend=backend, detach_reset=True)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all(), (surrogate, backend)


@pytest.mark.parametrize("label", SURROGATES)
def test_surrogates(label):
    """What is refused says what; what is taken has finite slopes for all currents."""
    cls, plan = SURROGATES[label], random.Random(label)
    for name in cls().parameters():
        low = cls.above.get(name, 0.0)
        values = [v for v in HOSTILE if not isinstance(v, torch.Tensor)]
        values += [math.exp(plan.uniform(math.log(SMALLEST), math.log(LARGEST))) for _ in range(20)]
        values += [low, low + SMALLEST, LARGEST, SMALLEST / 2, LARGEST * 2, 0.5]
        for value in values:
            error, surrogate = refusal(lambda name=name, value=value: cls(**{name: value}))
            if error is None:
                assert not isinstance(value, bool)
                finite_slopes(surrogate, "reference")
            else:
                assert f"{label}: {name} must be" in str(error) or f"{label}: {name} must lie" in str(error)
        for value in (float("nan"), float("inf"), -1.0, "2", None, [2.0], True, 10**400):
            with pytest.raises((ValueError, TypeError), match=name):
                cls(**{name: value})
    with pytest.raises(TypeError, match="spiking must be True or False"):
        cls(spiking="no")


@pytest.mark.slow
@pytest.mark.parametrize("label", SURROGATES)
def test_surrogates_in_kernels(label):
    """Each parameter at the ends of its domain; each is a kernel to compile."""
    cls = SURROGATES[label]
    for name, default in cls().parameters().items():
        ends = (2, 1000) if isinstance(default, int) else (cls.above.get(name, 0.0) + SMALLEST, LARGEST)
        for value in ends:
            finite_slopes(cls(**{name: value}), "auto")


@pytest.mark.parametrize("alpha", [0.5, 1.0, 0.999, -2.0, 1.0 + 1e-9])
def test_a_power_that_would_be_of_a_negative_number(alpha):
    with pytest.raises(ValueError, match="QPseudoSpike: alpha must"):
        spiking.get_surrogate("QPseudoSpike", alpha=alpha)
    with pytest.raises(ValueError, match="QPseudoSpike: alpha must"):
        spiking.LIF(surrogate={"name": "QPseudoSpike", "alpha": alpha})


@pytest.mark.parametrize("make", [spiking.PSN, spiking.MaskedPSN, spiking.LMHT])
def test_matrices_that_no_memory_holds(make):
    with pytest.raises(ValueError, match=r"\[T, T'\] = \[1000000, 1000000\] .* 4,000,000,000,000 bytes"):
        make(time_steps=1_000_000)


def test_sequences_that_no_memory_holds():
    step = torch.zeros(64, 64, 64, 64)
    for call in (
        lambda: spiking.LIF()(step.expand(100_000, *step.shape)),
        lambda: encode.poisson(step, 100_000),
        lambda: encode.latency(step, 100_000),
    ):
        with pytest.raises(ValueError, match=r"would take 6,710,886,400,000 bytes \(6,711 GB\)"):
            call()
    assert encode.direct(step, 100_000).shape[0] == 100_000  # a view
    require_memory("a tensor", 10**15, torch.device("meta"), "")


@pytest.mark.parametrize("neuron", [spiking.PSN(4), spiking.MaskedPSN(4)])
def test_sequences_without_a_batch(neuron):
    with pytest.raises(ValueError, match=r"takes currents \[T, B, \.\.\.\], got \(4,\)"):
        neuron(torch.zeros(4))
