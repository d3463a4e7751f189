"""Chunks equal the whole, what cannot be cut is refused by path, and nothing outlives the block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spiking
from spiking.layers import BNTT, TEBN, FoldTime
from spiking.streaming import streaming

T = 8
NEURONS = {
    "if": spiking.IF(),
    "if-soft": spiking.IF(v_reset=None),
    "lif": spiking.LIF(tau=2.0),
    "lif-soft": spiking.LIF(tau=1.7, v_reset=None),
    "lif-no-decay-input": spiking.LIF(tau=2.0, decay_input=False, v_reset=-0.3),
    "plif": spiking.PLIF(),
    "klif": spiking.KLIF(),
    "clif": spiking.CLIF(),
    "sliding-psn": spiking.SlidingPSN(order=3),
    "masked-psn": spiking.MaskedPSN(time_steps=T, order=3, strength=1.0),
    "reference": spiking.LIF(backend="reference"),
}


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    second = spiking.CLIF(v_threshold=0.25)
    model = nn.Sequential(FoldTime(nn.Conv2d(2, 4, 3)), spiking.LIF(), FoldTime(nn.Conv2d(4, 3, 3)), second)
    with torch.no_grad():
        for weight in model.parameters():  # eighths, so that sums are exact in any order
            weight.copy_((weight * 8).round() / 8)
    return model.eval()


def frames() -> torch.Tensor:
    return (torch.randn(T, 2, 2, 8, 8) * 12).round() / 4


def states(model: nn.Module) -> list[object]:
    return [m.stream for m in model.modules() if isinstance(m, spiking.Neuron)]


@pytest.mark.parametrize("chunks", [[1] * T, [3, 1, 4], [T]], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_chunks_equal_the_whole(name: str, chunks: list[int]):
    torch.manual_seed(2)
    neuron = NEURONS[name].eval()
    x = torch.randn(T, 3, 5) * 2
    with torch.no_grad():
        whole = neuron(x)
        with streaming(neuron):
            parts = [neuron(part) for part in x.split(chunks)]
        again = neuron(x)
    assert 0 < whole.mean() < 1
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(again, whole)  # nothing stayed


def test_a_network_streams_from_rest_at_every_block(model: nn.Sequential):
    x = frames()
    keys = list(model.state_dict())
    with torch.no_grad():
        whole = model(x)
        for chunk in (2, 4):
            with streaming(model):
                assert torch.equal(torch.cat([model(part) for part in x.split(chunk)]), whole)
                assert list(model.state_dict()) == keys
    assert whole.any()


def test_state_carries_over():
    neuron = spiking.IF().eval()
    half = torch.full((1, 1, 1), 0.5)
    assert [neuron(half).item() for _ in range(2)] == [0.0, 0.0]
    with streaming(neuron):
        assert [neuron(half).item() for _ in range(4)] == [0.0, 1.0, 0.0, 1.0]


def test_state_is_gone_after_an_exception(model: nn.Sequential):
    model.append(nn.Linear(5, 5).eval())  # does not fit, complains after the neurons have run
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), streaming(model):
        model(torch.rand(1, 1, 2, 8, 8))
    assert states(model) == [None, None]
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_training_mode_is_refused(model: nn.Sequential):
    model[2].train()
    with pytest.raises(RuntimeError, match=r"2 is in training mode; call model\.eval\(\)"), streaming(model):
        pass
    with pytest.raises(RuntimeError, match="LIF is in training mode"), streaming(spiking.LIF().train()):
        pass
    model.eval()
    with streaming(model):
        model.train()
        with pytest.raises(RuntimeError, match="1 was put into training mode"):
            model(torch.rand(1, 1, 2, 8, 8))
    assert states(model) == [None, None]


@pytest.mark.parametrize(
    ("neuron", "kind"),
    [
        (spiking.PSN(time_steps=4), "PSN"),
        (spiking.MaskedPSN(time_steps=4, strength=0.5), "MaskedPSN"),
        (spiking.GLIF(time_steps=4), "GLIF"),
    ],
)
def test_neurons_that_see_the_future_are_refused_by_path(model: nn.Sequential, neuron: nn.Module, kind: str):
    model[3] = neuron.eval()
    with pytest.raises(RuntimeError, match=rf"3 \({kind}\) is not causal"), streaming(model):
        pass
    assert states(model) == [None, None]


@pytest.mark.parametrize("norm", [TEBN(4, T), BNTT(4, T)])
def test_norms_with_steps_in_their_parameters_are_refused(model: nn.Sequential, norm: nn.Module):
    model.insert(1, norm.eval())
    with pytest.raises(
        RuntimeError, match=rf"1 \({type(norm).__name__}\) has parameters for each of its T = 8"
    ):
        streaming(model).__enter__()


def test_blocks_do_not_nest(model: nn.Sequential):
    x = frames()
    with torch.no_grad(), streaming(model):
        first = model(x[:4])
        with pytest.raises(RuntimeError, match=r"1 \(LIF\) streams already"), streaming(model):
            pass
        rest = model(x[4:])  # the refusal did not disturb the outer block
    assert torch.equal(torch.cat([first, rest]), model(x))


def test_another_batch_size_names_the_way_out(model: nn.Sequential):
    with streaming(model):
        model(torch.rand(1, 2, 2, 8, 8))
        with pytest.raises(
            ValueError, match=r"1 received steps .* leave the streaming block and enter it again"
        ):
            model(torch.rand(1, 3, 2, 8, 8))
    with streaming(model):
        model(torch.rand(1, 3, 2, 8, 8))


def test_a_model_without_neurons_is_refused():
    with (
        pytest.raises(ValueError, match="Linear contains no spiking neurons"),
        streaming(nn.Linear(2, 2).eval()),
    ):
        pass


def test_a_shared_neuron_is_no_trap(model: nn.Sequential):
    # one module in two places would mix two sequences; shapes differ here, so it is noticed
    model[3] = model[1]
    with pytest.raises(ValueError, match="received steps"), streaming(model):
        model(torch.rand(1, 1, 2, 8, 8))
    assert states(model) == [None]


@pytest.mark.compile
def test_a_compiled_model_streams():
    neuron = spiking.LIF().eval()
    compiled = torch.compile(neuron, backend="aot_eager")
    x = torch.rand(T, 2, 5) * 3
    with torch.no_grad():
        whole = neuron(x)
        assert torch.equal(compiled(x), whole)
        with streaming(compiled):
            assert torch.equal(torch.cat([compiled(part) for part in x.split(2)]), whole)
        assert torch.equal(compiled(x), whole)
    assert 0 < whole.mean() < 1
