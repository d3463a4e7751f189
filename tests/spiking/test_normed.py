"""A norm and the neuron behind it as one kernel, against the two modules one after the other."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import spiking
from spiking import layers, normed

SHAPES = {
    "odd": (4, 3, 5, 7, 9),
    "one step": (1, 2, 16, 8, 8),
    "sixteen steps, one sample": (16, 1, 3, 5, 5),
    "vectors": (5, 4, 17, 1, 1),
    "long rows": (3, 1, 2, 50, 50),
    "many blocks": (2, 24, 3, 20, 20),
}
NEURONS = {
    "if": {},
    "lif": {},
    "lif soft": {"v_reset": None, "detach_reset": True, "decay_input": False},
    "lif by division": {"tau": 3.0, "v_reset": -0.2},
    "plif": {},
    "klif": {"scale_reset": True},
    "clif": {"surrogate": "atan"},
}


def two_modules(norm, neuron, x, repeats=1):
    y = layers.norm_repeated(norm, x.flatten(0, 1), repeats).reshape(x.shape)
    return neuron(y.expand(x.shape[0] * repeats, *x.shape[1:]))


def modules(channels, label="lif", seed=0, **settings):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(channels, **settings)
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        if tensor is not None:
            nn.init.normal_(tensor, 0.7, 0.3)
    if norm.running_var is not None:
        nn.init.uniform_(norm.running_var, 0.5, 3.0)
    return norm, spiking.get_neuron(label.split()[0], **{"surrogate": "atan", **NEURONS[label]})


def numbers(*shape, last=False, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3.0 + 1.0
    if not last:
        return x
    return x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, shape[:2])


def ran_as_one(spikes):
    return type(spikes.grad_fn).__name__ == "_FireBackward"


def results(run, norm, neuron, x, repeats=1):
    """Spikes, gradients and buffers of one pass on copies of the modules."""
    norm, neuron = copy.deepcopy(norm).to(x.dtype), copy.deepcopy(neuron).to(x.dtype)
    x = x.detach().clone().requires_grad_()
    spikes = run(norm, neuron, x, repeats)
    weight = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    leaves = [x, *norm.parameters(), *neuron.parameters()]
    return spikes, torch.autograd.grad((spikes * weight).sum(), leaves), list(norm.buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("label", NEURONS)
def test_equals_the_two_modules_in_double_precision(label, shape, last, training):
    norm, neuron = modules(shape[2], label)
    norm.train(training)
    for steps, repeats in ((shape[0], 1), (1, shape[0])):  # a sequence, and one step for all
        x = numbers(steps, *shape[1:], last=last)
        if label not in ("lif", "plif") and last != (repeats > 1):
            continue  # kernels of the other neurons differ in nothing that the layout touches
        if training and repeats > 1 and x.numel() // shape[2] < 8:
            continue  # of a few numbers the normalised ones hardly depend on any
        spikes, grads, buffers = results(normed.norm_fire, norm, neuron, x, repeats)
        assert ran_as_one(spikes)
        want, want_grads, want_buffers = results(two_modules, norm, neuron, x.double(), repeats)
        assert 0 < want.mean() < 1, "the case must have both spikes and silence"
        assert spikes.shape == want.shape
        torch.testing.assert_close(spikes.double(), want, rtol=0, atol=0)
        for grad, other in zip(grads, want_grads, strict=True):
            scale = other.abs().max().clamp_min(1.0).item()
            torch.testing.assert_close(grad.double(), other, rtol=1e-4, atol=3e-6 * scale)
        for one, other in zip(buffers, want_buffers, strict=True):
            torch.testing.assert_close(one.to(other.dtype), other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": None},
        {"momentum": 0.5, "eps": 1e-2},
        {"affine": False},
        {"track_running_stats": False},
    ],
    ids=str,
)
def test_settings_of_the_norm(settings):
    norm, neuron = modules(6, **settings)
    for training, seed in ((True, 0), (True, 1), (False, 2)):
        norm.train(training)
        x, found = numbers(4, 2, 6, 5, 5, seed=seed), []
        for run in (normed.norm_fire, two_modules):
            own = copy.deepcopy(norm)
            given = x.clone().requires_grad_()
            spikes = run(own, neuron, given)
            assert ran_as_one(spikes) == (run is normed.norm_fire)
            found.append((spikes, own))
        (spikes, own), (want, other) = found
        torch.testing.assert_close(spikes, want, rtol=0, atol=0)
        torch.testing.assert_close(own.state_dict(), other.state_dict(), rtol=1e-6, atol=1e-6)
        norm = own


def test_repeats_count_in_the_running_variance():
    x = numbers(1, 2, 3, 2, 2)
    once, several = (modules(3)[0] for _ in range(2))
    normed.norm_fire(once, spiking.LIF(), x, repeats=4)
    normed.norm_fire(several, spiking.LIF(), x.repeat(4, 1, 1, 1, 1))
    torch.testing.assert_close(once.state_dict(), several.state_dict())


def test_statistics_far_from_zero():
    """One pass over the numbers, and no cancellation: 16,384 with mean 10,000 and deviation 1."""
    from spiking.kernels.cpu.norm import statistics
    from spiking.kernels.cpu.view import View

    for last in (False, True):
        x = numbers(1, 64, 5, 16, 16, last=last)[0] / 3.0 + 1e4
        mean, var = statistics(x, View.of(x))
        exact = x.double()
        torch.testing.assert_close(mean, exact.mean((0, 2, 3)), rtol=1e-8, atol=0)
        torch.testing.assert_close(var, exact.var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


def test_evaluation_rounds_as_pytorch_does():
    for last in (False, True):
        norm, neuron = modules(16)
        norm.eval()
        x = numbers(4, 8, 16, 12, 12, last=last)
        with torch.no_grad():
            assert torch.equal(normed.norm_fire(norm, neuron, x), two_modules(norm, neuron, x))


POOLED = {
    "odd channels": (4, 3, 5, 6, 8),
    "part of a row": (2, 2, 64, 4, 40),
    "wide channels": (3, 2, 300, 4, 2),
    "sixteen steps, one sample": (16, 1, 24, 8, 4),
    "flushed now and then": (2, 24, 16, 16, 16),
}


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["avg", "max"])
@pytest.mark.parametrize("shape", POOLED.values(), ids=POOLED)
def test_pooling_equals_the_modules_in_double_precision(shape, pool):
    """Where several of a window are the largest, the first of them takes the gradient, as in PyTorch."""
    for label, training, repeated in (("plif", True, False), ("lif", True, True), ("if", False, False)):
        norm, neuron = modules(shape[2], label)
        norm.train(training)
        steps, repeats = (1, shape[0]) if repeated else (shape[0], 1)
        x = numbers(steps, *shape[1:], last=True)

        def as_one(norm, neuron, x, repeats):
            return normed.norm_fire(norm, neuron, x, repeats, pool)

        def one_by_one(norm, neuron, x, repeats):
            return layers.fold_time(pool, two_modules(norm, neuron, x, repeats))

        out, grads, buffers = results(as_one, norm, neuron, x, repeats)
        want, want_grads, want_buffers = results(one_by_one, norm, neuron, x.double(), repeats)
        assert ran_as_one(out)
        assert 0 < want.mean() < 1
        torch.testing.assert_close(out.double(), want, rtol=0, atol=0)
        for grad, other in zip(grads, want_grads, strict=True):
            scale = other.abs().max().clamp_min(1.0).item()
            torch.testing.assert_close(grad.double(), other, rtol=1e-4, atol=3e-6 * scale)
        torch.testing.assert_close([b.double() for b in buffers], [b.double() for b in want_buffers])


def test_poolings_of_other_kinds_and_places_follow_the_neuron():
    norm, neuron = modules(4)
    even, odd = numbers(2, 2, 4, 8, 8, last=True), numbers(2, 2, 4, 7, 8, last=True)
    watched = nn.AvgPool2d(2)
    watched.register_forward_hook(lambda m, i, out: None)
    cases = {
        "three by three": (nn.MaxPool2d(3, 2, 1), even),
        "overlapping": (nn.AvgPool2d(2, 1), even),
        "with a border": (nn.AvgPool2d(2, 2, 1), even),
        "another divisor": (nn.AvgPool2d(2, divisor_override=3), even),
        "apart": (nn.MaxPool2d(2, dilation=2), even),
        "odd side": (nn.AvgPool2d(2), odd),
        "odd side, rounded up": (nn.MaxPool2d(2, ceil_mode=True), odd),
        "adaptive": (nn.AdaptiveAvgPool2d(2), even),
        "channels outermost": (nn.AvgPool2d(2), even.contiguous()),
        "too many channels for a block": (nn.AvgPool2d(2), numbers(1, 2, 520, 4, 4, last=True)),
        "watched": (watched, even),
    }
    for label, (pool, x) in cases.items():
        norm, neuron = modules(x.shape[2])
        given = x.requires_grad_()
        out = normed.norm_fire(norm, neuron, given, pool=pool)
        assert not ran_as_one(out), label
        want = layers.fold_time(pool, normed.norm_fire(norm, neuron, given))
        torch.testing.assert_close(out, want, rtol=0, atol=0, msg=label)


@pytest.mark.parametrize("pool", [None, nn.AvgPool2d(2), nn.MaxPool2d(2)], ids=["none", "avg", "max"])
def test_keeps_the_numbers_and_what_belongs_to_channels(pool):
    norm, neuron = modules(32)
    x, kept = numbers(4, 2, 32, 16, 16, last=True).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        normed.norm_fire(norm, neuron, x, pool=pool)
    large = [t for t in kept if t.numel() > 32]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]


def test_threads_share_the_work():
    before = torch.get_num_threads()
    try:
        for last, pool in ((False, None), (True, None), (True, nn.MaxPool2d(2))):
            norm, neuron = modules(32, "plif")
            x, found = numbers(4, 8, 32, 12, 12, last=last), []
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found.append(results(partial(normed.norm_fire, pool=pool), norm, neuron, x))
            (one, grads, buffers), (two, other_grads, other_buffers) = found
            assert torch.equal(one, two)
            torch.testing.assert_close(grads, other_grads, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(buffers, other_buffers)
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- where the two modules run


class Other(nn.BatchNorm2d):
    """A norm of somebody else's."""

    def forward(self, x):
        return super().forward(x) * 2.0


