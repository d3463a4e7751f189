"""Neurons that send levels: the fast forms against the step-by-step ones, and what their equations imply."""

import copy
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spiking
from spiking import kernels
from spiking.functional import multi_threshold as fast
from spiking.levels import Levels
from spiking.reference import multi_threshold as multi_threshold_reference

needs_llvm = pytest.mark.skipif(not kernels.HAS_LLVM, reason="llvmlite is not installed")
CLOSE = {"rtol": 1e-4, "atol": 5e-5}  # gradients are sums in another order, with fused multiply-add

LEVELS = {  # few values of n, since each is a kernel of its own
    "largest": Levels.largest(2.1, 6),
    "largest a channel": Levels.largest(torch.tensor([0.0, 0.9, 2.3]).view(1, 3, 1, 1), 6),
    "largest a row": Levels.largest(torch.tensor([0.4, 0.9, 1.3, 2.3, 0.7]).view(5, 1), 6),
    "largest a neuron": Levels.largest(torch.linspace(0.3, 2.0, 105).view(3, 5, 7), 6),
    "single": Levels.single(0.8),
    "single a channel": Levels.single(torch.tensor([0.0, 0.9, 1.7]).view(3, 1, 1)),
    "smallest": Levels.smallest(0.05, 0.04, 8),
    "smallest without negative": Levels.smallest(0.05, -0.3, 8),
    "smallest a channel": Levels.smallest(torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor(0.1), 8),
}


def signal(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 1.2).to(dtype)


def over_time(x):
    """Running means ``[T, ...]``."""
    t = torch.arange(1, len(x) + 1, dtype=x.dtype).view(-1, *(1,) * (x.dim() - 1))
    return x.cumsum(0) / t


def run(form, x, levels, kind, backend, state=None):
    """Outputs and last states of one form of the neuron."""
    if form == "rate":
        s, ends = fast.rate_coded(x, levels, state, kind=kind, backend=backend)
        return [s], list(ends)
    mo, s, (done, held) = fast.track(
        x, levels, state, kind=kind, code=form.removeprefix("track "), with_spikes=True, backend=backend
    )
    assert done == len(x) + (state[0] if state else 0)
    return [mo, s], [held]


FORMS = ("rate", "track differential", "track rate")


def both(form, x, levels, kind, state=None, seed=7):
    """The kernel and the reference on equal leaves: everything that comes out, and all gradients."""
    found = []
    for backend in ("cpu", "reference"):
        leaf = x.detach().requires_grad_()  # shares memory, hence also the layout, with x
        own = state
        extra = []
        if state is not None:
            extra = [s.detach().clone().requires_grad_() for s in state if isinstance(s, torch.Tensor)]
            own = (state[0], *extra) if isinstance(state[0], int) else tuple(extra)
        outputs, ends = run(form, leaf, levels, kind, backend, own)
        loss = sum((o.float() * signal(*o.shape, seed=seed + i)).sum() for i, o in enumerate(outputs + ends))
        grads = torch.autograd.grad(loss, [leaf, *extra], allow_unused=True)
        found.append((outputs + ends, grads))
    (got, grads), (want, want_grads) = found
    for a, b in zip(got, want, strict=True):
        assert a.dtype is b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for a, b in zip(grads, want_grads, strict=True):
        zero = torch.zeros_like(x[0])  # a sum of spikes that no other kind looks at
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b, **CLOSE)
    return got, grads


@needs_llvm
@pytest.mark.parametrize("kind", fast.KINDS)
@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference(form, name, kind):
    got, _ = both(form, signal(6, 4, 3, 5, 7), LEVELS[name], kind)
    assert 0.01 < (got[0] != 0).float().mean() <= 1


