"""The fused CPU kernels against the step-by-step reference: same spikes, same gradients, nothing kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spiking import functional, kernels, reference, surrogate
from spiking.kernels.rules.surrogates import FORMULAS, has_formula

pytestmark = pytest.mark.skipif(not kernels.HAS_LLVM, reason="llvmlite is not installed")

ROOT = Path(__file__).resolve().parents[3]
ATAN = surrogate.ATan()
# Gradients are sums of T products in another order and with fused multiply-add: some units in the last place.
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def drive(shape, seed=0, dtype=torch.float32):
    """Currents around the threshold, so that about a third of all neurons fire."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 2.0 + 0.8).to(dtype)


def glif_arrays(steps, channels, seed=5):
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.rand(5, channels, generator=generator) * 0.4 + 0.3
    return coefficients, torch.rand(steps, channels, generator=generator) * 0.5 + 0.5


# name -> (learnt tensors for T steps of C channels, number of states, settings)
CASES = {
    "if hard": ("if_", (), 1, {}),
    "if soft detached": ("if_", (), 1, {"v_reset": None, "detach_reset": True}),
    "lif": ("lif", (), 1, {}),
    "lif tau 3": ("lif", (), 1, {"tau": 3.0, "v_reset": -0.2}),
    "lif soft": ("lif", (), 1, {"v_reset": None, "decay_input": False}),
    "lif soft detached tau 1.7": ("lif", (), 1, {"v_reset": None, "detach_reset": True, "tau": 1.7}),
    "lif threshold": ("lif", (), 1, {"v_threshold": 0.3, "detach_reset": True, "v_reset": 0.1}),
    "plif": ("plif", (0.4,), 1, {}),
    "plif soft": ("plif", (-0.3,), 1, {"v_reset": None, "decay_input": False, "detach_reset": True}),
    "klif": ("klif", (1.2,), 1, {}),
    "klif soft scaled": ("klif", (0.8,), 1, {"v_reset": None, "scale_reset": True, "tau": 3.0}),
    "klif scaled": ("klif", (1.3,), 1, {"scale_reset": True, "decay_input": False, "v_reset": 0.1}),
    "clif": ("clif", (), 2, {}),
    "clif tau 3": ("clif", (), 2, {"tau": 3.0, "v_threshold": 0.7}),
    "dynamic": ("dynamic", (), 2, {"dynamics": reference.Dynamics(), "v_threshold": 0.5}),
    "glif": ("glif", "arrays", 2, {}),
    "lmh": ("lmh", "table", 2, {}),
}


def run(module, name, x, states=(), slope=ATAN, **more):
    """Spikes, last states, and the learnt tensors that took part."""
    function, learnt, count, settings = CASES[name]
    if learnt == "arrays":
        learnt = glif_arrays(x.shape[0], x.shape[2])
    elif learnt == "table":
        learnt = [torch.tensor([0.1, -0.2, 0.9, 1.1, 0.7])]
    learnt = [torch.as_tensor(value).clone().requires_grad_() for value in learnt]
    states = states or (None,) * count
    spikes, ends = getattr(module, function)(x, *learnt, *states, surrogate=slope, **settings, **more)
    return spikes, (ends if isinstance(ends, tuple) else (ends,)), learnt


def both(name, x, states=(), slope=ATAN, seed=9, tolerance=None):
    """Run the kernel and the reference on equal leaves; compare everything that comes out."""
    found = []
    for module, more in ((functional, {"backend": "cpu"}), (reference, {})):
        leaf = x.detach().requires_grad_()  # shares memory, hence also the layout, with x
        own = [s.detach().clone().requires_grad_() for s in states]
        spikes, ends, learnt = run(module, name, leaf, own, slope, **more)
        generator = torch.Generator().manual_seed(seed)
        loss = (spikes.float() * torch.randn(x.shape, generator=generator)).sum()
        for end in ends:
            loss = loss + (end * torch.randn(end.shape, generator=generator)).sum()
        found.append((spikes, ends, torch.autograd.grad(loss, [leaf, *own, *learnt])))
    (spikes, ends, grads), (want, want_ends, want_grads) = found
    assert spikes.dtype is x.dtype
    assert 0 < want.float().mean() < 1, "the case must have both spikes and silence"
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    exact = "clif" not in name  # CLIF's sigmoid is our own exponential
    for end, other in zip(ends, want_ends, strict=True):
        torch.testing.assert_close(end, other, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)
    for i, (grad, other) in enumerate(zip(grads, want_grads, strict=True)):
        near = tolerance if tolerance and i == 0 else CLOSE
        if grad.dim() == 0 or (name in ("glif", "lmh") and i > len(states)):  # sums over many neurons
            near = {"rtol": 1e-4, "atol": 1e-3}
        torch.testing.assert_close(grad, other, **near)
    return spikes, grads


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name):
    both(name, drive((6, 3, 5, 7)))


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_from_given_states(name):
    x = drive((5, 2, 3, 9))
    states = [drive(x.shape[1:], seed=k + 1).abs() * 0.5 for k in range(CASES[name][2])]
    both(name, x, states)


