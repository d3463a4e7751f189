"""Spiking actors, and two calls of the update rule, against the code behind 2505.24161."""

import copy
from types import SimpleNamespace

import pytest
import torch

import zoo
from lightning_modules.td3 import Networks, Rule, update
from tests.parity.goldens import over_files
from zoo.models.proxy_target import AnalogActor, PopulationActor, TwinCritics

pytestmark = pytest.mark.golden
NEURONS = ("LIF", "CLIF", "PLIF", "DN")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-4, "atol": 1e-4}


def our_key(key):
    """Theirs to ours; None for the leaks that other neurons do not have."""
    key = key.replace("snn.", "").replace("hidden_layers.", "layers.").replace("decoder.decoder", "decoder")
    return key.replace("plifnodes.", "neurons.")


def ours(stored, layers):
    """A state dict for an actor with ``layers`` layers; leaks say what stays, ours what goes."""
    found = {}
    for key, value in stored.items():
        name = our_key(key).replace("out_pop_layer", f"layers.{layers - 1}")
        found[name] = -value if name.endswith(".w") else value
    return found


def leaks_dropped(state, actor):
    return {key: value for key, value in state.items() if key in actor.state_dict()}


@over_files("obs", "probe", "encoder_spikes", "*.action", "*.out_pop_rate")
@pytest.mark.parametrize("neuron", NEURONS)
def test_actors(golden, neuron):
    settings = golden.settings
    hidden = settings["hidden_sizes"]
    actor = zoo.create(
        f"proxy_target_{neuron.lower()}",
        obs_dim=settings["obs_dim"],
        act_dim=settings["act_dim"],
        act_limit=settings["act_limit"],
        hidden=hidden,
        time_steps=settings["spike_ts"],
    )
    layers = len(hidden) + 1
    stored = {**golden.under("LIF.param."), **golden.under(f"{neuron}.param.")}
    actor.load_state_dict(leaks_dropped(ours(stored, layers), actor), strict=True)
    observations = golden["obs"]
    spikes = actor.encoder(torch.tanh(observations), actor.time_steps)
    golden.equal("encoder_spikes", spikes.permute(1, 2, 0))
    golden.close(f"{neuron}.out_pop_rate", actor.rates(observations), **CLOSE)
    actions = actor(observations)
    golden.close(f"{neuron}.action", actions, **CLOSE)
    (actions * golden["probe"]).sum().backward()
    wanted = ours(golden.under(f"{neuron}.grad."), layers)
    assert wanted
    got = dict(actor.named_parameters())
    for name, value in wanted.items():
        torch.testing.assert_close(got[name].grad.reshape(value.shape), value, **GRADIENTS, msg=name)


def critics_state(stored):
    """Two stacks of layers ``l1`` to ``l6``: the first half is the first critic."""
    numbers = sorted({int(key.split(".")[0][1:]) for key in stored})
    half, found = len(numbers) // 2, {}
    for key, value in stored.items():
        name, kind = key.split(".")
        place = numbers.index(int(name[1:]))
        found[f"{'first' if place < half else 'second'}.{place % half * 2}.{kind}"] = value
    return found


def stack_state(stored):
    return {
        f"layers.{(int(key[1:].split('.')[0]) - 1) * 2}.{key.split('.')[1]}": v for key, v in stored.items()
    }


def number(settings, name):
    """A number, or the number in ``0.2*max_action``."""
    return float(str(settings[name]).partition("*")[0])


@over_files("init.*", "batch0.*", "noise0", "after*")
def test_calls_of_the_update_rule(golden):
    settings = golden.settings
    sizes = {"obs_dim": settings["state_dim"], "act_dim": settings["action_dim"]}
    sizes["act_limit"] = settings["max_action"]
    actor = PopulationActor(**sizes, hidden=settings["actor_hidden"])
    layers = len(settings["actor_hidden"]) + 1
    actor.load_state_dict(leaks_dropped(ours(golden.under("init.actor."), layers), actor), strict=True)
    proxy = AnalogActor(**sizes, hidden=settings["proxy_hidden"])
    proxy.load_state_dict(stack_state(golden.under("init.proxy.")), strict=True)
    critics = TwinCritics(sizes["obs_dim"], sizes["act_dim"], settings["critic_hidden"])
    critics.load_state_dict(critics_state(golden.under("init.critic.")), strict=True)
    targets = copy.deepcopy(critics)
    targets.load_state_dict(critics_state(golden.under("init.critic_target.")), strict=True)
    networks = Networks(actor=actor, target_actor=proxy, critics=critics, target_critics=targets)
    rule = Rule(
        act_limit=sizes["act_limit"],
        discount=settings["discount"],
        tau=settings["tau"],
        policy_noise=number(settings, "policy_noise"),
        noise_clip=number(settings, "noise_clip"),
        policy_delay=settings["policy_freq"],
    )
    optimizers = {
        "actor": torch.optim.Adam(actor.parameters(), lr=3e-4),
        "critic": torch.optim.Adam(critics.parameters(), lr=3e-4),
        "proxy": torch.optim.Adam(proxy.parameters(), lr=settings["proxy_lr"]),
    }
    k, calls = settings["proxy_iters"], len([key for key in golden.keys if key.startswith("noise")])
    for call in range(calls):
        batches = [
            SimpleNamespace(
                observation=golden[f"batch{j}.state"],
                action=golden[f"batch{j}.action"],
                next_observation=golden[f"batch{j}.next_state"],
                reward=golden[f"batch{j}.reward"],
                not_done=golden[f"batch{j}.not_done"],
            )
            for j in range(k * call, k * (call + 1))
        ]
        update(networks, rule, batches, golden[f"noise{call}"], optimizers, call + 1)
    after = f"after{calls}."
    for got, wanted in (
        (actor, leaks_dropped(ours(golden.under(f"{after}actor."), layers), actor)),
        (proxy, stack_state(golden.under(f"{after}proxy."))),
        (critics, critics_state(golden.under(f"{after}critic."))),
        (targets, critics_state(golden.under(f"{after}critic_target."))),
    ):
        assert got.state_dict().keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(got.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    golden.everything_was_compared()
