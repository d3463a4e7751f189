"""What only a CUDA device can show; with ``TRITON_INTERPRET=1`` the same lines run on a CPU."""

import os
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import spiking
import zoo
from conversion import convert
from spiking import functional, kernels, reference
from zoo.registry import get_entry

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from gpu_parts import kernels as compared

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not kernels.HAS_TRITON, reason="triton is not installed"),
]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device():
    if torch.cuda.is_available():
        # rounded products would let other neurons fire than on the CPU
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False, deterministic=True):
            yield "cuda"
    elif INTERPRETED:
        yield "cpu"
    else:
        pytest.skip("no CUDA device")


@cache
def groups():
    return compared.groups(tiny=True)


@pytest.mark.parametrize("name", groups())
def test_kernels_equal_the_oracle(name, device):
    found = compared.verdict(groups()[name], device)
    assert found["wrong"] == 0, found


def currents(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2.0 + 0.8


@pytest.mark.parametrize("neuron", [spiking.LIF(), spiking.PLIF(), spiking.KLIF(), spiking.CLIF()])
def test_every_neuron_equals_itself_on_the_cpu(neuron, device):
    """Those without a Triton kernel run step by step there; the leak of PLIF may differ in its last bit."""
    x = currents(4, 2, 8, 5)
    here = neuron(x)
    there = neuron.to(device)(x.to(device)).cpu()
    neuron.cpu()
    assert 0 < here.mean() < 1
    assert (here != there).float().mean() < 0.01


def test_chunks_of_a_stream_equal_one_pass(device):
    neuron, x = spiking.LIF(tau=3.0).eval(), currents(6, 2, 50).to(device)
    with torch.no_grad(), spiking.streaming(neuron):
        chunks = torch.cat([neuron(part) for part in x.split([1, 3, 2])])
    assert torch.equal(chunks, neuron(x))


def test_autocast_keeps_the_membrane_in_float32(device):
    x = currents(8, 2, 50).bfloat16()
    spikes = functional.lif(x.to(device), tau=3.0)[0]
    assert spikes.dtype is torch.bfloat16
    assert torch.equal(spikes.cpu(), reference.lif(x, tau=3.0)[0])


@pytest.mark.parametrize("name", ["sew_resnet18", "spikingresformer_nano", "spikformer_nano"])
def test_a_training_step_gives_finite_gradients(name, device):
    torch.manual_seed(0)
    arguments = get_entry(name).small or {}
    model = zoo.create(name, num_classes=5, time_steps=2, in_chans=3, **arguments).to(device)
    x = torch.rand(2, 3, 32, 32, device=device)
    with torch.autocast(device, torch.bfloat16):
        logits = model(x)
    logits.float().square().sum().backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(g.isfinite().all() for g in grads)
    assert any(g.abs().max() > 0 for g in grads)


def test_a_compiled_neuron_equals_the_eager_one(device):
    neuron, x = spiking.LIF(), currents(4, 2, 50).to(device)
    backend = "inductor" if device == "cuda" else "eager"
    compiled = torch.compile(neuron, backend=backend, fullgraph=True)
    assert torch.equal(compiled(x), neuron(x))


def test_a_converted_network_runs_there(device):
    torch.manual_seed(0)
    ann = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5)
    )
    x = torch.rand(4, 3, 8, 8)
    ann, x = ann.eval().to(device), x.to(device)
    converted = convert(ann, "dcgs", 8, x, progress=False)
    with torch.no_grad():
        near, want = converted(x), ann(x)
    assert (near - want).norm() < 0.2 * want.norm()