@pytest.mark.parametrize("name", ["lif", "lif soft", "plif", "klif soft scaled", "clif", "glif", "lmh"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7, 8, 65])
def test_any_number_of_steps(name, steps):
    both(name, drive((steps, 2, 3, 11), seed=steps), tolerance={"rtol": 1e-4, "atol": 1e-5})


@pytest.mark.parametrize("name", ["lif", "plif", "clif", "dynamic", "glif", "lmh"])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 63, 64, 65, 2047, 2049])
def test_any_number_of_neurons(name, width):
    both(name, drive((4, 2, 3, width), seed=width))


@pytest.mark.parametrize("name", ["lif", "plif", "klif", "clif", "glif", "lmh"])
def test_many_blocks_and_long_times(name):
    """Larger than one block of neurons; T such that the block of the way back is the smallest there is."""
    both(name, drive((4, 3, 2, 2500)))
    both(name, drive((1100, 1, 2, 70)), tolerance={"rtol": 1e-3, "atol": 1e-4})


@pytest.mark.parametrize("name", ["if soft detached", "lif", "lif tau 3", "clif", "dynamic"])
@pytest.mark.parametrize("width", [16, 704])
def test_a_small_layer_computes_what_a_large_one_does(name, width):
    """The same neurons in a call of their own and among 20,000, to the last bit."""
    found = []
    for wide in (20_000, width):
        x = drive((4, 20_000))[:, :wide].clone().requires_grad_()
        states = [drive((20_000,), seed=k)[:wide].clone().requires_grad_() for k in range(CASES[name][2])]
        spikes, ends, _ = run(functional, name, x, states, backend="cpu")
        weights = torch.arange(1.0, 5.0).reshape(4, 1)
        ((spikes * weights).sum() + sum((end * (k + 1)).sum() for k, end in enumerate(ends))).backward()
        tensors = (spikes.T, x.grad.T, *ends, *(state.grad for state in states))
        found.append([t.detach()[:width] for t in tensors])
    for large, small in zip(*found, strict=True):
        assert torch.equal(large, small)


@pytest.mark.parametrize("name", ["lif", "lif tau 3", "plif soft", "klif", "clif", "dynamic", "glif", "lmh"])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(name, threads):
    x = drive((4, 3, 4, 2331))
    assert x.numel() >= 1 << 16
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        spikes, grads = both(name, x)
        torch.set_num_threads(1)
        alone, alone_grads = both(name, x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(spikes, alone)
    assert torch.equal(grads[0], alone_grads[0])


@pytest.mark.parametrize("name", CASES)
def test_channels_last_is_kept_and_not_copied(name):
    folded = drive((4 * 2, 5, 3, 7)).to(memory_format=torch.channels_last)
    x = folded.unflatten(0, (4, 2))
    spikes, grads = both(name, x)
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert grads[0].flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", CASES)
def test_a_still_image_is_not_repeated_in_memory(name):
    still = drive((2, 3, 5))
    both(name, still.expand(5, 2, 3, 5))
    last = drive((2, 6, 3, 5)).to(memory_format=torch.channels_last)
    both(name, last.expand(4, *last.shape))


def test_gradient_of_a_still_image_is_the_sum_over_time():
    still = drive((3, 7)).requires_grad_()
    functional.lif(still.expand(6, 3, 7), surrogate=ATAN, backend="cpu")[0].sum().backward()
    other = still.detach().clone().requires_grad_()
    reference.lif(other.expand(6, 3, 7), surrogate=ATAN)[0].sum().backward()
    torch.testing.assert_close(still.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("name", ["if hard", "lif", "plif", "klif", "clif", "glif", "lmh"])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(1, 2),  # another order of axes, dense
        lambda x: x[:, :, :, ::2],  # gaps inside a step
        lambda x: x[::2],  # gaps between steps
        lambda x: x.transpose(0, 1),  # batch in front in memory: steps are not dense
        lambda x: x[:, :1].expand(-1, 3, -1, -1),  # one sample for all
        lambda x: x[1:, :, :, 1:],  # not aligned to anything
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)[:, :, :, ::2],  # permuted and gaps
        lambda x: x.transpose(1, 3).contiguous().transpose(1, 3)[:, :1],  # a batch of one
    ],
    ids=["permuted", "strided", "every other step", "time inside", "expanded batch", "offset", "both", "one"],
)
def test_any_layout(name, view):
    both(name, view(drive((6, 4, 6, 10))))


