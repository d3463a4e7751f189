"""Blocks of Meta-SpikeFormer against numbers of its authors' code."""

import pytest
import torch

from tests.parity.goldens import EPSILON, from_repository, over_cases
from zoo.layers import reparameterised
from zoo.layers.convolution import neuron_factory
from zoo.layers.transformer import NEURON_DEFAULTS, Block, MembraneMLP, as_conv_weight
from zoo.models import metaspikformer

pytestmark = pytest.mark.golden

MAKE = neuron_factory("lif", None, NEURON_DEFAULTS, 1)
MAKE_ATTN = neuron_factory("lif", None, {**NEURON_DEFAULTS, "v_threshold": 0.5}, 1)


def build(case, state):
    about = case.settings
    dim = about.get("dim")
    if "pwconv1.weight" in state:
        return metaspikformer.SepConv(dim, MAKE)
    if "Conv.pwconv1.weight" in state:
        return metaspikformer.ConvBlock(dim, len(state["conv1.weight"]) / dim, MAKE)
    if "body.0.weight" in state:
        return reparameterised.RepConv(dim)
    if "attn.q_conv.0.body.0.weight" in state:
        attn = metaspikformer.RepAttention(dim, about["heads"], MAKE, MAKE_ATTN)
        return Block(attn, MembraneMLP(dim, dim * about["mlp_ratio"], MAKE))
    c_out, c_in, kernel, _ = state["encode_conv.weight"].shape
    make = None if kernel == 7 else MAKE  # the first of them, whose input is no spike yet
    stride = round(case["x"].shape[-1] / case["y"].shape[-1])
    return metaspikformer.Downsample(c_in, c_out, kernel, stride, make)


def load(case, state):
    module = build(case, state)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing)
    return module.eval()


def outputs_and_gradients(case, state, module=None):
    """``y``, and the gradients of ``sum(y * grad_output)``, by their names in the file."""
    module = load(case, state) if module is None else module
    x = case["x"].to(next(module.parameters()).dtype, copy=True).requires_grad_()
    y = module(x)
    (y * case["grad_output"]).sum().backward()
    gradients = {f"grad.{k}": p.grad for k, p in module.named_parameters() if f"grad.{k}" in case}
    return {"y": y.detach(), "grad_x": x.grad, **gradients}


def rounded_anew(case, state, draws=32):
    """The block in float64, and as often as ``draws`` says with what each layer gives rounded to float32.

    Behind a silent attention the norms have no variance, and three of them in a row enlarge the last bit of
    their inputs by a factor of 1e7, which may make a neuron fire or not; which bit that is depends on the
    processor and its number of threads. Numbers that do not hang on it move by a millionth.
    """
    found = [outputs_and_gradients(case, state, load(case, state).double())]
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)

        def round_anew(module, inputs, y, generator=generator):
            return y * (1 + EPSILON * (torch.rand(y.shape, generator=generator, dtype=y.dtype) * 2 - 1))

        module = load(case, state).double()
        for layer in module.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d):
                layer.register_forward_hook(round_anew)
        found.append(outputs_and_gradients(case, state, module))
    return found


def distance(got, expected):
    """The norm of the difference over that of what is expected."""
    return float((got.reshape(expected.shape) - expected).norm() / expected.norm())


@over_cases("y", "grad_output", "state.*", where=from_repository("Spike-Driven-Transformer-V2"))
def test_case(case):
    state = {k: as_conv_weight(k, v) for k, v in case.under("state.").items()}
    exact, *roundings = rounded_anew(case, state)
    ours = outputs_and_gradients(case, state)  # in float32, as the file
    for key, got in ours.items():
        expected = case[key]
        moved = torch.stack([(r[key] - exact[key]).abs() for r in roundings]).amax(0)
        noise = 1e-4 if key == "y" else 5e-5 * float(expected.abs().max())
        excess = (got - expected.reshape(got.shape)).abs() - 4 * moved
        assert float(excess.max()) <= noise, key
    # the file is one way of rounding: where rounding makes neurons fire or not, it lies at one of the answers
    assert min(distance(r["y"], case["y"]) for r in (ours, *roundings)) < 0.05
    case.everything_was_compared()


@over_cases("y", "state.body.0.weight", where=from_repository("Spike-Driven-Transformer-V2"))
def test_folded_projection(case):
    """The 3x3 convolution that a trained block becomes gives the authors' outputs, too."""
    module = reparameterised.RepConv(case.settings["dim"])
    module.load_state_dict(case.under("state."), strict=False)
    outer = torch.nn.BatchNorm2d(case.settings["dim"])
    kernel, bias = module.double().eval().kernel_and_bias(outer.double().eval())
    y = torch.nn.functional.conv2d(case["x"].double(), kernel, bias, padding=1)
    case.close("y", y.float() * (1 + outer.eps) ** 0.5, rtol=0, atol=1e-4)
