"""Properties of the neurons and actors of Proxy Target that follow from its equations."""

import math

import pytest
import torch

import conversion
import zoo
from zoo.models.proxy_target.neurons import NEURONS, encoder_neuron

KINDS = tuple(NEURONS)


def test_encoder_counts_in_closed_form():
    drive = torch.tensor([0.0, 0.001, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.0])
    T = 60
    spikes = encoder_neuron()(drive.expand(T, -1)).cumsum(0)
    for t in (1, 5, 17, T):
        expected = [min(t, math.ceil(t * a / 0.999 - 1e-6) - 1) if a else 0 for a in drive.tolist()]
        assert spikes[t - 1].tolist() == expected


@pytest.mark.parametrize("current", [0.14, 0.2, 0.3, 0.45, 0.51, 2.0])
def test_lif_first_fires_when_it_must(current):
    spikes = NEURONS["lif"]()(torch.full((40, 1), current))[:, 0]
    first = next(t for t in range(1, 40) if current * (1 - 0.75**t) / 0.25 > 0.5)
    assert int(spikes.argmax()) + 1 == first


def test_it_does_not_fire_at_the_threshold():
    for kind in ("lif", "clif", "plif"):
        assert NEURONS[kind]()(torch.full((1, 1), 0.5)).item() == 0.0
        assert NEURONS[kind]()(torch.full((1, 1), 0.5000001)).item() == 1.0


def test_plif_starts_as_lif():
    x = torch.randn(9, 50)
    assert torch.equal(NEURONS["plif"]()(x), NEURONS["lif"]()(x))


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_whole(kind):
    torch.manual_seed(1)
    neuron, x = NEURONS[kind](), torch.randn(8, 4, 6)
    whole, state = neuron(x), None
    for t in range(8):
        spikes, state = neuron.step(x[t], state)
        assert torch.equal(spikes, whole[t]), t


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_passes_through_the_reset(kind):
    """Against PyTorch's own gradient of the equations, with the rectangle as slope."""

    class Fire(torch.autograd.Function):
        @staticmethod
        def forward(ctx, v):
            ctx.save_for_backward(v)
            return (v > 0.5).to(v.dtype)

        @staticmethod
        def backward(ctx, grad):
            return grad * ((ctx.saved_tensors[0] - 0.5).abs() < 0.5)

    torch.manual_seed(2)
    x = (torch.randn(6, 30) * 0.7).requires_grad_()
    weights = torch.randn(6, 30)
    neuron = NEURONS[kind]()
    (neuron(x) * weights).sum().backward()
    got, x.grad = x.grad.clone(), None
    c = v = u = s = torch.zeros(30)
    total = 0.0
    for t in range(6):
        c = 0.5 * c + x[t] if kind in ("clif", "dn") else x[t]
        if kind == "dn":
            v, u = v * (1 - s) + 0.021 * s, u + 0.132 * s
            v, u = v + (v * v - v - u + c), u + (0.529 * u - 0.172 * v)
        else:
            v = 0.75 * v * (1 - s) + c
        s = Fire.apply(v)
        total = total + (s * weights[t]).sum()
    total.backward()
    torch.testing.assert_close(got, x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, "ann"])
def test_agents_are_saved_and_come_back(kind, tmp_path):
    agent = zoo.create(f"proxy_target_{kind}", obs_dim=4, act_dim=2, act_limit=3.0, hidden=(8, 8)).eval()
    x = torch.randn(5, 4) * 3
    actions = agent(x)
    assert actions.shape == (5, 2)
    assert actions.abs().max() <= 3.0
    again = zoo.load(f"local-dir:{zoo.save(agent, tmp_path / 'out')}")
    assert torch.equal(again(x), actions)
    assert "action A = 1, each in [-1, 1]" in " ".join(str(zoo.describe(f"proxy_target_{kind}")).split())
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        agent(torch.randn(5, 3))


def _imitate(model, optimizer, wanted, x):
    loss = torch.nn.functional.mse_loss(model(x), wanted(x).detach())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _online(seed):
    """A spiking actor that has learnt something, and its copy from before."""
    torch.manual_seed(seed)
    actor = zoo.create("proxy_target_lif", obs_dim=11, act_dim=1, hidden=(64, 64))
    with torch.no_grad():
        for layer in actor.layers:
            layer.weight.mul_(2.5)
        actor.decoder.weight.mul_(3.0)
    copied = zoo.create("proxy_target_lif", obs_dim=11, act_dim=1, hidden=(64, 64))
    copied.load_state_dict(actor.state_dict())
    teacher = zoo.create("proxy_target_ann", obs_dim=11, act_dim=1, hidden=(32,))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(2.0)
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-3)
    for _ in range(400):
        _imitate(actor, optimizer, teacher, torch.randn(128, 11))
    return actor, copied


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_proxy_moves_smoothly_where_an_averaged_spiking_actor_jumps(seed):
    from lightning_modules.td3 import follow

    actor, target = _online(seed)
    proxy = zoo.create("proxy_target_ann", obs_dim=11, act_dim=1, hidden=(128, 128))
    optimizer = torch.optim.Adam(proxy.parameters(), lr=1e-3)
    probes, changes = torch.randn(64, 11), {"spiking": [], "proxy": []}
    with torch.no_grad():
        last = {"spiking": target(probes), "proxy": proxy(probes)}
    for _ in range(600):
        follow(target, actor, 0.005)
        for _ in range(3):
            _imitate(proxy, optimizer, actor, torch.randn(128, 11))
        with torch.no_grad():
            now = {"spiking": target(probes), "proxy": proxy(probes)}
        for name in changes:
            changes[name].append((now[name] - last[name]).abs())
        last = now
    late = {name: torch.stack(steps[200:]) for name, steps in changes.items()}
    most = {name: float(steps.max()) for name, steps in late.items()}
    ratio = {name: most[name] / float(late[name].mean()) for name in late}
    assert most["spiking"] > 2 * most["proxy"], most
    assert ratio["spiking"] > 50, ratio
    assert ratio["proxy"] < 25, ratio


@pytest.mark.parametrize("method", ["qcfs", "dcgs"])
def test_the_ann_converts_from_vectors(method, tmp_path):
    """Observations ``[B, D]`` calibrate a conversion as images do, and the result is saved and loaded."""
    torch.manual_seed(0)
    agent = zoo.create("proxy_target_ann", obs_dim=4, act_dim=2, act_limit=3.0, hidden=(32, 32)).eval()
    x = torch.randn(256, 4)
    snn = conversion.convert(agent, method=method, time_steps=32, calibration=[x])
    assert snn(x, steps=True).shape == (32, 256, 2)
    error = [(snn(x, steps=True)[:t].mean(0) - agent(x)).abs().mean().item() for t in (1, 8, 32)]
    assert error[0] > error[1] > error[2]
    assert error[2] < 0.05
    again = zoo.load(f"local-dir:{zoo.save(snn, tmp_path / 'out')}")
    torch.testing.assert_close(again(x), snn(x))
