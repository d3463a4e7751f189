"""Properties of the neurons that follow from their equations, and how they refuse bad input."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spiking
from spiking import functional, get_surrogate, reference

STEPPING = {
    "if": {},
    "lif": {"tau": 1.7},
    "plif": {"init_tau": 3.0},
    "klif": {"scale_reset": True},
    "clif": {},
    "lmh": {},
    "slidingpsn": {"order": 3},
    "maskedpsn": {"time_steps": 6, "order": 2, "strength": 1.0},
}
FIXED_T = {"glif": {"time_steps": 6}, "psn": {"time_steps": 6}, "lmht": {"time_steps": 6, "levels": 3}}
KEYS = {
    "if": [],
    "lif": [],
    "plif": ["w"],
    "klif": ["k"],
    "clif": [],
    "glif": ["alpha", "beta", "gamma", "tau", "v_threshold", "linear_decay", "v_subreset", "conduct"],
    "lmh": ["alpha_1", "beta_1", "alpha_2", "beta_2", "v_threshold"],
    "lmht": ["alpha", "mask", "v_threshold", "v_init", "input_scale"],
    "psn": ["weight", "bias"],
    "maskedpsn": ["weight", "bias", "_lambda_", "mask0", "mask1"],
    "slidingpsn": ["weight", "bias"],
}


def currents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 1.5


@pytest.mark.parametrize("name", STEPPING)
def test_step_by_step_equals_all_at_once(name):
    neuron, x = spiking.get_neuron(name, **STEPPING[name]), currents(6, 3, 5)
    assert neuron.causal
    gradients = []
    for whole in (True, False):
        y = x.clone().requires_grad_()
        neuron.zero_grad()
        if whole:
            spikes = neuron(y)
        else:
            state, steps = neuron.initial_state(y[0]) if name != "maskedpsn" else None, []
            for y_t in y:
                s, state = neuron.step(y_t, state)
                steps.append(s)
            spikes = torch.stack(steps)
        (spikes * currents(6, 3, 5, seed=1)).sum().backward()
        gradients.append([spikes, y.grad, *(p.grad.clone() for p in neuron.parameters())])
    assert torch.equal(gradients[0][0], gradients[1][0])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["glif", "psn", "maskedpsn"])
def test_neurons_that_look_ahead_or_count_steps_refuse_single_ones(name):
    neuron = spiking.get_neuron(name, time_steps=4)
    assert not neuron.causal
    with pytest.raises(RuntimeError, match="not causal"):
        neuron.step(torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match="T = 4, got T = 5"):
        neuron(torch.zeros(5, 2, 3, 1))


@pytest.mark.parametrize("name", spiking.list_neurons())
def test_nothing_survives_a_call(name):
    neuron = spiking.get_neuron(name, **{**STEPPING, **FIXED_T}[name])
    x = currents(6, 3, 5)
    first = neuron(x)
    assert torch.equal(first, neuron(x))
    assert list(neuron.state_dict()) == KEYS[name]
    again = pickle.loads(pickle.dumps(copy.deepcopy(neuron)))
    assert torch.equal(again(x), first)
    spikes = first / neuron.spike_value
    torch.testing.assert_close(spikes, spikes.round(), rtol=0, atol=1e-6)
    assert spikes.min() >= 0
    assert spikes.max() <= getattr(neuron, "levels", 1)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_equality_fires(backend):
    spikes = spiking.IF(backend=backend)(torch.full((3, 1), 0.5))
    assert spikes.flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("v_reset", [0.0, None])
def test_detaching_the_reset_changes_gradients_alone(v_reset):
    out = []
    for detach in (False, True):
        x = currents(5, 4).requires_grad_()
        spikes = spiking.LIF(v_reset=v_reset, detach_reset=detach)(x)
        spikes.sum().backward()
        out.append((spikes, x.grad))
    assert torch.equal(out[0][0], out[1][0])
    assert not torch.allclose(out[0][1], out[1][1])


def test_psn_with_a_decay_matrix_is_a_lif_without_reset():
    T, keep = 6, 0.5
    psn = spiking.PSN(T)
    with torch.no_grad():
        psn.weight.copy_(
            torch.tensor([[keep ** (i - j) if j <= i else 0.0 for j in range(T)] for i in range(T)])
        )
        psn.bias.fill_(-1.0)
    x, v, spikes = currents(T, 9), torch.zeros(9), []
    for x_t in x:
        v = keep * v + x_t
        spikes.append((v >= 1.0).float())
    assert torch.equal(psn(x), torch.stack(spikes))


def test_masked_and_sliding_psn_meet_the_plain_one():
    x, psn = currents(6, 9), spiking.PSN(6)
    masked = spiking.MaskedPSN(6, order=3, strength=0.0)
    masked.load_state_dict({**masked.state_dict(), **psn.state_dict()})
    assert torch.equal(masked(x), psn(x))
    sliding = spiking.SlidingPSN(order=3, exp_init=False)
    with torch.no_grad():
        masked.set_strength(1.0)
        masked.bias.fill_(float(sliding.bias))
        for i in range(6):
            for j in range(6):
                at = 2 - (i - j)
                masked.weight[i, j] = sliding.weight[at] if 0 <= at < 3 else 7.0
    assert torch.equal(masked(x), sliding(x))
    memoryless = spiking.SlidingPSN(order=1)
    assert torch.equal(memoryless(x), (x >= 1.0).float())


def test_klif_of_gain_one_on_positive_charge_is_a_lif():
    x = currents(5, 7).abs()
    assert torch.equal(spiking.KLIF()(x), spiking.LIF()(x))


def test_clif_resets_deeper_than_its_threshold():
    _, (v, m) = functional.clif(torch.tensor([[1.5]]))
    torch.testing.assert_close(m, torch.ones(1))
    torch.testing.assert_close(v, 1.5 - (1.0 + torch.sigmoid(torch.ones(1))))


SMOOTH = ("Sigmoid", "ATan", "Erf", "PiecewiseExp", "SoftSign", "Rect", "PiecewiseQuadratic", "QPseudoSpike")


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("neuron", ["if", "lif", "klif", "clif"])
def test_gradients_of_the_smooth_network_are_true(name, neuron):
    if name in ("Rect", "PiecewiseQuadratic") and neuron == "klif":
        pytest.skip("kinks of the slope and of the rectifier meet")
    surrogate = get_surrogate(name, spiking=False)
    x = (currents(4, 3, seed=3) * 0.3).double().requires_grad_()
    cell = spiking.get_neuron(neuron, surrogate=surrogate).double()
    assert torch.autograd.gradcheck(cell, (x,), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", spiking.list_surrogates())
def test_primitive_and_slope_belong_together(name):
    surrogate = get_surrogate(name)
    x = torch.linspace(-2.9, 2.9, 241, dtype=torch.float64) + 1e-3
    assert surrogate(x).equal((x >= 0).double())
    assert surrogate(x.requires_grad_()).requires_grad
    try:
        step = (surrogate.primitive(x.detach() + 1e-5) - surrogate.primitive(x.detach() - 1e-5)) / 2e-5
    except NotImplementedError:
        return
    near = (step - surrogate.derivative(x.detach())).abs() < 1e-3
    assert near.float().mean() > 0.98, "away from break points the slope is the derivative"


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 37))


@settings(max_examples=40, deadline=None)
@given(
    shape=SHAPES,
    v_reset=st.sampled_from([0.0, None, 0.3]),
    detach=st.booleans(),
    decay=st.booleans(),
    tau=st.sampled_from([1.0, 1.5, 2.0, 5.3]),
    surrogate=st.sampled_from(["sigmoid", "atan", "rect", "triangle", "erf", "superspike"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    still=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_the_fast_kernel_equals_the_naive_loop(
    shape, v_reset, detach, decay, tau, surrogate, dtype, still, seed
):
    options = {
        "tau": tau,
        "decay_input": decay,
        "v_reset": v_reset,
        "detach_reset": detach,
        "surrogate": get_surrogate(surrogate),
    }
    results = []
    for run in (reference.lif, functional.lif):
        x = currents(*shape, seed=seed)
        x = (x[:1] if still else x).to(dtype).requires_grad_()
        v = currents(*shape[1:], seed=seed + 1).requires_grad_()
        spikes, last = run(x.expand(shape), v, **options)
        weight = currents(*shape, seed=seed + 2).to(dtype)
        ((spikes * weight).sum() + (last * 0.3).sum()).backward()
        results.append((spikes, last, x.grad.float(), v.grad))
    assert results[0][0].dtype is dtype
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    loose = {"rtol": 5e-2, "atol": 5e-2} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(results[0][2], results[1][2], **loose)
    torch.testing.assert_close(results[0][3], results[1][3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: spiking.get_neuron("lff"), ValueError, "did you mean 'lif'"),
        (lambda: spiking.get_neuron("lif", tua=2.0), TypeError, "no argument 'tua'"),
        (lambda: spiking.get_surrogate("sigmod"), ValueError, "did you mean 'Sigmoid'"),
        (lambda: spiking.get_surrogate("atan", beta=1.0), TypeError, "no parameter 'beta'"),
        (lambda: spiking.get_surrogate("atan", alpha=0.0), ValueError, "alpha"),
        (lambda: spiking.LIF(tau=0.5), ValueError, "tau must be at least 1"),
        (lambda: spiking.PLIF(init_tau=1.0), ValueError, "init_tau"),
        (lambda: spiking.LIF(v_threshold=0.0), ValueError, "v_threshold"),
        (lambda: spiking.LIF(v_threshold=float("nan")), ValueError, "v_threshold"),
        (lambda: spiking.LIF(v_reset="hard"), ValueError, "v_reset"),
        (lambda: spiking.LIF(backend="cuda"), ValueError, "unknown backend 'cuda'"),
        (lambda: spiking.LIF(surrogate={"alpha": 2.0}), ValueError, "name"),
        (lambda: spiking.PSN(0), ValueError, "time_steps"),
        (lambda: spiking.MaskedPSN(4, order=5), ValueError, "order"),
        (lambda: spiking.GLIF(4, channels=0), ValueError, "channels"),
        (lambda: spiking.LIF()(torch.zeros(3, 2, dtype=torch.long)), TypeError, "floating-point"),
        (lambda: spiking.LIF()(torch.tensor(1.0)), ValueError, r"\[T, B, \.\.\.\]"),
        (lambda: spiking.LIF()(torch.zeros(0, 2)), ValueError, "at least one time step"),
        (lambda: spiking.LIF()([1.0]), TypeError, "takes a tensor"),
        (lambda: spiking.LIF().step(torch.zeros(2), torch.zeros(3)), ValueError, "the state is"),
        (lambda: spiking.GLIF(2)(torch.zeros(2, 3)), ValueError, r"\[T, B, C, \.\.\.\]"),
        (lambda: spiking.LIF(backend="cpu")(torch.zeros(2, 2).double()), ValueError, "float64"),
    ],
)
def test_bad_input_names_itself(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_check_finite_names_the_layer_that_breaks():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), spiking.LIF(), torch.nn.Linear(2, 2), spiking.LIF())
    with torch.no_grad():
        model[2].weight.fill_(float("nan"))
    with spiking.check_finite(model), pytest.raises(FloatingPointError, match=r"^3 receives 8 values of 8"):
        model(torch.ones(4, 1, 2))
    model(torch.ones(4, 1, 2))  # the hooks are gone


def test_half_precision_keeps_a_float32_membrane():
    x = torch.full((64, 1), 0.01, dtype=torch.bfloat16)
    spikes, v = functional.if_(x, v_threshold=10.0)
    assert spikes.dtype is torch.bfloat16
    assert v.dtype is torch.float32
    torch.testing.assert_close(v, x.float().sum(0))


def test_representation_names_the_settings():
    text = repr(spiking.LIF(tau=1.5, v_reset=None, surrogate="atan"))
    assert "tau=1.5" in text
    assert "v_reset=None" in text
    assert "surrogate=atan" in text