def test_states_in_another_layout():
    x = drive((4, 2, 3, 4, 5))
    both("lif", x, [drive((2, 5, 3, 4)).permute(0, 2, 3, 1)])
    both("clif", x, [drive((2, 3, 5, 4)).transpose(2, 3), drive((3, 2, 4, 5)).transpose(0, 1)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["if hard", "lif", "lif tau 3", "plif", "klif", "clif", "glif", "lmh"])
def test_half_precision(name, dtype):
    """Currents and spikes are short, the state and the arithmetic are float32: spikes are equal still."""
    if dtype is torch.float16:
        from spiking.kernels.cpu.compiler import has_float16

        if not has_float16():
            pytest.skip("the machine does not convert float16")
    unit = torch.finfo(dtype).eps
    for width in (16, 37):
        x = drive((5, 2, 3, width), dtype=dtype)
        spikes, grads = both(name, x, tolerance={"rtol": 2 * unit, "atol": unit})
        assert grads[0].dtype is dtype
        states = [drive(x.shape[1:], seed=3).abs() * 0.3 for _ in range(CASES[name][2])]
        both(name, x, states, tolerance={"rtol": 2 * unit, "atol": unit})
        assert len(spikes.unique()) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_that_are_not_finite(dtype):
    x = drive((4, 1, 32), dtype=dtype)
    x[1, 0, 3], x[2, 0, 4], x[1, 0, 5] = float("nan"), float("inf"), float("-inf")
    spikes, v = functional.lif(x, v_reset=None, backend="cpu")
    want, want_v = reference.lif(x, v_reset=None)
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(v, want_v, rtol=0, atol=0, equal_nan=True)


ALL = [cls() for cls in sorted(FORMULAS, key=lambda cls: cls.__name__)]
TUNED = [
    surrogate.Rect(0.7), surrogate.PiecewiseQuadratic(0.4), surrogate.Sigmoid(2.5), surrogate.Erf(0.8),
    surrogate.SoftSign(3.0), surrogate.PiecewiseLeakyReLU(0.5, 0.2), surrogate.S2NN(2.0, 0.3),
    surrogate.LeakyKReLU(0.1, 0.8), surrogate.LogTailedReLU(0.2), surrogate.FakeNumericalGradient(2.0),
]  # fmt: skip


@pytest.mark.parametrize("slope", ALL + TUNED, ids=repr)
def test_every_surrogate(slope):
    both("lif tau 3", drive((3, 2, 5, 33)) * 2, slope=slope)
    both("if soft detached", drive((3, 2, 5, 16)), slope=slope)


def test_a_surrogate_without_a_formula_uses_the_reference():
    x = drive((3, 2, 5)).requires_grad_()
    slope = surrogate.QPseudoSpike()
    assert not has_formula(slope)
    with pytest.raises(ValueError, match=r"cannot run this: the surrogate QPseudoSpike"):
        functional.lif(x, surrogate=slope, backend="cpu")
    assert torch.equal(functional.lif(x, surrogate=slope)[0], reference.lif(x, surrogate=slope)[0])


def test_far_from_the_threshold_nothing_overflows():
    x = torch.tensor([[1e30, -1e30, 3e4, -3e4] * 4]).requires_grad_()
    for slope in ALL:
        (grad,) = torch.autograd.grad(functional.if_(x, surrogate=slope, backend="cpu")[0].sum(), x)
        assert torch.isfinite(grad).all(), slope


# ---------------------------------------------------------------- which gradients exist


def test_no_gradient_asked_none_computed():
    x = drive((3, 2, 8))
    spikes, v = functional.lif(x, backend="cpu")
    assert not spikes.requires_grad
    assert not v.requires_grad
    with torch.no_grad():
        assert not functional.lif(x.requires_grad_(), backend="cpu")[0].requires_grad


def test_gradient_through_the_state_alone():
    """The spikes have no gradient at all, which the kernel meets as None."""
    for module, grads in ((functional, []), (reference, [])):
        x, v = drive((3, 2, 21)).requires_grad_(), drive((2, 21), seed=1).requires_grad_()
        end = module.lif(x, v, surrogate=ATAN)[1]
        grads.extend(torch.autograd.grad((end * end).sum(), (x, v)))
        if module is functional:
            ours = grads
    for grad, other in zip(ours, grads, strict=True):
        torch.testing.assert_close(grad, other, **CLOSE)


def test_gradient_of_the_state_without_gradient_of_the_currents():
    x, v = drive((3, 2, 21)), drive((2, 21), seed=1).requires_grad_()
    other = v.detach().clone().requires_grad_()
    functional.lif(x, v, surrogate=ATAN, backend="cpu")[0].sum().backward()
    reference.lif(x, other, surrogate=ATAN)[0].sum().backward()
    torch.testing.assert_close(v.grad, other.grad, **CLOSE)


def test_chunks_joined_by_their_states_equal_one_pass():
    whole = drive((9, 2, 30)).requires_grad_()
    spikes, v = functional.lif(whole, surrogate=ATAN, backend="cpu")
    weight = drive(spikes.shape, seed=4)
    (want,) = torch.autograd.grad((spikes * weight).sum(), whole)
    parts, state = [], None
    for chunk in whole.split(4):
        s, state = functional.lif(chunk, state, surrogate=ATAN, backend="cpu")
        parts.append(s)
    assert torch.equal(torch.cat(parts), spikes)
    assert torch.equal(state, v)
    (found,) = torch.autograd.grad((torch.cat(parts) * weight).sum(), whole)
    torch.testing.assert_close(found, want, **CLOSE)


def test_gradient_in_another_layout_and_expanded():
    x = drive((4, 2, 3, 8)).requires_grad_()
    other = x.detach().clone().requires_grad_()
    g = drive((4, 8, 3, 2), seed=2).permute(0, 3, 2, 1)
    functional.lif(x, surrogate=ATAN, backend="cpu")[0].backward(g)
    reference.lif(other, surrogate=ATAN)[0].backward(g)
    torch.testing.assert_close(x.grad, other.grad, **CLOSE)
    x.grad = other.grad = None
    functional.lif(x, surrogate=ATAN, backend="cpu")[0].mean(0).sum().backward()  # stride 0 in time
    reference.lif(other, surrogate=ATAN)[0].mean(0).sum().backward()
    torch.testing.assert_close(x.grad, other.grad, **CLOSE)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(3, 0, 4, 5), (3, 2, 4, 0)])
