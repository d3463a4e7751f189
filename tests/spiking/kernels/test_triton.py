"""The Triton kernels through Triton's interpreter, which runs their source on a CPU.

The interpreter has to be chosen before Triton is imported, so the comparison runs in a process of its own:
this file started as a script. It prints one line of JSON: a case's name -> "fine" or what differs.
"""

import copy
import itertools
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import spiking
import spiking.normed
from spiking import functional, kernels, reference, surrogate

ROOT = Path(__file__).resolve().parents[3]
ATAN = surrogate.ATan()


def drive(*shape, seed=0, dtype=torch.float32):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.0 + 0.8).to(dtype)


def compare(function, x, learnt=(), v=None, slope=ATAN, **settings):
    """Assert equal spikes and states, to the bit, and gradients equal but for rounding."""
    found = []
    for module, more in ((functional, {"backend": "triton"}), (reference, {})):
        leaf = x.detach().requires_grad_()
        own = [torch.tensor(value, requires_grad=True) for value in learnt]
        start = None if v is None else v.clone().requires_grad_()
        spikes, end = getattr(module, function)(leaf, *own, start, surrogate=slope, **settings, **more)
        weight = drive(*x.shape, seed=7)
        loss = (spikes.float() * weight).sum() + (end * weight[0]).sum()
        leaves = [leaf, *own, *([] if start is None else [start])]
        found.append((spikes, end, torch.autograd.grad(loss, leaves)))
    (spikes, end, grads), (want, want_end, want_grads) = found
    assert 0 < want.float().mean() < 1, "the case must have both spikes and silence"
    assert spikes.dtype is x.dtype
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(end, want_end, rtol=0, atol=0)
    for i, (grad, other) in enumerate(zip(grads, want_grads, strict=True)):
        near = {"rtol": 1e-4, "atol": 1e-3} if grad.dim() == 0 else {"rtol": 2e-5, "atol": 2e-6}
        if i == 0 and x.dtype is not torch.float32:
            near = {"rtol": 2 * torch.finfo(x.dtype).eps, "atol": torch.finfo(x.dtype).eps}
        torch.testing.assert_close(grad, other, **near)


def cases():
    """Name -> the arguments of `compare`; small, for the interpreter is slow."""
    x, v = drive(3, 2, 3, 50), drive(2, 3, 50, seed=1).abs() * 0.5  # 300 neurons: one program and a part
    out = {}
    for v_reset, detach, given in itertools.product((0.0, None, -0.3), (False, True), (False, True)):
        start = v if given else None
        common = {"v": start, "v_reset": v_reset, "detach_reset": detach}
        label = f"{v_reset} {detach} {given}"
        out[f"if {label}"] = {"function": "if_", "x": x, **common}
        for decay in (False, True):
            more = {"x": x, "decay_input": decay, **common}
            out[f"lif {label} {decay}"] = {"function": "lif", "tau": 2.0, **more}
            out[f"lif tau 3 {label} {decay}"] = {"function": "lif", "tau": 3.0, **more}
            out[f"plif {label} {decay}"] = {"function": "plif", "learnt": (0.4,), **more}
    still = drive(2, 3, 5).expand(4, 2, 3, 5)
    last = drive(6, 4, 2, 3).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    for function, learnt in (("if_", ()), ("lif", ()), ("plif", (0.4,))):
        common = {"function": function, "learnt": learnt}
        out[f"{function} one step"] = {"x": drive(1, 20), **common}
        out[f"{function} still"] = {"x": still, **common}
        out[f"{function} channels last"] = {"x": last, **common}
        out[f"{function} gaps"] = {"x": drive(4, 3, 10)[:, :, ::2], **common}
        out[f"{function} bfloat16"] = {"x": drive(3, 2, 40, dtype=torch.bfloat16), **common}
        out[f"{function} float16"] = {"x": drive(3, 2, 40, dtype=torch.float16), **common}
        out[f"{function} state in another layout"] = {"x": drive(2, 3, 5), "v": drive(5, 3).T, **common}
    for v_reset, detach in itertools.product((0.0, None), (False, True)):
        more = {"v_reset": v_reset, "detach_reset": detach, "scale_reset": True, "tau": 3.0}
        out[f"klif {v_reset} {detach}"] = {"function": "klif", "learnt": (0.8,), "x": x, **more}
    from spiking.kernels.rules.surrogates import FORMULAS

    for cls, alpha in itertools.product(FORMULAS, (None, 0.7)):
        if alpha is not None and "alpha" not in cls().parameters():
            continue
        slope = cls(**({} if alpha is None else {"alpha": alpha}))
        out[f"slope {slope}"] = {"function": "lif", "x": x, "slope": slope}
    return out