class Double(spiking.LIF):
    """A neuron that runs otherwise than its kernel."""

    def run(self, x, state, keep_state):
        return super().run(x * 2.0, state, keep_state)


@pytest.mark.parametrize("watched", ["norm", "neuron"])
def test_hooks_are_called(watched):
    norm, neuron = modules(3)
    seen, module = [], {"norm": norm, "neuron": neuron}[watched]
    x = numbers(2, 2, 3, 4, 4).requires_grad_()
    handles = [
        module.register_forward_hook(lambda m, i, out: seen.append(out)),
        module.register_forward_pre_hook(lambda m, i: seen.append(i[0])),
        module.register_full_backward_hook(lambda m, gi, go: seen.append(go[0])),
    ]
    for handle in handles:
        spikes = normed.norm_fire(norm, neuron, x)
        assert not ran_as_one(spikes)
        spikes.sum().backward()
        assert seen
        seen.clear()
        handle.remove()
        # the three hooks vanish one by one; the last leaves none
    assert ran_as_one(normed.norm_fire(norm, neuron, x))


def test_what_the_kernel_does_not_know_runs_as_two():
    norm, neuron = modules(3)
    x = numbers(2, 2, 3, 4, 4).requires_grad_()
    other = Other(3)
    other.load_state_dict(norm.state_dict())
    cases = {
        "norm of another class": (other, neuron, x),
        "neuron of another class": (norm, Double(surrogate="atan"), x),
        "no kernel asked for": (norm, spiking.LIF(backend="reference"), x),
        "a neuron with parameters of its own for each channel": (
            norm,
            spiking.GLIF(time_steps=2, channels=3),
            x,
        ),
        "no neuron": (norm, nn.ReLU(), x),
        "strides": (norm, neuron, x.transpose(3, 4)[..., ::2]),
        "double precision": (copy.deepcopy(norm).double(), neuron, x.double()),
        "sync": (nn.SyncBatchNorm(3).eval(), neuron, x),
        "nothing": (nn.Identity(), neuron, x),
    }
    for label, (one, behind, given) in cases.items():
        spikes = normed.norm_fire(copy.deepcopy(one), behind, given)
        assert not ran_as_one(spikes), label
        want = two_modules(copy.deepcopy(one), behind, given)
        torch.testing.assert_close(spikes, want, rtol=0, atol=0, msg=label)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", [None, nn.MaxPool2d(2)], ids=["alone", "pooled"])