def test_empty_batches(name, shape):
    x = torch.zeros(shape).requires_grad_()
    spikes, ends, learnt = run(functional, name, x, backend="cpu")
    assert spikes.shape == shape
    assert all(end.shape == shape[1:] for end in ends)
    spikes.sum().backward()
    assert x.grad.shape == shape
    assert all(p.grad is None or not p.grad.any() for p in learnt)


def test_a_single_axis():
    x = drive((7,)).requires_grad_()
    spikes, v = functional.lif(x, surrogate=ATAN, backend="cpu")
    assert torch.equal(spikes, reference.lif(x, surrogate=ATAN)[0])
    assert v.shape == ()


# ---------------------------------------------------------------- memory


def saved_bytes(function, *inputs):
    """Bytes that the graph keeps beyond the inputs themselves."""
    known = {t.untyped_storage().data_ptr() for t in inputs}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = function(*inputs)
    del out
    return sum(kept.values())


def test_nothing_is_kept_beyond_the_input():
    x, v = drive((8, 4, 500)).requires_grad_(), drive((4, 500)).requires_grad_()
    assert saved_bytes(lambda x: functional.lif(x, backend="cpu", keep_state=False), x) == 0
    assert saved_bytes(lambda x, v: functional.lif(x, v, backend="cpu"), x, v) == 0
    assert saved_bytes(lambda x, v: functional.clif(x, v, v, backend="cpu"), x, v) == 0
    w = torch.tensor(0.3, requires_grad=True)
    assert saved_bytes(lambda x, w: functional.plif(x, w, backend="cpu"), x, w) < 64  # two scalars
    assert saved_bytes(lambda x: reference.lif(x), x) > 2 * x.nbytes, "the measure sees what is kept"