def compare_dynamic(x, v=None, u=None, slope=ATAN, **settings):
    """The same for the second-order neuron, which has two states."""
    found = []
    for engine in ("triton", "reference"):
        leaf = x.detach().requires_grad_()
        starts = [None if t is None else t.clone().requires_grad_() for t in (v, u)]
        spikes, ends = functional.dynamic(leaf, *starts, surrogate=slope, backend=engine, **settings)
        weight = drive(*x.shape, seed=7)
        loss = (spikes.float() * weight).sum()
        for end, sign in zip(ends, (1.0, -0.5), strict=True):
            loss = loss + sign * (end * weight[0]).sum()
        leaves = [leaf, *(t for t in starts if t is not None)]
        found.append((spikes, *ends, *torch.autograd.grad(loss, leaves)))
    got, want = found
    assert 0 < want[0].float().mean() < 1, "the case must have both spikes and silence"
    assert got[0].dtype is x.dtype
    for one, other in zip(got[:3], want[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    unit = torch.finfo(x.dtype).eps
    near = {"rtol": 2e-5, "atol": 2e-6} if x.dtype is torch.float32 else {"rtol": 2 * unit, "atol": unit}
    for one, other in zip(got[3:], want[3:], strict=True):
        torch.testing.assert_close(one, other, **near)


def dynamic_cases():
    """Name -> the arguments of `compare_dynamic`."""
    x, v = drive(4, 2, 3, 50) * 0.3, drive(2, 3, 50, seed=1).abs() * 0.2
    u = drive(2, 3, 50, seed=2) * 0.1
    out = {"dynamic": {"x": x}, "dynamic both": {"x": x, "v": v, "u": u}}
    out |= {"dynamic v": {"x": x, "v": v}, "dynamic u": {"x": x, "u": u}}
    other = reference.Dynamics(v_reset=-0.2, jump=0.4, pull=0.3, growth=-0.1)
    out["dynamic of other constants"] = {"x": x, "v": v, "dynamics": other, "v_threshold": 0.7}
    out["dynamic rectangle"] = {"x": x, "slope": surrogate.Rect()}
    out["dynamic one step"] = {"x": drive(1, 20) * 0.5}
    out["dynamic gaps"] = {"x": x[:, :, :, ::2]}
    last = (drive(6, 4, 2, 3) * 0.3).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    out["dynamic channels last"] = {"x": last}
    for dtype in (torch.bfloat16, torch.float16):
        out[f"dynamic {dtype}"] = {"x": x.to(dtype)}
    return out


class Adaptive(spiking.StepNeuron):
    """What a user might write: two states, two learnt numbers, and names that kernels use, too."""

    state_names = ("v", "a")
    rest: ClassVar = {"a": 0.1}

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.x, self.count = torch.nn.Parameter(torch.tensor(0.8)), torch.nn.Parameter(torch.tensor(0.3))

    def dynamics(self, x, v, a):
        h = self.x * v + torch.where(x > 2.0, x / 3.0, x) + torch.tanh(a) * 0.1
        s = self.fire(h - (self.v_threshold + a.abs()))
        a = torch.clamp(a * 0.9 + self.count * s, max=1.5)
        return s, torch.maximum(h - s.detach(), a - 2.0), torch.exp(-a) * 0.2 + a


MODULES = {
    "clif": spiking.CLIF,
    "klif": spiking.KLIF,
    "lmh": spiking.LMH,
    "written": Adaptive,
}


def compare_module(kind, x, starts=False, **settings):
    """The same for neurons with exponentials, whose states may differ in their last bit."""
    found = []
    for backend in ("triton", "reference"):
        neuron, leaf = MODULES[kind](backend=backend, **settings), x.detach().requires_grad_()
        rest = neuron.initial_state(x[0])
        state = (rest if isinstance(rest, tuple) else (rest,)) if starts else None
        if starts:
            own = [(s + 0.1 * drive(*s.shape, seed=k)).requires_grad_() for k, s in enumerate(state)]
            state = tuple(own) if isinstance(rest, tuple) else own[0]
        spikes, ends = neuron.run(leaf, state, keep_state=True)
        ends = ends if isinstance(ends, tuple) else (ends,)
        loss = (spikes.float() * drive(*x.shape, seed=7)).sum()
        loss = loss + sum((end * drive(*end.shape, seed=8 + k)).sum() for k, end in enumerate(ends))
        leaves = [leaf, *(own if starts else ()), *neuron.parameters()]
        found.append((spikes, ends, torch.autograd.grad(loss, leaves)))
    (spikes, ends, grads), (want, want_ends, want_grads) = found
    assert 0 < want.float().mean() < 1, "the case must have both spikes and silence"
    assert spikes.dtype is x.dtype
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(ends, want_ends, rtol=1e-5, atol=1e-5)
    unit = torch.finfo(x.dtype).eps if x.dtype is not torch.float32 else 1e-4
    for grad, other in zip(grads, want_grads, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(grad, other, rtol=2 * unit, atol=unit * scale)


def module_cases():
    """Name -> the arguments of `compare_module`."""
    x, out = drive(3, 2, 3, 50) * 0.7, {}
    last = drive(6, 4, 2, 3).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    for kind in MODULES:
        out[f"{kind}"] = {"kind": kind, "x": x}
        out[f"{kind} with states"] = {"kind": kind, "x": x, "starts": True}
        out[f"{kind} one step"] = {"kind": kind, "x": drive(1, 20)}
        out[f"{kind} channels last"] = {"kind": kind, "x": last}
        out[f"{kind} gaps"] = {"kind": kind, "x": x[:, :, :, ::2]}
        out[f"{kind} other slope"] = {"kind": kind, "x": x, "surrogate": "s2nn"}
        out[f"{kind} bfloat16"] = {"kind": kind, "x": x.to(torch.bfloat16)}
        out[f"{kind} float16"] = {"kind": kind, "x": x.to(torch.float16)}
    return out


def compare_mixed(x, steps, levels, theta=1.0, start=0.5):
    """The same for LM-HT, whose steps see all others."""
    generator = torch.Generator().manual_seed(3)
    weight = (torch.rand(steps, len(x), generator=generator) * 1.4 + 0.3) / len(x)
    leak = torch.rand(steps, generator=generator) + 0.5
    found = []
    for engine in ("triton", "reference"):
        leaves = [t.detach().requires_grad_() for t in (x, weight, leak)]
        fixed = torch.tensor(theta), torch.tensor(start)
        y = functional.lmht(*leaves, *fixed, levels=levels, backend=engine)
        found.append((y, torch.autograd.grad((y.float() * drive(*y.shape, seed=7)).sum(), leaves)))
    (y, grads), (want, want_grads) = found
    assert len(want.unique()) > 1
    assert y.dtype is x.dtype
    torch.testing.assert_close(y, want, rtol=0, atol=0)
    unit = torch.finfo(x.dtype).eps
    near = {"rtol": 2e-5, "atol": 2e-6} if x.dtype is torch.float32 else {"rtol": 2 * unit, "atol": unit}
    torch.testing.assert_close(grads[0], want_grads[0], **near)
    for grad, other in zip(grads[1:], want_grads[1:], strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-4, atol=1e-3)


def mixed_cases():
    """Name -> the arguments of `compare_mixed`."""
    x = drive(4, 2, 3, 50)
    out = {f"lmht {t} of {j}, {n}": {"x": x[:j], "steps": t, "levels": n} for t, j, n in product_of_sizes()}
    out["lmht threshold"] = {"x": x, "steps": 4, "levels": 3, "theta": 0.37, "start": 0.0}
    out["lmht still"] = {"x": x[:1].expand(2, 2, 3, 50), "steps": 2, "levels": 2}
    last = drive(6, 4, 2, 3).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    out["lmht channels last"] = {"x": last, "steps": 2, "levels": 2}
    out["lmht gaps"] = {"x": x[:, :, :, ::2], "steps": 4, "levels": 2}
    for dtype in (torch.bfloat16, torch.float16):
        out[f"lmht {dtype}"] = {"x": x.to(dtype), "steps": 4, "levels": 2}
    return out


def product_of_sizes():
    return [(1, 1, 1), (2, 2, 2), (4, 4, 4), (4, 1, 2), (2, 3, 8), (5, 2, 1)]


def compare_normed(x, norm, kind="lif", repeats=1, pool=None, training=True, **settings):
    """A norm, the neuron behind it and a pooling as one, against the modules in the precision of numbers."""
    found = []
    for backend in ("triton", "reference"):
        own, leaf = copy.deepcopy(norm).train(training), x.detach().requires_grad_()
        neuron = spiking.get_neuron(kind, surrogate=ATAN, backend=backend, **settings)
        if backend == "reference":
            leaf = x.detach().float().requires_grad_()
        out = spiking.normed.norm_fire(own, neuron, leaf, repeats, pool)
        fused = type(out.grad_fn).__name__ == "_FireBackward"
        assert fused == (backend == "triton"), "wrongly fused or not"
        weight = drive(*out.shape, seed=7)
        leaves = [leaf, *own.parameters(), *neuron.parameters()]
        found.append((out, torch.autograd.grad((out.float() * weight).sum(), leaves), own.state_dict()))
    (out, grads, buffers), (want, want_grads, want_buffers) = found
    assert 0 < want.mean() < 1, "the case must have both spikes and silence"
    assert out.dtype is x.dtype
    torch.testing.assert_close(out.float(), want, rtol=0, atol=0)
    unit = torch.finfo(x.dtype).eps if x.dtype is not torch.float32 else 1e-5
    for grad, other in zip(grads, want_grads, strict=True):
        scale = max(1.0, other.abs().max().item())
        torch.testing.assert_close(grad.float(), other, rtol=4 * unit, atol=4 * unit * scale)
    torch.testing.assert_close(buffers, want_buffers, rtol=1e-5, atol=1e-6)


def normed_cases():
    """Name -> the arguments of `compare_normed`: every layout with every pooling."""
    torch.manual_seed(0)
    norm, out = torch.nn.BatchNorm2d(3), {}
    torch.nn.init.normal_(norm.weight, 0.8, 0.3)
    torch.nn.init.normal_(norm.bias, 0.5, 0.2)
    first = drive(3, 2, 3, 6, 8)
    last = first.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (3, 2))
    pools = {"alone": None, "avg": torch.nn.AvgPool2d(2), "max": torch.nn.MaxPool2d(2)}
    for (layout, x), (label, pool) in itertools.product(
        {"first": first, "last": last}.items(), pools.items()
    ):
        own = {"norm": norm, "pool": pool}
        out[f"normed {layout} {label}"] = {"x": x, **own}
        out[f"normed {layout} {label} still"] = {"x": x[:1], "repeats": 3, "kind": "plif", **own}
    out["normed in evaluation"] = {"x": last, "norm": norm, "training": False, "pool": pools["max"]}
    out["normed without numbers of its own"] = {"x": first, "norm": torch.nn.BatchNorm2d(3, affine=False)}
    out["normed soft"] = {"x": last, "norm": norm, "v_reset": None, "detach_reset": True}
    out["normed two states"] = {"x": last, "norm": norm, "kind": "clif", "pool": pools["avg"]}
    for dtype in (torch.bfloat16, torch.float16):
        out[f"normed {dtype}"] = {"x": last.to(dtype), "norm": norm, "pool": pools["max"]}
    return out


def main():
    results = {}
    runs = [(compare, cases()), (compare_mixed, mixed_cases()), (compare_dynamic, dynamic_cases())]
    runs += [(compare_module, module_cases()), (compare_normed, normed_cases())]
    for run, name, arguments in ((r, *case) for r, own in runs for case in own.items()):
        try:
            run(**arguments)
            results[name] = "fine"
        except Exception as error:
            results[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(results))


@cache
def interpreted():
    """What `main` found in a process whose Triton interprets."""
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=env, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


needs_triton = pytest.mark.skipif(not kernels.HAS_TRITON, reason="triton is not installed")


@needs_triton
@pytest.mark.parametrize("family", ["if", "lif", "plif", "slope", "lmht", "dynamic", "normed", *MODULES])
def test_equals_the_reference(family):
    own = {name: verdict for name, verdict in interpreted().items() if name.split()[0].rstrip("_") == family}
    assert len(own) >= 7
    assert set(own.values()) == {"fine"}, {n: v for n, v in own.items() if v != "fine"}


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter runs on any device")
def test_refuses_what_it_cannot_run():
    x = drive(3, 2, 5)
    with pytest.raises(ValueError, match=r"'triton' cannot run this: .*tensor is on cpu"):
        functional.lif(x, backend="triton")
    with pytest.raises(ValueError, match=r"this neuron has no Triton kernel"):
        spiking.GLIF(time_steps=3, channels=5, backend="triton")(x.unsqueeze(-1))
    with pytest.raises(ValueError, match=r"the surrogate Squarewave"):
        functional.lif(x, surrogate=surrogate.SquarewaveFourierSeries(), backend="triton")


COMPILE = """
import itertools, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import torch
import spiking
from spiking.kernels.rules.neurons import Complementary, Compartments, Dynamic, Leaky
from spiking.kernels.rules.surrogates import FORMULAS
from spiking.kernels.rules.written import Written
from spiking.kernels.triton import lmht as mixing
from spiking.kernels.triton.normed_writer import normed_kernels
from spiking.kernels.triton.runtime import BLOCK
from spiking.kernels.triton.writer import kernels
from tests.spiking.kernels.test_triton import Adaptive

INTEGERS = ("count", "steps", "x_step", "g_step", "channels", "inner", "unit", "across", "rows")
DATA = ("x_ptr", "out_ptr", "g_ptr", "gx_ptr")
ATAN = spiking.get_surrogate("atan")

def compiled(kernel, element, **constants):
    types = {}
    for name in kernel.arg_names:
        pointer = "*" if name.endswith("_ptr") else ""
        plain = element if name in DATA else "i32" if name in INTEGERS else "fp32"
        types[name] = "constexpr" if name in constants else pointer + plain
    source = ASTSource(kernel, types, constexprs=constants)
    return triton.compile(source, GPUTarget("cuda", 80, 32), {"enable_fp_fusion": False}).asm["ptx"]

def both(rule, element, given):
    sizes = {"STARTS": given, "ENDS": given, "BLOCK": BLOCK}
    forward, backward = kernels(rule)
    text = compiled(forward, element, **sizes)
    assert "fma" not in text or "exp" in str(rule), "spikes would differ in their last bits"
    compiled(backward, element, **sizes)
    return text

for leak, hard in itertools.product(("none", "divide", "multiply"), (True, False)):
    for element, given in (("fp32", not hard), ("bf16", hard)):
        more = {"decay_input": hard, "detach": given, "learn_rate": leak == "multiply"}
        rule = Leaky(ATAN, leak=leak, hard=hard, **more)
        assert ("div.rn" in both(rule, element, given)) == (leak == "divide")
for cls in FORMULAS:
    _, backward = kernels(Leaky(cls(), leak="multiply"))
    compiled(backward, "fp32", STARTS=False, ENDS=False, BLOCK=BLOCK)
own = Adaptive()
written = own._program()
written = Written(ATAN, written.nodes, written.outputs, own._rests())
others = (Complementary(ATAN), Compartments(ATAN), Dynamic(ATAN), Leaky(ATAN, gain=True), written)
for rule in others:
    both(rule, "fp32", True)
    both(rule, "fp16", False)
for pooling, element in itertools.product((None, "avg", "max"), ("fp32", "bf16")):
    rule = Leaky(ATAN, leak="multiply", learn_rate=True)
    forward, backward = normed_kernels(rule, pooling, still=element == "bf16")
    assert "fma" not in compiled(forward, element, BLOCK=BLOCK)
    compiled(backward, element, BLOCK=BLOCK)
for element, levels in itertools.product(("fp32", "bf16", "fp16"), (1, 4)):
    sizes = {"STEPS": 2, "STEPS_IN": 2, "LEVELS": levels, "BLOCK": BLOCK}
    assert "fma" not in compiled(mixing._forward_kernel, element, **sizes)
    compiled(mixing._backward_kernel, element, **sizes)
print("fine")
"""


@needs_triton
def test_compiles_for_a_gpu_without_one(tmp_path):
    """The interpreter takes more than the compiler does; Triton brings an assembler that needs no GPU."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    script = tmp_path / "compile_kernels.py"
    script.write_text(COMPILE)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=env, timeout=300, check=False
    )
    if "No module named 'triton.backends" in done.stderr or "Cannot find ptxas" in done.stderr:
        pytest.skip("this Triton cannot compile without a GPU")
    assert done.stdout.strip() == "fine", done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = drive(5, 3, 1000, dtype=dtype)
    there = x.to("cuda").requires_grad_()
    here = x.clone().requires_grad_()
    for module, leaf in ((functional, there), (reference, here)):
        module.lif(leaf, tau=3.0, surrogate=ATAN)[0].float().sum().backward()
    assert torch.equal(functional.lif(there, tau=3.0)[0].cpu(), reference.lif(here, tau=3.0)[0])
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(there.grad.cpu(), here.grad, rtol=10 * unit, atol=10 * unit)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "pool", [None, torch.nn.AvgPool2d(2), torch.nn.MaxPool2d(2)], ids=["alone", "avg", "max"]
)
def test_norm_on_a_gpu(pool):
    """Statistics of two devices differ in their last bits, so a few spikes may."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = drive(24, 16, 12, 12).to(memory_format=torch.channels_last).unflatten(0, (4, 6))
    found = []
    for device in ("cuda", "cpu"):
        norm, leaf = torch.nn.BatchNorm2d(16).to(device), x.to(device).requires_grad_()
        out = spiking.normed.norm_fire(norm, spiking.LIF(surrogate=ATAN), leaf, pool=pool)
        assert type(out.grad_fn).__name__ == "_FireBackward"
        out.sum().backward()
        found.append([t.cpu() for t in (out.detach(), leaf.grad, norm.weight.grad, norm.running_var)])
    assert (found[0][0] != found[1][0]).float().mean() < 1e-3
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        assert (one - other).norm() < 1e-2 * other.norm()


if __name__ == "__main__":
    main()
