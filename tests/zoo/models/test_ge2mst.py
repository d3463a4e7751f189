"""Ge2mS-T: sizes, windows, and that the spiking form is the quantised one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import spiking
import zoo
from spiking import ExpGIF
from spiking.neurons.expg import ExpGCode, ExpGQuant
from zoo.layers.window_attention import GWSSA, from_windows, to_windows

TINY = {"dims": (8, 16, 16, 32), "group_size": 8, "num_heads": (2, 4)}


def ready(**kwargs):
    """A small network in float64, its norms and steps set by one batch, in evaluation mode."""
    torch.manual_seed(0)
    model = zoo.create("ge2mst_nano", **{**TINY, **kwargs}).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.6)
    model(images())
    return model.eval()


def images(batch=4, size=28, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 1, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "count"), [("ge2mst_xs", 9_977_117), ("ge2mst_s", 21_531_533), ("ge2mst_m", 37_463_549)]
)
def test_sizes(name, count):
    with torch.device("meta"):
        model = zoo.create(name)
    assert sum(p.numel() for p in model.parameters()) == count


# -- the two forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        {},
        {"groups": 1, "steps_per_group": 4},
        {"groups": 4, "steps_per_group": 1},
        {"groups": 3, "steps_per_group": 2, "order": "interleaved"},
        {"groups": 2, "steps_per_group": 3, "most_spikes": 2},
    ],
    ids=str,
)
def test_the_spiking_form_loses_nothing(code):
    model = ready(**code)
    firing = model.to_spiking()
    x = images(6, seed=3)
    with torch.no_grad():
        want, steps = model(x), firing(x, steps=True)
    T = code.get("groups", 2) * code.get("steps_per_group", 2)
    assert firing.time_steps == T
    assert steps.shape == (T, 6, 10)
    torch.testing.assert_close(steps.mean(0), want, rtol=0, atol=1e-9)
    assert want.std() > 0.01
    assert list(firing.state_dict()) == list(model.state_dict())
    with spiking.FiringRateMonitor(firing) as monitor, torch.no_grad():
        firing(x)
    rates = monitor.rates()
    assert len(rates) == sum(isinstance(m, ExpGIF) for m in firing.modules())
    assert sum(rate > 0 for rate in rates.values()) > 0.9 * len(rates)  # it was not silence that agreed


def test_float32_agrees_on_the_answer():
    model = ready().float()
    x = images(32, seed=5).float()
    with torch.no_grad():
        a, b = model(x), model.to_spiking()(x)
    assert (a.argmax(1) == b.argmax(1)).float().mean() > 0.9
    torch.testing.assert_close(b, a, rtol=0, atol=0.05)  # a level may differ by one where rounding decides


def test_everything_but_the_image_is_added():
    firing = ready().to_spiking()
    report = spiking.profile_energy(firing, images())
    analog = {row.name for row in report.rows if row.input == "analog"}
    assert analog == {"conv", "head"}
    products = [row for row in report.rows if row.kind == "matmul"]
    assert len(products) == 4
    assert all(row.sops > 0 for row in products)


class Products(TorchDispatchMode):
    """Notes, for every product of two tensors, whether one is spikes (0 or 1), or powers of two: shifts."""

    SUMS = ("convolution", "mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "dot", "einsum")

    def __init__(self):
        super().__init__()
        self.found, self.elementwise = [], []

    @staticmethod
    def spikes(t):
        return bool(((t == 0) | (t == 1)).all())

    @staticmethod
    def shifts(t):
        return t.numel() <= 8 and bool((t > 0).all()) and bool((t.log2() == t.log2().round()).all())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        tensors = [a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()]
        if name in self.SUMS:
            factors = tensors[1:] if name in ("addmm", "baddbmm") else tensors[:2]
            self.found.append((any(self.spikes(t) or self.shifts(t) for t in factors), factors))
        elif name in ("mul", "mul_", "div", "div_", "addcmul", "pow", "square") and len(tensors) > 1:
            self.elementwise.append((name, [tuple(t.shape) for t in tensors]))
        return func(*args, **(kwargs or {}))


def test_no_operation_multiplies_two_real_numbers():
    firing = ready().to_spiking()
    x = images()
    with Products() as seen, torch.no_grad():
        firing(x)
    real = [factors for free, factors in seen.found if not free]
    assert len(seen.found) > 20
    image, *logits = [f[1].shape for f in real]
    assert image == firing.conv.weight.shape
    assert logits == [firing.head.weight.T.shape] * firing.time_steps
    assert torch.equal(real[0][0], x)  # the image; and behind the last spikes, the classifier
    for (
        _,
        shapes,
    ) in seen.elementwise:  # scalings by constants of a layer or a step: folded into weights, or shifts
        assert min(math.prod(shape) for shape in shapes) <= firing.time_steps
    with Products() as trained, torch.no_grad():  # the inspection can fail: levels are no spikes
        ready()(x)
    assert sum(not free for free, _ in trained.found) > 10


def test_sequences_and_saving(tmp_path):
    model = ready()
    firing = model.to_spiking()
    frames = torch.stack([images(2, seed=s) for s in range(3)])
    with torch.no_grad():
        steps = firing(frames, steps=True)
        assert steps.shape == (12, 2, 10)  # T = 4 of each of three frames
        torch.testing.assert_close(steps[4:8].mean(0), model(frames[1]), rtol=0, atol=1e-9)
        torch.testing.assert_close(firing(frames), model(frames), rtol=0, atol=1e-9)
    again = zoo.load(f"local-dir:{zoo.save(firing.float(), tmp_path / 'out')}")
    assert again.spiking
    with torch.no_grad():
        assert torch.equal(again(images().float()), firing(images().float()))


@pytest.mark.parametrize("spiking_form", [False, True])
def test_tokens_are_refused_by_name(spiking_form):
    model = ready().to_spiking() if spiking_form else ready()
    with pytest.raises(
        ValueError, match="ge2mst_nano cannot run on part of its tokens: its attention works in"
    ):
        zoo.reduce_tokens(model)
    with pytest.raises(ValueError, match="ge2mst_nano cannot run on part"):
        zoo.token_importance(model, images())


def test_the_spiking_form_is_for_evaluation():
    firing = ready().to_spiking()
    assert not firing.train().training
    assert not zoo.create("ge2mst_nano", spiking=True).training
    with pytest.raises(ValueError, match="in its spiking form already"):
        firing.to_spiking()
    with pytest.raises(RuntimeError, match="not causal"), spiking.streaming(firing):
        pass


def test_a_trained_step_reduces_the_loss():
    torch.manual_seed(0)
    model = zoo.create("ge2mst_nano", **TINY)
    x, y = images(8).float(), torch.arange(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(m.step_size > 0 for m in model.modules() if isinstance(m, ExpGQuant))


# -- windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "size"), [(2, (4, 6)), (3, (4, 7)), (14, (5, 5))])
def test_windows_come_back(window, size):
    x = torch.randn(2, 6, *size)
    assert torch.equal(from_windows(to_windows(x, window, 3), window, *size), x)


def attention(windows, heads=2, dim=8):
    torch.manual_seed(1)
    block = GWSSA(dim, heads, windows, lambda code: ExpGQuant(code or ExpGCode.grouped(2, 2))).double()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.bias, 0.2, 0.8)
    block(2 * torch.randn(4, dim, 4, 4, dtype=torch.float64))
    return block.eval()


def test_one_window_is_dense_attention():
    block = attention((4,))
    x = 2 * torch.randn(2, 8, 4, 4, dtype=torch.float64)
    seen = []
    block.proj.neuron.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        block(x)
        a = block.neuron_in(x)
        parts = {}
        for name in "qkv":
            conv, norm = block.get_submodule(f"{name}_conv"), block.get_submodule(f"{name}_norm")
            y = block.get_submodule(f"{name}_neuron")(norm(block.neuron_in.weigh(conv, a)))
            parts[name] = y.reshape(2, 2, 4, 16)  # [B, h, d, N]
        counts = torch.einsum("bhdn,bhdm->bhnm", parts["q"], parts["k"])
        out = torch.einsum("bhnm,bhdm->bhdn", counts, parts["v"]) * block.v_neuron.known_step()
    assert counts.any()
    torch.testing.assert_close(seen[0], out.reshape(2, 8, 4, 4))


def test_windows_do_not_meet():
    block = attention((2,))
    x = (2 * torch.randn(1, 8, 4, 4, dtype=torch.float64)).requires_grad_()
    block(x)[..., :2, :2].sum().backward()
    assert x.grad[..., :2, :2].any()
    assert not x.grad[..., 2:, :].any()
    assert not x.grad[..., :, 2:].any()


def test_padding_has_no_spikes():
    """A window over the border sees what is inside, nothing else."""
    block = attention((3,))
    x = 2 * torch.randn(1, 8, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        whole = block(x)
        corner = block(x[..., 3:, 3:])
    torch.testing.assert_close(whole[..., 3:, 3:], corner)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": (3, 4)}, "must divide into 3 heads"),
        ({"num_heads": (4,)}, "num_heads two"),
        ({"windows": (2, 4, 7)}, "these into 3 groups"),
        ({"stem": "5x5"}, "stem must be"),
        ({"group_size": 24}, "do not divide into groups of 24"),
        ({"groups": 0}, "groups and steps must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        zoo.create("ge2mst_nano", **arguments)