@needs_llvm
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["largest", "largest a channel", "single", "smallest"])
def test_goes_on_from_a_state(form, name):
    x, levels = signal(4, 4, 3, 5, 7), LEVELS[name]
    held = signal(4, 3, 5, 7, seed=1).abs()
    both(form, x, levels, "relu", (signal(4, 3, 5, 7, seed=2), held) if form == "rate" else (3, held))


@needs_llvm
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [1, 16, 17, 65, 2049])
@pytest.mark.parametrize("steps", [1, 9])
def test_any_size(form, width, steps):
    x = signal(steps, 2, 3, width, seed=width)
    both(form, x, LEVELS["largest"], "relu")
    both(form, x, Levels.largest(torch.tensor([0.5, 1.0, 2.0]).view(3, 1), 6), "identity")


@needs_llvm
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["largest", "largest a channel", "largest a neuron", "smallest a channel"])
def test_any_layout(form, name):
    x = signal(4, 6, 3, 5, 7)
    last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 6))
    outputs, _ = both(form, last, LEVELS[name], "relu")
    assert outputs[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    both(form, x[:, ::2], LEVELS[name], "relu")
    both(form, x[0].expand(5, 6, 3, 5, 7), LEVELS[name], "identity")
    both(form, signal(6, 4, 3, 5, 7).transpose(0, 1), LEVELS[name], "identity")


@needs_llvm
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    x = signal(4, 3, 8, 900)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for form in FORMS:
            both(form, x, LEVELS["largest"], "relu")
            both(form, x, Levels.largest(torch.linspace(0.3, 2.0, 8).view(8, 1), 6), "relu")
    finally:
        torch.set_num_threads(before)


@needs_llvm
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_long_state(dtype):
    if dtype is torch.float16:
        from spiking.kernels.cpu.compiler import has_float16

        if not has_float16():
            pytest.skip("the machine does not convert float16")
    for form in FORMS:
        x = signal(5, 2, 3, 37, dtype=dtype)
        got, want = (run(form, x, LEVELS["largest"], "relu", b) for b in ("cpu", "reference"))
        for a, b in zip(got[0] + got[1], want[0] + want[1], strict=True):
            assert torch.equal(a, b)
        assert got[0][0].dtype is dtype
        assert got[1][0].dtype is torch.float32


@needs_llvm
def test_numbers_that_are_not_finite():
    x = signal(4, 1, 32)
    x[1, 0, 3], x[2, 0, 4], x[1, 0, 5] = float("nan"), float("inf"), float("-inf")
    for form in FORMS:
        for name in ("largest", "single", "smallest"):
            a, b = (run(form, x, LEVELS[name], "relu", backend) for backend in ("cpu", "reference"))
            for left, right in zip(a[0] + a[1], b[0] + b[1], strict=True):
                torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


@needs_llvm
@pytest.mark.parametrize("shape", [(3, 0, 3, 5), (3, 2, 3, 0)])
def test_empty_batches(shape):
    for form in FORMS:
        x = torch.zeros(shape).requires_grad_()
        outputs, ends = run(form, x, Levels.largest(1.0, 6), "relu", "cpu")
        assert outputs[0].shape == shape
        assert ends[0].shape == shape[1:]
        outputs[0].sum().backward()
        assert x.grad.shape == shape


def test_float64_runs_step_by_step():
    x = signal(4, 3, 5, dtype=torch.float64)
    for form in FORMS:
        outputs, ends = run(form, x, LEVELS["largest"], "relu", "auto")
        assert {t.dtype for t in outputs + ends} == {torch.float64}


@needs_llvm
def test_nothing_is_kept_for_the_backward_pass():
    x = signal(8, 4, 500).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        fast.track(x, LEVELS["largest"], kind="relu", backend="cpu", keep_state=False)
        fast.rate_coded(x, LEVELS["smallest"], backend="cpu", keep_state=False)
    own = x.untyped_storage().data_ptr()
    assert sum(t.nbytes for t in kept if t.untyped_storage().data_ptr() != own) < 64  # the thresholds


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("form", ["track differential", "track rate"])
def test_unsaturated_trackers_have_the_slope_of_what_they_stand_for(form):
    mi = over_time(signal(6, 2, 40)).requires_grad_()
    weight = signal(6, 2, 40, seed=3)
    for kind, wanted in (("identity", weight), ("relu", None)):
        outputs, _ = run(form, mi, Levels.largest(60.0, 12), kind, "auto")
        (grad,) = torch.autograd.grad((outputs[0] * weight).sum(), mi)
        if wanted is None:  # a ReLU that has been positive all along is an identity, a negative one is silent
            always = (mi > 0.05).all(0)
            never = (mi < -0.05).all(0)
            assert always.any()
            assert never.any()
            torch.testing.assert_close(grad[:, always], weight[:, always], **CLOSE)
            assert not grad[:, never].any()
        else:
            torch.testing.assert_close(grad, wanted, **CLOSE)


def test_a_saturated_neuron_hands_the_gradient_on():
    """The potential that one step cannot send is sent by the next."""
    x = torch.tensor([[3.0], [0.1], [0.1]]).requires_grad_()
    s, _ = fast.rate_coded(x, Levels.largest(2.0, 4))
    grads = [torch.autograd.grad(s[t].sum(), x, retain_graph=True)[0].flatten().tolist() for t in range(3)]
    assert s.flatten().tolist() == [2.0, 1.0, 0.25]
    assert grads[0] == [0.0, 0.0, 0.0]
    assert grads[1] == [1.0, 1.0, 0.0]


def test_silent_neurons_have_no_gradient():
    x = signal(5, 2, 9).requires_grad_()
    for levels in (Levels.largest(0.0), Levels.single(0.0), Levels.smallest(0.0, -1.0)):
        for form in FORMS:
            outputs, _ = run(form, x, levels, "identity", "auto")
            assert not outputs[0].any()
            assert not torch.autograd.grad(outputs[0].sum(), x)[0].any()


def test_thresholds_are_constants():
    with pytest.raises(ValueError, match="constants"):
        Levels.largest(torch.ones(1, requires_grad=True))


@needs_llvm
@pytest.mark.compile
def test_compiles_as_one_graph():
    x = signal(5, 2, 3, 8).requires_grad_()
    for neuron in (
        spiking.MultiThreshold(LEVELS["smallest"]),
        spiking.Tracking(Levels.largest(torch.tensor([0.4, 0.9, 1.3]).view(1, 3, 1)), "relu"),
    ):
        compiled = torch.compile(neuron, backend="aot_eager", fullgraph=True)
        out, want = compiled(x), neuron(x)
        assert torch.equal(out, want)
        weight = signal(*x.shape, seed=4)
        grad, other = (torch.autograd.grad((o * weight).sum(), x)[0] for o in (out, want))
        assert torch.equal(grad, other)


@needs_llvm
def test_per_sample_gradients():
    x, weight = signal(5, 3, 4, 8), signal(5, 4, 8, seed=2)
    levels = Levels.largest(torch.tensor([0.4, 0.9, 1.3, 0.5]).view(1, 4, 1))

    def loss(sample):
        return (fast.track(sample.unsqueeze(1), levels, kind="relu")[0].squeeze(1) * weight).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=1, out_dims=1)(x)
    leaf = x.clone().requires_grad_()
    (fast.track(leaf, levels, kind="relu")[0] * weight.unsqueeze(1)).sum().backward()
    torch.testing.assert_close(each, leaf.grad, **CLOSE)