def test_peak_is_the_spikes_and_the_gradient():
    from torch.profiler import ProfilerActivity, profile

    x = drive((16, 8, 8192)).requires_grad_()
    g = torch.ones(x.shape)
    functional.lif(x, keep_state=False, backend="cpu")[0].backward(g)  # compiles
    x.grad = None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        functional.lif(x, keep_state=False, backend="cpu")[0].backward(g)
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    assert peak / x.nbytes <= 2.1  # and the scratch area, 256 KiB


# ---------------------------------------------------------------- processes and missing parts


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_computes_the_same():
    """OpenMP's threads do not survive a fork; a data loader's worker must not wait for them."""
    script = """
import os, torch
from spiking import functional
torch.set_num_threads(2)
x = torch.randn(4, 40000, generator=torch.Generator().manual_seed(0)).requires_grad_()
weight = torch.ones(x.shape)
def work():
    s, v = functional.lif(x, keep_state=False)
    (g,) = torch.autograd.grad(s, x, weight)
    return [s.detach().numpy().tobytes(), g.numpy().tobytes()]
want = work()
child = os.fork()
if child == 0:  # torch's own operators would wait for their threads here if they met as many numbers
    os._exit(0 if work() == want else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("fine")
"""
    assert python(script).strip() == "fine"


WITHOUT = """
import sys, importlib.abc, importlib.util, warnings
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "llvmlite":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.split(".")[0] == "llvmlite" else found(name, *a)
sys.meta_path.insert(0, Block())
import torch
from spiking import functional, reference
"""


def test_without_llvmlite_it_works_and_says_so_once():
    script = (
        WITHOUT
        + """
x = torch.randn(4, 3, 7)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    a = functional.lif(x)[0]
    functional.lif(x)
assert torch.equal(a, reference.lif(x)[0])
own = [w for w in said if "llvmlite" in str(w.message)]
assert len(own) == 1, [str(w.message) for w in said]
assert "pip install llvmlite" in str(own[0].message)
try:
    functional.lif(x, backend="cpu")
except ValueError as error:
    assert "llvmlite is not installed" in str(error)
else:
    raise SystemExit("no error")
print("fine")
"""
    )
    assert python(script).strip() == "fine"


def test_importing_the_package_loads_no_compiler():
    script = (
        "import sys, spiking; print([m for m in sys.modules if m.split('.')[0] in ('llvmlite', 'triton')])"
    )
    assert python(script).strip() == "[]"


def python(script):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# ---------------------------------------------------------------- choosing a backend


def test_a_backend_that_cannot_run_says_why():
    x = drive((3, 2, 5))
    with pytest.raises(ValueError, match=r"unknown backend 'gpu'; known: auto, reference, cpu, triton"):
        functional.lif(x, backend="gpu")
    with pytest.raises(ValueError, match=r"cannot run this: dtype torch.float64"):
        functional.lif(x.double(), backend="cpu")
    assert functional.lif(x.double())[0].dtype is torch.float64


def test_compiling_a_kernel_takes_less_than_a_second():
    script = """
import time, torch
from spiking import functional
x = torch.zeros(4, 100).requires_grad_()
start = time.process_time()  # which other processes do not lengthen
functional.lif(x)[0].sum().backward()
print(time.process_time() - start)
"""
    assert min(float(python(script)) for _ in range(2)) < 1.0