@pytest.mark.parametrize("last", [False, True])
def test_half_precision_is_float32_on_numbers_of_fewer_bits(dtype, pool, last):
    """As autocast has it: such numbers, and a norm in float32; results are rounded."""
    norm, neuron = modules(6)
    x = numbers(4, 3, 6, 8, 8, last=last).to(dtype)
    found = []
    for given in (x, x.float()):
        own, leaf = copy.deepcopy(norm), given.clone().requires_grad_()
        with torch.autocast("cpu", dtype):
            out = normed.norm_fire(own, neuron, leaf, pool=pool)
        assert out.dtype is given.dtype
        assert pool or ran_as_one(out)
        weight = numbers(*out.shape, seed=1).to(dtype)
        grads = torch.autograd.grad((out.float() * weight.float()).sum(), [leaf, *own.parameters()])
        found.append((out, *grads, own.running_mean, own.running_var))
    for one, other in zip(*found, strict=True):
        close = 0.0 if one is found[0][0] else 2e-2
        torch.testing.assert_close(one.float(), other, rtol=close, atol=close * other.abs().max().item())


def test_transforms_see_both():
    norm, neuron = modules(3)
    norm.eval()
    x = numbers(2, 2, 3, 4, 4)
    grad = torch.func.grad(lambda x: normed.norm_fire(norm, neuron, x).sum())(x)
    leaf = x.clone().requires_grad_()
    spikes = normed.norm_fire(norm, neuron, leaf)
    assert ran_as_one(spikes)
    torch.testing.assert_close(grad, torch.autograd.grad(spikes.sum(), leaf)[0])