# ---------------------------------------------------------------- what the equations imply

THETA = st.floats(0.0625, 20.0, width=32)
SIDES = st.sampled_from(
    [Levels.largest, Levels.single, lambda theta: Levels.smallest(theta / 100, theta / 150)]
)
SEEDS = st.integers(0, 2**20)


@settings(max_examples=30, deadline=None)
@given(theta=THETA, make=SIDES, seed=SEEDS, kind=st.sampled_from(fast.KINDS))
def test_potential_is_what_came_minus_what_went(theta, make, seed, kind):
    x, levels = signal(9, 3, 20, seed=seed), make(theta)
    s, (v, *_) = fast.rate_coded(x, levels, kind=kind)
    start = multi_threshold_reference.start(levels, v)
    torch.testing.assert_close(v, start + x.sum(0) - s.sum(0), rtol=1e-4, atol=1e-4 * max(theta, 1))
    mi = over_time(x)
    mo, s, (done, held) = fast.track(mi, levels, kind=kind, with_spikes=True)
    assert done == 9
    assert torch.equal(held, mo[-1])
    t = torch.arange(1.0, 10.0).view(-1, 1, 1)
    torch.testing.assert_close(mo, (s / t).cumsum(0), rtol=1e-4, atol=1e-4 * max(theta, 1))
    mean, spikes, _ = fast.track(mi, levels, kind=kind, code="rate", with_spikes=True)
    torch.testing.assert_close(mean, over_time(spikes), rtol=1e-4, atol=1e-4 * max(theta, 1))


