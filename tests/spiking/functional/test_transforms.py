"""Fused neurons under torch.func, torch.compile, torch.export and the checks for custom operators."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import spiking
from spiking import functional, kernels, reference, surrogate
from spiking.kernels.launch import Launch
from spiking.kernels.operands import Operands
from spiking.kernels.rules import multi_threshold as levelled
from spiking.kernels.rules import neurons as rules

pytestmark = pytest.mark.skipif(not kernels.HAS_LLVM, reason="llvmlite is not installed")

ATAN = surrogate.ATan()
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def drive(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.0 + 0.8


def coefficients(steps, channels):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(5, channels, generator=generator) * 0.4 + 0.3, torch.rand(
        steps, channels, generator=generator
    ) + 0.5


# ---------------------------------------------------------------- torch.func


def test_grad_and_vmap_of_grad():
    x, w = drive(4, 6, 20), drive(6, 20, seed=1)

    def loss(module):
        return lambda x, w: (module.lif(x, surrogate=ATAN)[0].mean(0) * w).sum()

    torch.testing.assert_close(
        torch.func.grad(loss(functional))(x, w), torch.func.grad(loss(reference))(x, w), **CLOSE
    )
    one_by_one = torch.stack([torch.func.grad(loss(reference))(x[:, i], w[i]) for i in range(6)])
    mapped = torch.func.vmap(torch.func.grad(loss(functional)), in_dims=(1, 0))(x, w)
    torch.testing.assert_close(mapped, one_by_one, **CLOSE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vmap_over_any_axis(axis):
    x, v = drive(4, 5, 6), drive(5, 6, seed=2).abs()
    mapped = x.movedim(1, axis)
    spikes, ends = torch.func.vmap(functional.lif, in_dims=(axis, 0), out_dims=(1, 0))(mapped, v)
    want, want_ends = reference.lif(x, v)
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(ends, want_ends, rtol=0, atol=0)


def test_vmap_over_currents_with_one_state_for_all():
    x, v = drive(4, 5, 6), drive(6, seed=2).abs()
    spikes, ends = torch.func.vmap(functional.lif, in_dims=(1, None), out_dims=(1, 0))(x, v)
    want, want_ends = reference.lif(x, v.expand(5, 6))
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(ends, want_ends, rtol=0, atol=0)


def test_vmap_of_a_neuron_with_arrays_of_parameters():
    x = drive(4, 3, 2, 5, 7)
    arrays = coefficients(4, 5)
    mapped = torch.func.vmap(lambda x: functional.glif(x, *arrays)[0], in_dims=1, out_dims=1)(x)
    for i in range(3):
        assert torch.equal(mapped[:, i], reference.glif(x[:, i], *arrays)[0])


def test_per_sample_gradients_of_a_network():
    net = nn.Sequential(nn.Linear(6, 8), spiking.LIF(surrogate=ATAN), nn.Linear(8, 2))
    x = drive(4, 3, 6)  # [T, B, F]
    names = dict(net.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(net, parameters, (sample,)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(names, x)
    for i in range(3):
        want = torch.func.grad(loss)(names, x[:, i])
        for name in names:
            torch.testing.assert_close(found[name][i], want[name], **CLOSE)


def test_gradients_of_learnt_parameters_under_grad():
    x, w = drive(4, 3, 6), torch.tensor(0.3)
    ours = torch.func.grad(lambda w: functional.plif(x, w, surrogate=ATAN)[0].sum())(w)
    want = torch.func.grad(lambda w: reference.plif(x, w, surrogate=ATAN)[0].sum())(w)
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_mapped_is_refused_by_name():
    x, w = drive(4, 3, 6), torch.rand(3)
    with pytest.raises(RuntimeError, match=r"mapping over neuron parameters needs backend='reference'"):
        torch.func.vmap(lambda x, w: functional.plif(x, w)[0], in_dims=(1, 0))(x, w)
    with pytest.raises(RuntimeError, match=r"per-sample gradients of learnt .* backend='reference'"):
        torch.func.vmap(torch.func.grad(lambda w, x: functional.plif(x, w)[0].sum()), in_dims=(None, 1))(
            w[0], x
        )
    torch.func.vmap(lambda x, w: functional.plif(x, w, backend="reference")[0], in_dims=(1, 0))(x, w)


# ---------------------------------------------------------------- second derivatives


def test_second_derivatives_are_refused_not_zero():
    x = drive(4, 3, 6).requires_grad_()
    spikes, _ = functional.lif(x, surrogate=ATAN)
    (g,) = torch.autograd.grad((spikes * spikes).sum(), x, create_graph=True)
    assert g.requires_grad
    with pytest.raises(RuntimeError, match=r"no second derivative; pass backend='reference'"):
        g.sum().backward()


def test_create_graph_gives_the_first_derivative():
    x = drive(4, 3, 6).requires_grad_()
    plain = torch.autograd.grad(functional.lif(x, surrogate=ATAN)[0].sum(), x)[0]
    graph = torch.autograd.grad(functional.lif(x, surrogate=ATAN)[0].sum(), x, create_graph=True)[0]
    assert torch.equal(plain, graph)


# ---------------------------------------------------------------- the custom operators

LIF = rules.Leaky(ATAN, leak="multiply")
PLIF = rules.Leaky(ATAN, leak="multiply", learn_rate=True)
KLIF = rules.Leaky(ATAN, leak="multiply", gain=True)
PARAMS = {"theta": 1.0, "v_reset": 0.0, "tau": 2.0, "rate": 0.5, "k": 1.0}
LMH_TABLE = torch.tensor([0.1, -0.2, 0.9, 1.1, 0.7])
LMHT = rules.LMHT(levels=2, steps_in=3, steps=2)
LMHT_TABLE = torch.tensor([0.5, 0.25, 1.1, 0.8, 0.3, 0.2, 0.4, 0.5, 0.1, 0.3])  # theta, start, leak, matrix


def case(x, rule, params=PARAMS, keep=True, **operands):
    """Currents, the other tensors, and what to run."""
    return x, Operands(**operands), Launch(rule, "cpu", keep, params)


def operator_cases():
    x = drive(3, 2, 4, 5)
    last = drive(6, 4, 3, 5).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    v = drive(2, 4, 5, seed=1)
    arrays = [a.repeat_interleave(5, 1) for a in coefficients(3, 4)]
    glif = {"coefficients": arrays[0], "conductance": arrays[1]}
    dynamic = {"theta": 0.5, "v_reset": 0.021, "jump": 0.132, "pull": 0.172, "growth": 0.529}
    clif = {"theta": 1.0, "tau": 2.0, "keep": 0.5}
    return {
        "lif": case(x, LIF),
        "no state": case(x, LIF, keep=False),
        "start": case(x, LIF, v=v),
        "channels last": case(last, LIF),
        "still": case(v.expand(3, *v.shape), LIF),
        "bf16": case(x.bfloat16(), LIF),
        "plif": case(x, PLIF, v=v, rate=torch.tensor(0.4)),
        "klif": case(x, KLIF, v=v, k=torch.tensor(1.2)),
        "clif": case(x, rules.Complementary(ATAN), clif, v=v, m=v.abs()),
        "dynamic": case(x, rules.Dynamic(ATAN), dynamic, v=v, m=v.abs()),
        "glif": case(x, rules.Gated(ATAN), {}, **glif),
        "lmh": case(x, rules.Compartments(ATAN), {}, v=v, table=LMH_TABLE),
        "lmht": case(x, LMHT, {}, keep=False, table=LMHT_TABLE),
        "lmht channels last": case(last, LMHT, {}, keep=False, table=LMHT_TABLE),
    }


def plain_types(ops, launch):
    """A launch as the operators take it."""
    params = [launch.params.get(name, 0.0) for name in launch.rule.names] or [0.0]
    return ops.serialise(launch.rule), launch.engine, params


EVERY_RULE = [
    *(launch.rule for _, _, launch in operator_cases().values()),
    rules.Leaky(surrogate.S2NN(2.5, 0.1), leak="none", decay_input=False, hard=False, detach=True),
    rules.Leaky(surrogate.PiecewiseLeakyReLU(1e-3, 0.25), gain=True, scale_reset=True),
    levelled.RateCoded(n=5, kind="relu", fires="offset", two_sided=True, shared=False),
    levelled.Tracking(code="rate", emit="spikes", fires="single", n=1),
]


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_a_rule_survives_its_way_through_the_operator(rule):
    from spiking.kernels import ops

    text = ops.serialise(rule)
    assert ops.deserialise(text) == rule
    assert hash(ops.deserialise(text)) == hash(rule)


def test_nothing_but_a_rule_is_read():
    from spiking.kernels import ops

    for text in ("__import__('os')", "Leaky(surrogate=open('x'))", "Sigmoid(spiking=True, alpha=4.0)"):
        with pytest.raises((KeyError, AssertionError)):
            ops.deserialise(text)


@pytest.mark.parametrize("name", operator_cases())
def test_opcheck(name):
    from spiking.kernels import ops

    x, operands, launch = operator_cases()[name]
    rule, engine, params = plain_types(ops, launch)
    args = (x, *operands, rule, engine, params, launch.keep)
    torch.library.opcheck(ops.neuron_op, args)
    leaves = tuple(a.detach().clone().requires_grad_() if torch.is_tensor(a) else a for a in args)
    leaves = (args[0].detach().requires_grad_(), *leaves[1:])  # keeps the layout
    torch.library.opcheck(ops.neuron_op, leaves)
    g = drive(*x.shape, seed=4).to(x.dtype)
    ends = [drive(*x.shape[1:], seed=k) if launch.keep else None for k in (5, 6)]
    if not any(two in name for two in ("clif", "dynamic", "glif", "lmh")):
        ends[1] = None
    g = g[:2] if "lmht" in name else g  # three steps in, two out
    torch.library.opcheck(ops.neuron_backward_op, (x, *operands, g, *ends, rule, engine, params))


@pytest.mark.parametrize("name", operator_cases())
def test_operator_equals_eager(name):
    from spiking.kernels import ops

    x, operands, launch = operator_cases()[name]
    results = []
    for call in (operator, eager):
        leaf = x.detach().requires_grad_()
        own = Operands(*(None if t is None else t.detach().clone().requires_grad_() for t in operands))
        out = call(ops, leaf, own, launch)
        loss = sum((o.float() * (k + 1)).sum() for k, o in enumerate(out))
        leaves = [leaf, *(o for o in own if o is not None)]
        results.append([*out, *torch.autograd.grad(loss, leaves)])
    for a, b in zip(*results, strict=True):
        assert a.stride() == b.stride()
        assert torch.equal(a, b)


def operator(ops, x, operands, launch):
    return ops.neuron_op(x, *operands, *plain_types(ops, launch), launch.keep)


def eager(ops, x, operands, launch):
    spikes, ends = ops.neuron(x, operands, launch)
    return [spikes, *ends]


def test_meta_tensors_have_shapes_only():
    with torch.device("meta"):
        spikes, v = functional.lif(torch.empty(4, 2, 3))
    assert spikes.is_meta
    assert spikes.shape == (4, 2, 3)
    assert v.shape == (2, 3)


def test_fake_tensors_go_through_the_operator():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        spikes, v = functional.lif(torch.empty(4, 2, 3))
    assert spikes.shape == (4, 2, 3)
    assert v.shape == (2, 3)


# ---------------------------------------------------------------- torch.compile and torch.export


def small_net(neuron):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), neuron, nn.Linear(8, 8), spiking.PLIF(surrogate=ATAN))


NEURONS = {
    "if": lambda: spiking.IF(surrogate=ATAN),
    "lif": lambda: spiking.LIF(tau=3.0, surrogate=ATAN),
    "soft": lambda: spiking.LIF(v_reset=None, detach_reset=True),
    "plif": lambda: spiking.PLIF(),
    "klif": lambda: spiking.KLIF(),
    "clif": lambda: spiking.CLIF(),
    "glif": lambda: spiking.GLIF(time_steps=4, channels=8),
    "lmh": lambda: spiking.LMH(),
    "lmht": lambda: spiking.LMHT(time_steps=4, levels=3),
}


@pytest.mark.compile
@pytest.mark.parametrize("name", NEURONS)
def test_compiled_in_one_graph(name):
    torch._dynamo.reset()
    net = small_net(NEURONS[name]())
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=False)
    x = drive(4, 3, 6)
    results = []
    for f in (net, compiled):
        net.zero_grad()
        out = f(x)
        (out * drive(*out.shape, seed=3)).sum().backward()
        results.append([out, *(p.grad.clone() for p in net.parameters())])
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.compile
def test_compiled_once_for_any_batch():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    net = small_net(spiking.LIF(surrogate=ATAN))
    compiled = torch.compile(net, fullgraph=True, backend=counter, dynamic=True)
    compiled(drive(4, 3, 6))
    once = counter.frame_count
    for batch in (5, 8):
        x = drive(4, batch, 6)
        assert torch.equal(compiled(x), net(x))
    assert counter.frame_count == once > 0


@pytest.mark.compile
def test_parameters_of_channels_compile_for_maps_of_any_size():
    torch._dynamo.reset()
    net = spiking.GLIF(time_steps=2, channels=3)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch, side in ((4, 5), (3, 7)):
        x = drive(2, batch, 3, side, side)
        assert torch.equal(compiled(x), net(x))


@pytest.mark.slow
@pytest.mark.compile
def test_compiled_by_inductor():
    """Needs a C++ compiler, which inductor asks for; the kernels themselves do not."""
    torch._dynamo.reset()
    net = nn.Sequential(nn.Linear(6, 8), spiking.LIF(surrogate=ATAN), nn.Linear(8, 2))
    x = drive(4, 3, 6)
    try:
        out = torch.compile(net, fullgraph=True)(x)
        out.sum().backward()
    except torch._inductor.exc.InductorError as error:
        pytest.skip(f"no compiler for inductor: {error}")
    torch.testing.assert_close(out, net(x), **CLOSE)
    got = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(x).sum().backward()
    for a, b in zip(got, net.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, **CLOSE)


@pytest.mark.export
@pytest.mark.parametrize("name", NEURONS)
def test_exported_without_custom_operators(name):
    """An exported program must run where this package is not installed."""
    net = small_net(NEURONS[name]()).eval()
    x = drive(4, 3, 6)
    program = torch.export.export(net, (x,))
    assert "fulgurite" not in str(program.graph)
    torch.testing.assert_close(program.module()(x), net(x), **CLOSE)


@pytest.mark.parametrize("mode", [False, True])
def test_autocast_leaves_the_state_in_float32(mode):
    x = drive(4, 3, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=mode):
        spikes, v = functional.lif(x)
    assert spikes.dtype is torch.bfloat16
    assert v.dtype is torch.float32


def test_deepcopy_and_pickle_between_forward_and_backward(tmp_path):
    import copy

    net = small_net(spiking.LIF(surrogate=ATAN))
    out = net(drive(4, 3, 6))
    twin = copy.deepcopy(net)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    out.sum().backward()
    twin.load_state_dict(torch.load(tmp_path / "net.pt"))
    assert torch.equal(twin(drive(4, 3, 6)), out)


def test_checkpointing_gives_the_same_gradients():
    from torch.utils.checkpoint import checkpoint

    x = drive(4, 3, 6).requires_grad_()
    net = small_net(spiking.LIF(surrogate=ATAN))
    (want,) = torch.autograd.grad(net(x).sum(), x)
    (found,) = torch.autograd.grad(checkpoint(net, x, use_reentrant=False).sum(), x)
    assert torch.equal(found, want)