def test_second_derivatives_are_refused_when_taken():
    for run in (normed.norm_fire, two_modules):
        norm, neuron = modules(3)
        x = numbers(2, 2, 3, 4, 4).requires_grad_()
        (grad,) = torch.autograd.grad(run(norm, neuron, x).sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            grad.sum().backward()


def test_compiled_programs_hold_two():
    norm, neuron = modules(3)
    x = numbers(2, 2, 3, 4, 4)
    run = torch.compile(lambda x: normed.norm_fire(norm, neuron, x), backend="eager", fullgraph=True)
    want = two_modules(copy.deepcopy(norm), neuron, x)
    torch.testing.assert_close(run(x), want, rtol=0, atol=0)


def test_streaming_goes_on_with_the_state():
    norm, neuron = modules(3)
    net = nn.ModuleList([norm, neuron]).eval()
    x = numbers(6, 2, 3, 4, 4)
    whole = normed.norm_fire(norm, neuron, x)
    with spiking.streaming(net):
        parts = [normed.norm_fire(norm, neuron, part) for part in x.split(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_norm_on_another_device_is_refused_as_by_the_norm():
    norm, neuron = modules(3)
    x = numbers(2, 2, 3, 4, 4)
    for tensors, name in ((norm._parameters, "weight"), (norm._buffers, "running_var")):
        here = tensors[name]
        tensors[name] = here.to("meta")  # one that is elsewhere is enough
        for run in (two_modules, normed.norm_fire):
            with pytest.raises(RuntimeError, match="meta"):
                run(norm, neuron, x)
        tensors[name] = here


def test_only_a_single_step_repeats():
    with pytest.raises(ValueError, match="2 steps and repeats = 3"):
        normed.norm_fire(*modules(3), numbers(2, 2, 3, 4, 4), repeats=3)


def test_one_number_a_channel_is_refused_as_by_pytorch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        normed.norm_fire(*modules(3), numbers(1, 1, 3, 1, 1))


@pytest.mark.parametrize("training", [True, False])
def test_norm_of_a_single_channels_last_map(training):
    """A view with one sample has strides that PyTorch's own norm misreads."""
    norm = modules(8)[0].train(training)
    found = []
    for last in (False, True):
        x = numbers(1, 1, 8, 4, 4, last=last).requires_grad_()
        y = layers.norm_repeated(norm, x.flatten(0, 1), 4)
        weight = numbers(1, 8, 4, 4, seed=3)
        found.append(torch.autograd.grad((y * y * weight).sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_labels():
    """Every neuron that has a kernel of its own is among the cases."""
    covered = {type(modules(3, label)[1]) for label in NEURONS}
    named = {spiking.neurons.find_neuron(name) for name in spiking.list_neurons()}
    assert {cls for cls in named if "kernel" in vars(cls)} == covered