@settings(max_examples=30, deadline=None)
@given(theta=THETA, make=SIDES, seed=SEEDS, kind=st.sampled_from(fast.KINDS))
def test_only_levels_are_sent(theta, make, seed, kind):
    x, levels = signal(9, 3, 20, seed=seed), make(theta)
    up = levels.unit.item() * 2.0 ** torch.arange(levels.n)
    down = (
        levels.unit if levels.negative_unit is None else levels.negative_unit
    ).item() * 2.0 ** torch.arange(levels.n)
    allowed = set(torch.cat([up, -down, torch.zeros(1)]).tolist())
    if kind == "positive":
        allowed = set(up.tolist()) | {0.0}
    assert set(fast.rate_coded(x, levels, kind=kind)[0].unique().tolist()) <= allowed
    for code in fast.CODES:
        s = fast.track(over_time(x), levels, kind=kind, code=code, with_spikes=True)[1]
        assert set(s.unique().tolist()) <= allowed


@pytest.mark.parametrize("form", FORMS)
def test_nothing_in_nothing_out(form):
    for name in ("largest", "smallest", "largest a channel"):
        outputs, _ = run(form, torch.zeros(5, 2, 3, 5, 7), LEVELS[name], "identity", "auto")
        assert not outputs[0].any()


@settings(max_examples=30, deadline=None)
@given(theta=THETA, seed=SEEDS, n=st.sampled_from([1, 2, 6]))
def test_identity_neurons_are_odd(theta, seed, n):
    x = signal(8, 3, 20, seed=seed)
    for levels in (Levels.largest(theta, n), Levels.smallest(theta / 50, theta / 50, n)):
        for form in FORMS:
            plus, minus = (run(form, y, levels, "identity", "auto")[0][-1] for y in (x, -x))
            assert torch.equal(plus, -minus)


@settings(max_examples=30, deadline=None)
@given(power=st.integers(-6, 6), seed=SEEDS, make=SIDES, kind=st.sampled_from(fast.KINDS))
def test_scaling_signal_and_thresholds_scales_the_output(power, seed, make, kind):
    """By a power of two, so that rounding scales, too."""
    x, scale = signal(8, 3, 20, seed=seed), 2.0**power
    for form in FORMS:
        one, other = (run(form, x * a, make(1.37 * a), kind, "auto")[0][-1] for a in (1.0, scale))
        torch.testing.assert_close(one * scale, other, rtol=1e-6, atol=0)


