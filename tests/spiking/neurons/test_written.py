"""Neurons whose step a user writes: kernels made of these lines, against the lines themselves."""

import copy
import pickle
import warnings
from typing import ClassVar

import pytest
import torch
from torch import nn

import spiking
from spiking import normed


class Plain(spiking.StepNeuron):
    """LIF with a hard reset, as `spiking.LIF`."""

    def __init__(self, tau=2.0, v_reset=0.0, **arguments):
        super().__init__(**arguments)
        self.tau, self.v_reset = tau, v_reset
        self.rest = {"v": v_reset}

    def dynamics(self, x, v):
        h = v + (x - (v - self.v_reset)) / self.tau
        s = self.fire(h - self.v_threshold)
        return s, (1.0 - s) * h + s * self.v_reset


class Complementary(spiking.StepNeuron):
    """CLIF, as `spiking.CLIF`."""

    state_names = ("v", "m")
    tau = 2.0

    def dynamics(self, x, v, m):
        h = v * (1.0 - 1.0 / self.tau) + x
        s = self.fire(h - self.v_threshold)
        m = m * torch.sigmoid(h / self.tau) + s
        return s, h - s * (self.v_threshold + torch.sigmoid(m)), m


class Adaptive(spiking.StepNeuron):
    """A threshold that rises with every spike; both rates are learnt."""

    state_names = ("v", "a")
    rest: ClassVar = {"a": 0.1}

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.decay, self.rise = nn.Parameter(torch.tensor(0.8)), nn.Parameter(torch.tensor([0.3]))

    def dynamics(self, x, v, a):
        h = self.decay * v + x
        s = self.fire(h - (self.v_threshold + a))
        return s, h - (s * self.v_threshold).detach(), a * 0.9 + self.rise * s


class Rich(spiking.StepNeuron):
    """All that a kernel can hold, ties included: states start equal, and x has zeros."""

    state_names = ("v", "u")

    def dynamics(self, x, v, u):
        h = torch.maximum(v, u) * 0.5 + torch.minimum(x, u + 1.0) + 0.1 * x**2 - 0.01 * torch.square(v) * v**3
        h = torch.clamp(h, -2.0, max=3.0) + torch.relu(x) * 0.3 + 1.0 / (2.0 + torch.abs(x))
        s = self.fire(h - self.v_threshold)
        inside = (h > 0.1) & (h < 2.0) | (x >= 0.9)
        u = torch.where(inside, torch.tanh(u + x), torch.exp(-u.abs())) + (h <= 0.5) * 0.2
        return s * 2.0, torch.where(s > 0.0, torch.zeros_like(h), h), -u + inside.float() + s.detach() * 0.1


MADE = {"plain": Plain, "complementary": Complementary, "adaptive": Adaptive, "rich": Rich}


def currents(*shape, seed=0, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.5
    return (x * (x.abs() > 0.3)).to(dtype)


def passed(neuron, x, state=None, **weights):
    """Spikes, states and all gradients of one pass."""
    x = x.clone().requires_grad_()
    state = None if state is None else tuple(s.clone().requires_grad_() for s in state)
    spikes, ends = neuron.run(x, state, keep_state=True)
    loss = sum(
        (y.double() * torch.randn(y.shape, generator=torch.Generator().manual_seed(k)).double()).sum()
        for k, y in enumerate((spikes, *ends))
    )
    return spikes, ends, torch.autograd.grad(loss, (x, *(state or ()), *neuron.parameters()))


@pytest.mark.parametrize("shape", [(5, 3, 7, 4, 6), (16, 1, 67), (1, 2, 50), (4, 2, 3000)], ids=str)
@pytest.mark.parametrize("name", MADE)
def test_kernels_equal_the_lines(name, shape):
    fast, slow = (MADE[name](surrogate="atan", backend=backend) for backend in ("cpu", "reference"))
    x = currents(*shape)
    for state in (None, tuple(currents(*shape[1:], seed=k) for k in range(1, 1 + len(fast.state_names)))):
        spikes, ends, grads = passed(fast, x, state)
        assert type(spikes.grad_fn).__name__ == "EagerBackward"
        want, want_ends, _ = passed(slow, x, state)
        assert 0 < want.mean() < 2
        torch.testing.assert_close(spikes, want, rtol=0, atol=0)
        torch.testing.assert_close(ends, want_ends, rtol=1e-5, atol=1e-6)
        double = copy.deepcopy(slow).double()
        twin, _, exact = passed(
            double, x.double(), None if state is None else tuple(s.double() for s in state)
        )
        if torch.equal(twin.float(), want):  # else a potential lies at the threshold
            for grad, other in zip(grads, exact, strict=True):
                scale = other.abs().max().clamp_min(1.0).item()
                torch.testing.assert_close(grad.double(), other, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize(
    ("own", "ours"),
    [
        (Plain(tau=3.0), spiking.LIF(tau=3.0)),
        (Plain(v_reset=-0.3), spiking.LIF(v_reset=-0.3)),
        (Complementary(surrogate="rect"), spiking.CLIF()),
    ],
    ids=["lif", "lif with a reset", "clif"],
)
def test_equals_the_neuron_of_this_package(own, ours):
    x = currents(6, 3, 5, 50)
    spikes, _, (grad, *_) = passed(own, x)
    leaf = x.clone().requires_grad_()
    want, ends = ours.run(leaf, None, keep_state=True)
    assert torch.equal(spikes, want)
    found = (want, *(ends if isinstance(ends, tuple) else (ends,)))
    loss = sum(
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(k))).sum()
        for k, y in enumerate(found)
    )
    torch.testing.assert_close(grad, torch.autograd.grad(loss, leaf)[0], rtol=1e-4, atol=1e-5)