def test_bounds_for_a_constant_input():
    """What stays in the potential, for an input up to the largest level."""
    T = 64
    x = torch.linspace(-1.0, 1.0, 4001).expand(T, 1, 4001)
    for n, bound in ((1, 0.75), (2, 0.375), (4, 0.25), (8, 0.25)):
        _, (v,) = fast.rate_coded(x, Levels.largest(1.0, n))
        mo, _, _ = fast.track(x, Levels.largest(1.0, n))
        t = torch.arange(1.0, T + 1).view(-1, 1, 1)
        assert v.abs().max() <= bound + 1e-5
        assert ((mo - x) * t).abs()[1:].max() <= bound + 1e-4  # t times the error is the potential
    for n in (1, 2, 3, 8):
        base = 2.0 ** (1 - n)
        s, (v,) = fast.rate_coded(x, Levels.smallest(base, base, n))
        assert v.abs().max() <= 0.5 + 1e-5
        assert ((over_time(s) - x).abs() * torch.arange(1.0, T + 1).view(-1, 1, 1)).max() <= 0.5 + 1e-4


@settings(max_examples=30, deadline=None)
@given(theta=THETA, seed=SEEDS, n=st.sampled_from([1, 2, 6]))
def test_a_relu_never_takes_back_more_than_it_sent(theta, seed, n):
    x = signal(12, 3, 30, seed=seed)
    for levels in (Levels.largest(theta, n), Levels.single(theta)):
        assert fast.rate_coded(x, levels, kind="relu")[0].cumsum(0).min() >= -1e-5 * theta
        for code in fast.CODES:
            mo = fast.track(over_time(x), levels, kind="relu", code=code)[0]
            assert mo.min() >= -1e-5 * theta


def test_differential_neurons_fall_silent_and_are_closer():
    """Figures for N(0, 1), largest level 4, n = 8, at t = 1, 2, 4, 8, 16."""
    x = signal(100_000, seed=5).div(1.2).expand(16, 1, 100_000)
    levels = Levels.largest(4.0, 8)
    mo, s, _ = fast.track(x, levels, with_spikes=True)
    rate, spikes, _ = fast.track(x, levels, code="rate", with_spikes=True)
    at = [0, 1, 3, 7, 15]
    fired = (s != 0).float().mean((1, 2))[at]
    error, other = ((m - x).abs().mean((1, 2))[at] for m in (mo, rate))
    torch.testing.assert_close(fired, torch.tensor([0.98, 0.88, 0.30, 0.06, 0.04]), rtol=0, atol=0.01)
    torch.testing.assert_close(
        error, torch.tensor([0.134, 0.023, 0.0024, 0.0012, 0.0007]), rtol=0.05, atol=5e-5
    )
    torch.testing.assert_close(other, torch.tensor([0.134, 0.070, 0.035, 0.018, 0.009]), rtol=0.05, atol=5e-4)
    assert (spikes != 0).float().mean((1, 2)).min() > 0.5


@pytest.mark.parametrize("kind", fast.KINDS)
def test_codes_agree_at_the_first_step(kind):
    x = signal(1, 3, 50)
    levels = Levels.largest(2.0, 6)
    sent = [fast.track(x, levels, kind=kind, code=code, with_spikes=True)[1] for code in fast.CODES]
    assert torch.equal(sent[0], sent[1])
    assert torch.equal(sent[0], fast.rate_coded(x, levels, kind=kind)[0])
    slots = torch.cat([torch.zeros_like(x), x])  # no bias
    assert torch.equal(sent[0], fast.differential(slots, levels, kind=kind)[0][1:])


def test_the_rate_tracker_is_the_rate_coded_neuron_between_means():
    x = signal(10, 3, 500, dtype=torch.float64)
    for levels in (Levels.largest(2.0, 6), Levels.single(1.1), Levels.smallest(0.05, 0.04)):
        for kind in fast.KINDS:
            s = fast.rate_coded(x, levels, kind=kind)[0]
            mo, spikes, _ = fast.track(over_time(x), levels, kind=kind, code="rate", with_spikes=True)
            torch.testing.assert_close(spikes, s, rtol=0, atol=1e-12)
            torch.testing.assert_close(mo, over_time(s))


@pytest.mark.parametrize("kind", ["identity", "relu"])
@pytest.mark.parametrize("levels", [Levels.largest(1.7, 6), Levels.single(0.83)], ids=["multi", "single"])
def test_the_closed_form_is_the_recursion(levels, kind):
    """With a bias in slot 0; rounding may decide differently where a ReLU has sent exactly a level."""
    slots = signal(9, 2000, dtype=torch.float64)
    want = multi_threshold_reference.differential(slots, levels, kind=kind)
    got, _ = fast.differential(slots, levels, kind=kind)
    assert not got[0].any()
    same = ((got - want).abs() < 1e-9).all(0)
    assert same.float().mean() > (0.98 if kind == "relu" else 0.9999)
    tied = _near_a_level(want, levels)
    assert bool((same | tied).all()), "a difference without a tie"


def _near_a_level(s, levels):
    """Whether t times the output mean ever equals a level, up to rounding, which begins with thirds."""
    t = torch.arange(1, len(s), dtype=torch.float64).view(-1, 1)
    mo = (s[1:].double() / t).cumsum(0)
    c = t[3:] * mo[2:-1]
    sizes = levels.unit.double() * 2.0 ** torch.arange(levels.n)
    return ((c.unsqueeze(-1) / sizes - 1).abs() < 1e-5).any(-1).any(0)


def test_silent_slots_cost_nothing():
    """A static input in differential code is its value once, and then zero."""
    value = signal(3, 40)
    slots = torch.cat([torch.zeros(1, 3, 40), value.unsqueeze(0), torch.zeros(30, 3, 40)])
    s, (done, bias, mi, mo) = fast.differential(slots, Levels.largest(4.0, 8))
    assert done == 31
    assert not bias.any()
    assert torch.equal(mi, value)
    assert (mo - value).abs().max() < 0.02
    assert (s[-5:] != 0).float().mean() < 0.1


@pytest.mark.parametrize(
    "levels", [Levels.smallest(0.05, 0.04), Levels.smallest(0.05, -1.0), Levels.largest(2.0, 6)]
)
def test_levels_may_move_into_the_weights(levels):
    s, _ = fast.rate_coded(signal(6, 4, 5), levels)
    trains, sizes = fast.unit_spikes(s, levels)
    assert trains.shape == (2 * levels.n, *s.shape)
    assert trains.sum(0).max() == 1, "at most one spike at a time"
    assert set(trains.unique().tolist()) == {0.0, 1.0}
    assert sizes[0] == levels.unit * 2 ** (levels.n - 1)
    weight, bias = signal(3, 5, seed=1), signal(3, seed=2)
    copies = sizes.view(-1, 1, 1) * weight
    folded = torch.einsum("ltbi,loi->tbo", trains, copies) + bias
    torch.testing.assert_close(folded, torch.nn.functional.linear(s, weight, bias), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="that all neurons share"):
        fast.unit_spikes(s, Levels.largest(torch.ones(1, 5)))


# ---------------------------------------------------------------- modules


def neurons():
    theta = torch.tensor([0.4, 0.9, 1.3]).view(1, 3, 1)
    return {
        "ECMT": spiking.MultiThreshold(Levels.smallest(0.05, 0.04)),
        "MTH": spiking.MultiThreshold(Levels.largest(theta), "relu"),
        "IF": spiking.MultiThreshold(Levels.single(theta), "positive"),
        "MTH_diff": spiking.Differential(Levels.largest(theta), "relu"),
        "IF_diff": spiking.Differential(Levels.single(theta), "identity"),
        "tracking": spiking.Tracking(Levels.largest(theta), "relu"),
        "tracking rate": spiking.Tracking(Levels.single(theta), "relu", "rate"),
    }