def test_no_more_is_kept_than_by_hand():
    """The rule of LIF keeps its potential, that of CLIF its two; see `spiking.kernels.rules.neurons`."""
    for neuron, by_hand in ((Plain(), spiking.LIF()), (Complementary(), spiking.CLIF())):
        rules = [one.kernel(currents(2, 2, 3))[1].rule for one in (neuron, by_hand)]
        assert rules[0].n_saved == rules[1].n_saved


@pytest.mark.parametrize("seed", range(8))
def test_random_steps(seed):
    """Programs made of random operations: their gradients against autograd's."""
    import random

    dice = random.Random(seed)
    two = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, torch.maximum, torch.minimum]
    two += [lambda a, b: a / (1.5 + torch.abs(b)), lambda a, b: torch.where(a > b, a, b * 0.5)]
    one = [torch.sigmoid, torch.tanh, torch.relu, torch.abs, lambda a: torch.exp(-torch.abs(a)), lambda a: -a]
    one += [lambda a: a**2, lambda a: a.clamp(-1.0, 1.0), lambda a: a * 0.7 + 0.3, lambda a: a.detach()]
    plan = [(dice.choice(two), dice.choice(one), dice.random(), dice.random()) for _ in range(9)]

    class Random(spiking.StepNeuron):
        state_names = ("v", "u")

        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.gain = nn.Parameter(torch.tensor(0.6))

        def dynamics(self, x, v, u):
            known = [x, v, u, self.gain * x + v]
            for join, bend, i, j in plan:
                known.append(torch.tanh(bend(join(known[int(i * len(known))], known[int(j * len(known))]))))
            s = self.fire(known[-1] + known[-2] + known[3] - self.v_threshold)
            return s, known[-3] - 0.2 * s, known[-4] + 0.3 * known[-5]

    x = currents(4, 2, 40, seed=seed)
    smooth = spiking.get_surrogate("sigmoid", alpha=2.0)
    spikes, _, grads = passed(Random(surrogate=smooth, backend="cpu"), x)
    want, _, exact = passed(Random(surrogate=smooth, backend="reference").double(), x.double())
    assert torch.equal(spikes.double(), want)
    for grad, other in zip(grads, exact, strict=True):
        torch.testing.assert_close(grad.double(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    x = currents(4, 2, 300, dtype=dtype)
    fast, slow = (Complementary(backend=backend)(x) for backend in ("auto", "reference"))
    assert fast.dtype is dtype
    assert torch.equal(fast, slow)


def test_channels_last_and_strided_currents():
    x = currents(4, 2, 5, 6, 7)
    want = Complementary()(x)
    for other in (x.transpose(2, 4).contiguous().transpose(2, 4), x.repeat_interleave(2, 1)[:, ::2]):
        assert torch.equal(Complementary()(other), want)


def test_streaming_and_steps_go_on():
    neuron, x = Adaptive().eval(), currents(6, 2, 9)
    whole = neuron(x)
    with spiking.streaming(neuron):
        parts = [neuron(part) for part in x.split(2)]
    state, steps = None, []
    for one in x:
        spikes, state = neuron.step(one, state)
        steps.append(spikes)
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(torch.stack(steps), whole)
    assert [tuple(s.shape) for s in state] == [(2, 9), (2, 9)]


def test_a_norm_in_front_is_fused():
    norm, x = nn.BatchNorm2d(3), currents(4, 2, 3, 5, 5).requires_grad_()
    fused = normed.norm_fire(norm, Complementary(), x)
    assert type(fused.grad_fn).__name__ == "_FireBackward"
    y = nn.BatchNorm2d(3)(x.flatten(0, 1)).unflatten(0, (4, 2))
    assert torch.equal(fused, Complementary()(y))
    learnt = normed.norm_fire(norm, Adaptive(), x)  # kernels of norms take no table of learnt numbers
    assert torch.equal(learnt, Adaptive()(y))


def test_attributes_count_as_they_are_now():
    neuron, x = Plain(), currents(5, 2, 30)
    for tau in (2.0, 5.0, 3.0):
        neuron.tau = tau
        assert torch.equal(neuron(x), Plain(tau=tau, backend="reference")(x))
    adaptive = Adaptive()
    before = adaptive(x)
    with torch.no_grad():
        adaptive.decay.fill_(0.3)
    assert not torch.equal(adaptive(x), before)


def test_training_may_count():
    class Loud(Plain):
        def dynamics(self, x, v):
            return super().dynamics(x * 2.0 if self.training else x, v)

    x, neuron = currents(4, 2, 30), Loud()
    assert torch.equal(neuron(x), Plain()(x * 2.0))
    assert torch.equal(neuron.eval()(x), Plain()(x))


class Counted(spiking.StepNeuron):
    """Keeps what it has seen, which no kernel knows."""

    def dynamics(self, x, v):
        h = v + x + self.offset
        return self.fire(h - self.v_threshold), h * 0.5

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.register_buffer("offset", torch.tensor([0.1, 0.2, 0.3]))


class Branching(Counted):
    def dynamics(self, x, v):
        return self.fire(x + v), (v if x.sum() > 0 else x)


class Deciding(Counted):
    def dynamics(self, x, v):
        return self.fire(x + v), (v if x > 0 else x)


class Trigonometric(Counted):
    def dynamics(self, x, v):
        return self.fire(torch.sin(x) + v), v * 0.5 + x


class Triple(spiking.StepNeuron):
    state_names = ("a", "b", "c")

    def dynamics(self, x, a, b, c):
        return self.fire(x + a - 0.5), a * 0.5 + x, a + b, b - c


class PerChannel(spiking.StepNeuron):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.gain = nn.Parameter(torch.rand(3))

    def dynamics(self, x, v):
        h = self.gain * v + x
        return self.fire(h - 1.0), h


class Infinite(spiking.StepNeuron):
    def dynamics(self, x, v):
        return self.fire(x), torch.clamp(v + x, max=float("inf"))


REFUSED = [
    (Counted, "computes with a tensor that is no learnt number"),
    (Branching, r"uses \.sum of a tensor"),
    (Trigonometric, "calls torch's sin"),
    (Triple, "has 3 states; kernels carry 1 or 2"),
    (PerChannel, "computes with a tensor"),
    (Infinite, "computes with the number inf"),
]


@pytest.mark.parametrize(("cls", "reason"), REFUSED, ids=[cls.__name__ for cls, _ in REFUSED])
def test_what_kernels_cannot_hold_runs_line_by_line(cls, reason):
    x = currents(4, 2, 3)
    with pytest.raises(ValueError, match=f"backend 'cpu' cannot run {cls.__name__}.dynamics: it {reason}"):
        cls(backend="cpu")(x)
    torch.manual_seed(0)
    quiet = cls(backend="reference")
    loud = cls()
    loud.load_state_dict(quiet.state_dict())
    with pytest.warns(RuntimeWarning, match=f"step by step in plain PyTorch, since it {reason}"):
        spikes = loud(x)
    assert torch.equal(spikes, quiet(x))
    with warnings.catch_warnings():  # and it is said once
        warnings.simplefilter("error")
        loud(x)


def test_deciding_by_values_is_explained():
    with pytest.raises(ValueError, match=r"differ between neurons; torch\.where does that"):
        Deciding(backend="cpu")(currents(4, 2, 3))


class Forgetful(spiking.StepNeuron):
    state_names = ("v", "m")

    def dynamics(self, x, v, m):
        return self.fire(x + v), v


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_missing_state_is_named(backend):
    with pytest.raises(ValueError, match=r"Forgetful.dynamics must give 3 values, spikes and v, m, got 2"):
        Forgetful(backend=backend)(currents(4, 2, 3))
    with pytest.raises(NotImplementedError, match=r"must write dynamics\(self, x, \*states\)"):
        spiking.StepNeuron(backend=backend)(currents(4, 2, 3))


def test_double_precision_and_second_derivatives_run_the_lines():
    smooth = spiking.get_surrogate("sigmoid", spiking=False)
    neuron = Complementary(surrogate=smooth)
    x = currents(3, 1, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(neuron, x)
    assert torch.autograd.gradgradcheck(neuron, x)


def test_copies_pickles_and_programs():
    neuron, x = Adaptive(), currents(4, 2, 9)
    want = neuron(x)
    assert torch.equal(copy.deepcopy(neuron)(x), want)
    assert torch.equal(pickle.loads(pickle.dumps(neuron))(x), want)
    compiled = torch.compile(neuron, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), want)
    torch.compiler.reset()  # else shapes of other tests count as dynamic
    program = torch.export.export(neuron, (x,))
    assert torch.equal(program.module()(x), want)


def test_a_network_of_them_learns():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), Adaptive(surrogate="atan"), nn.Linear(16, 2))
    x = torch.randn(64, 4)
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(x.expand(4, 64, 4)).mean(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    assert net[1].decay != 0.8