@pytest.mark.parametrize("name", neurons())
def test_neurons_have_no_memory_and_samples_no_neighbours(name):
    neuron, x = neurons()[name].eval(), signal(6, 4, 3, 8)
    first = neuron(x)
    assert torch.equal(first, neuron(x))
    assert torch.equal(neuron(x[:, [2, 0, 3, 1]]), first[:, [2, 0, 3, 1]])
    again = pickle.loads(pickle.dumps(copy.deepcopy(neuron)))
    assert torch.equal(again(x), first)
    other = neurons()[name]
    other.load_state_dict(neuron.state_dict())
    assert next(iter(neuron.state_dict())) == "unit"
    assert not list(neuron.parameters())
    assert type(neuron).__name__ in repr(neuron)


@pytest.mark.parametrize("name", neurons())
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_chunk_by_chunk_equals_the_whole(name, backend):
    neuron, x = neurons()[name].eval(), signal(9, 2, 3, 8)
    neuron.backend = backend
    whole = neuron(x)
    with spiking.streaming(neuron), torch.no_grad():
        parts = torch.cat([neuron(chunk) for chunk in x.split([1, 3, 4, 1])])
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    state, steps = neuron.initial_state(x[0]), []
    for x_t in x:
        s, state = neuron.step(x_t, state)
        steps.append(s)
    torch.testing.assert_close(torch.stack(steps), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.export
@pytest.mark.parametrize("name", ["ECMT", "MTH", "tracking"])
def test_exports(name):
    neuron, x = neurons()[name].eval(), signal(4, 2, 3, 8)
    program = torch.export.export(neuron, (x,))
    assert torch.equal(program.module()(x), neuron(x))


def test_firing_rates_count_spikes_not_sizes():
    x = over_time(signal(6, 4, 3, 8))
    theta = torch.tensor([0.4, 0.0, 1.3]).view(1, 3, 1)
    for code in fast.CODES:
        for levels in (Levels.largest(theta), Levels.single(theta), Levels.smallest(0.05, 0.01)):
            neuron = spiking.Tracking(levels, "relu", code)
            with spiking.FiringRateMonitor(neuron) as monitor:
                neuron(x)
            s = fast.track(x, levels, kind="relu", code=code, with_spikes=True)[1]
            assert monitor.rate() == pytest.approx((s != 0).float().mean().item())
    neuron = neurons()["ECMT"]
    with spiking.FiringRateMonitor(neuron) as monitor:
        s = neuron(x)
    assert monitor.rate() == pytest.approx((s != 0).float().mean().item())
    tracking = neurons()["tracking"].eval()
    with (
        spiking.FiringRateMonitor(tracking),
        spiking.streaming(tracking),
        pytest.raises(RuntimeError, match="whole sequences"),
    ):
        tracking(x)


# ---------------------------------------------------------------- thresholds and errors


def test_the_two_conventions_differ_by_all_levels():
    assert Levels.largest(2.0, 8).unit == 2.0 / 128
    assert Levels.smallest(2.0, 2.0, 8).unit == 2.0
    x = torch.tensor([[0.5]])
    assert fast.rate_coded(x, Levels.largest(2.0, 8))[0].item() == 0.5
    assert fast.rate_coded(x, Levels.smallest(2.0, 2.0, 8))[0].item() == 0.0


def test_a_side_without_statistics_is_silent():
    """A low quantile above 0, as after softmax, makes the official code misfire."""
    x = torch.tensor([[0.3, -0.3, 2.0, -2.0]])
    s = fast.rate_coded(x, Levels.smallest(0.5, -0.1, 3))[0]
    assert s.flatten().tolist() == [0.5, 0.0, 2.0, 0.0]
    s = fast.rate_coded(x, Levels.smallest(-0.5, 0.5, 3))[0]
    assert s.flatten().tolist() == [0.0, -0.5, 0.0, -2.0]


def test_where_levels_begin():
    """From 0.75 of a level (DCGS), from half the smallest level below it (ECMT), from the threshold (IF)."""
    x = torch.tensor([[0.37, 0.38, 0.74, 0.76, 0.18, 0.19]])
    assert fast.rate_coded(x, Levels.largest(1.0, 3))[0].flatten().tolist() == [
        0.25,
        0.5,
        0.5,
        1.0,
        0.0,
        0.25,
    ]
    x = torch.tensor([[0.12, 0.13, 0.37, 0.38, 0.87, 0.88]])
    s = fast.rate_coded(x, Levels.smallest(0.25, 0.25, 3))[0]
    assert s.flatten().tolist() == [0.0, 0.25, 0.25, 0.5, 0.5, 1.0]
    x = torch.tensor([[0.49, 0.5, -0.49, -0.5, -0.51]])
    assert fast.rate_coded(x, Levels.single(1.0))[0].flatten().tolist() == [0.0, 1.0, 0.0, -1.0, -1.0]


def test_errors_say_what_is_wrong():
    x = signal(3, 2, 4)
    with pytest.raises(ValueError, match="unknown kind 'line'; known: identity, relu, positive"):
        fast.rate_coded(x, Levels.largest(1.0), kind="line")
    with pytest.raises(ValueError, match="unknown code 'phase'"):
        fast.track(x, Levels.largest(1.0), code="phase")
    with pytest.raises(ValueError, match="unknown kind"):
        spiking.Tracking(Levels.largest(1.0), kind="line")
    with pytest.raises(ValueError, match="unknown code"):
        spiking.Tracking(Levels.largest(1.0), code="phase")
    for theta in (torch.ones(3), torch.ones(2, 4), torch.ones(1, 1, 1, 4), torch.ones(2, 1)):
        with pytest.raises(ValueError, match=r"do not fit steps \[B, ...\] = \(2, 4\)"):
            fast.track(x, Levels.largest(theta))
    for n in (0, 25, 2.0, True):
        with pytest.raises(ValueError, match="integer from 1 to 24"):
            Levels(torch.ones(()), n=n)
    with pytest.raises(ValueError, match="the state is"):
        fast.track(x, Levels.largest(1.0), (1, torch.zeros(3, 4)))
    with pytest.raises(ValueError, match="no Triton kernel"):
        fast.track(x, Levels.largest(1.0), backend="triton")
    with pytest.raises(TypeError, match="floating-point"):
        fast.rate_coded(x.long(), Levels.largest(1.0))


def exactly(inputs: list[Fraction], theta: Fraction, n: int) -> list[Fraction]:
    """Represented outputs of a ReLU neuron in differential code with n levels, in fractions."""
    held, out = Fraction(0), []
    for t, m in enumerate(inputs, 1):
        u, s = t * (m - held), Fraction(0)
        for level in (theta / 2**i for i in range(n)):
            if u >= Fraction(3, 4) * level or (u <= -Fraction(3, 4) * level and t * held >= level):
                s = level if u > 0 else -level
                break
        held += s / t
        out.append(held)
    return out


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_what_is_taken_back_to_the_last_leaves_exactly_zero(n, dtype, backend):
    """1 - 1/2 - 1/3 - 1/6 = 0 in fractions; 5e-17 in floating point if nobody looks."""
    random = np.random.default_rng(n)
    inputs = np.zeros((24, 300), dtype=int)
    inputs[:3] = random.integers(0, 9, (3, 300))
    x = torch.from_numpy(inputs).to(dtype) / 4
    found, _, _ = fast.track(x, Levels.largest(1.0, n), kind="relu", backend=backend)
    want = [exactly([Fraction(int(v), 4) for v in column], Fraction(1), n) for column in inputs.T]
    zero = torch.tensor([[value == 0 for value in column] for column in want]).T
    assert 20 < zero[-1].sum() < 300
    assert torch.equal(found == 0, zero)
    exact = torch.tensor([[float(value) for value in column] for column in want], dtype=dtype).T
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)
