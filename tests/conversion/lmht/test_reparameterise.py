"""LM-HT networks as single-threshold ones: equal outputs, and reasons where there is no such form."""

import copy
import functools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spiking
import zoo
from conversion import lmht
from conversion.lmht.windows import window_sums
from spiking.layers import FoldTime, SpikeMatmul

SMALL = {
    "lmht_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_resnet19": {"layers": (1, 1), "planes": (8, 16), "stem_width": 8, "hidden": 32},
    "lmht_ms_resnet18": {"layers": (1, 1), "planes": (8, 16)},
    "lmht_ms_resnet34": {"layers": (2, 1), "planes": (8, 16)},
    "lmht_vgg13": {"plan": ((8,), (8, 8), (16,)), "hidden": 32},
    "spiking_cnn_nano": {"channels": (8, 8, 16), "in_chans": 3, "neuron": "lmht"},
    "sew_resnet18": {"layers": (1, 1), "planes": (8, 16), "stem": "3x3", "neuron": "lmht"},
    "ms_resnet104": {"layers": (1, 1), "planes": (8, 16), "neuron": "lmht"},
}


def images(seed=0, batch=3):
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def build(name, levels=2, T=2, **kwargs):
    """A small network whose statistics and shifts are not those of a fresh one."""
    torch.manual_seed(0)
    args = {**SMALL[name], **kwargs}
    model = zoo.create(name, num_classes=5, time_steps=T, neuron_args={"levels": levels}, **args)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.0, 0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    with torch.no_grad():
        for k in range(3):
            model(images(seed=k, batch=8))
    return model.eval()


@functools.cache
def converted(name, levels=2, T=2):
    """A network in float64, its single-threshold form, how they compare, and what was said about it."""
    model = build(name, levels, T).double()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        single = lmht.reparameterise(model, images().double())
    return model, single, lmht.agreement(model, single, images().double()), [str(w.message) for w in told]


# ---------------------------------------------------------------- neurons


@settings(max_examples=40, deadline=None)
@given(
    levels=st.sampled_from([1, 2, 4]),
    T=st.integers(1, 4),
    theta=st.sampled_from([0.25, 1.0]),
    v_init=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
)
def test_windows_add_up_where_the_premise_holds(levels, T, theta, v_init, seed):
    """Leak 1 and currents in [0, L theta]: whatever the matrix and however a window spreads its input."""
    generator = torch.Generator().manual_seed(seed)
    neuron = spiking.LMHT(T, levels, theta, v_init).double()
    neuron.set_matrix(torch.rand(T, T, generator=generator, dtype=torch.float64) * 0.9 / T + 0.01)
    inputs = torch.rand(levels * T, 64, generator=generator, dtype=torch.float64) * theta * 0.9
    single = lmht.single_threshold(neuron)
    y, spikes = neuron(window_sums(inputs, levels)), single(inputs)
    assert set((spikes / theta).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(window_sums(spikes, levels), y, rtol=0, atol=1e-12)


def test_windows_differ_where_it_does_not():
    """A potential of 1.5 thresholds that meets a current of -1: the steps of LM-HT see both at once."""
    neuron = spiking.LMHT(1, levels=2, v_threshold=1.0, v_init=1.5)
    single = lmht.single_threshold(neuron)
    inputs = torch.full((2, 1), -0.5)
    assert neuron(window_sums(inputs, 2)).item() == 0.0
    assert single(inputs).sum().item() == 1.0


@pytest.mark.parametrize("squash", [True, False])
def test_matrix_and_leak_are_spread_over_windows(squash):
    neuron = spiking.LMHT(2, levels=3, squash=squash)
    with torch.no_grad():
        neuron.alpha.add_(0.3)
        neuron.mask.add_(torch.tensor([[0.1, -0.2], [0.3, -0.1]]))
    single = lmht.single_threshold(neuron)
    assert (single.levels, single.time_steps, single.squash) == (1, 6, False)
    leak = neuron.leak().detach()
    torch.testing.assert_close(
        single.leak(), torch.stack([leak[0], *leak.new_ones(2), leak[1], *leak.new_ones(2)])
    )
    for a in range(6):
        for b in range(6):
            assert single.mask[a, b].item() == pytest.approx(neuron.matrix()[a // 3, b // 3].item() / 3)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("name", "levels", "T"),
    [
        *((name, 2, 2) for name in SMALL),
        ("lmht_resnet18", 3, 1),
        ("lmht_vgg13", 4, 2),
        ("lmht_ms_resnet18", 4, 2),
    ],
)
def test_outputs_before_and_after_are_equal(name, levels, T):
    """Windows outside the premise are rare, and told."""
    model, single, found, told = converted(name, levels, T)
    differs = [message for message in told if "of the windows of" in message]
    if min(found.windows.values()) == 1.0:
        assert found.difference < 1e-9
        assert found.predictions == 1.0
        assert not differs
    else:
        assert len(differs) == 1
        assert min(found.windows.values()) > 0.9
    x = images().double()
    with torch.no_grad():
        assert single(x, steps=True).shape == (levels * T, 3, 5)
        assert (single(x) - model(x)).abs().max().item() == pytest.approx(found.difference, abs=1e-12)
    for neuron in (m for m in single.modules() if isinstance(m, spiking.Neuron)):
        assert neuron.levels == 1


def test_some_of_these_networks_are_exact():
    """So that the test above cannot pass by excuses alone."""
    assert sum(min(converted(name)[2].windows.values()) == 1.0 for name in SMALL) >= 2


def test_the_source_is_left_alone_and_training_mode_does_not_matter():
    model = build("lmht_resnet18").train()
    before = copy.deepcopy(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = lmht.reparameterise(model, images())
    assert model.training
    assert not single.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in single.parameters()}
    assert not shared


@pytest.mark.filterwarnings("ignore:on these images")
def test_saved_and_loaded_into_a_fresh_network(tmp_path):
    model, x = build("lmht_resnet19"), images()
    single = lmht.reparameterise(model, x)
    args = {**SMALL["lmht_resnet19"], "num_classes": 5, "time_steps": 4}
    fresh = zoo.create("lmht_resnet19", neuron_args={"levels": 1, "squash": False}, **args).eval()
    assert list(fresh.state_dict()) == list(single.state_dict())
    fresh.load_state_dict(single.state_dict())
    zoo.save(single, tmp_path / "single")
    again = zoo.load(f"local-dir:{tmp_path / 'single'}")
    with torch.no_grad():
        assert torch.equal(fresh(x), single(x))
        assert torch.equal(again(x), single(x))


@pytest.mark.filterwarnings("ignore:on these images")
def test_sequences_are_given_window_by_window():
    model = build("lmht_resnet18", levels=2, T=2).double()
    frames = torch.stack([images(seed=k) for k in range(2)]).double()
    single = lmht.reparameterise(model, frames)
    found = lmht.agreement(model, single, frames)
    with torch.no_grad():
        got, want = single(frames.repeat_interleave(2, 0)), model(frames)
    assert (got - want).abs().max().item() == pytest.approx(found.difference, abs=1e-12)
    assert found.difference < 1e-9 or min(found.windows.values()) < 1.0


class Sequence(nn.Sequential):
    """Layers over ``[T, B, ...]``, each folded; neurons see time."""

    def __init__(self, *layers):
        super().__init__(*(m if isinstance(m, spiking.Neuron) else FoldTime(m) for m in layers))


def exact(*middle, c=6):
    """Linear, neuron, ``middle``, neuron, linear in float64."""
    torch.manual_seed(1)
    model = Sequence(nn.Linear(4, c), spiking.LMHT(2), *middle, spiking.LMHT(2), nn.Linear(c, 3))
    return model.double().eval(), (torch.randn(2, 5, 4) * 6).double()


@pytest.mark.filterwarnings("ignore:on these images")
def test_norms_over_vectors_take_part():
    norm = nn.BatchNorm1d(6)
    nn.init.uniform_(norm.bias, 0.1, 0.5)
    nn.init.uniform_(norm.running_mean, -0.5, 0.5)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    model, x = exact(nn.Linear(6, 6), norm)
    single = lmht.reparameterise(model, x)
    torch.testing.assert_close(single[3].module.running_mean, norm.running_mean / 2)
    found = lmht.agreement(model, single, x)
    assert found.difference < 1e-12 or min(found.windows.values()) < 1.0


class Hidden(nn.Module):
    """A layer whose name tells nothing."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.MaxPool1d(1), r"'3\.module' \(MaxPool1d\).*average pooling"),
        (nn.LayerNorm(6), r"\(LayerNorm\).*statistic of each step"),
        (nn.GELU(), r"\(GELU\).*not affine"),
        (nn.BatchNorm1d(6, track_running_stats=False), r"\(BatchNorm1d\).*statistic of each step"),
        (spiking.LIF(), r"'3' \(LIF\) is no LM-HT neuron"),
        (Hidden(torch.relu), r"currents of '4' do not add up.*3\.module \(Hidden\)"),
        (Hidden(lambda x: x - 0.1), r"currents of '4' do not add up"),
        (Hidden(lambda x: nn.functional.max_pool1d(x, 3, 1, 1)), r"currents of '4' do not add up"),
        (Hidden(lambda x: x * x.mean()), r"currents of '4' do not add up"),
    ],
)
def test_what_does_not_add_up_is_refused(middle, message):
    model, x = exact(nn.Linear(6, 6), middle)
    with pytest.raises(lmht.ReparameterisationError, match=message):
        lmht.reparameterise(model, x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.matmul = SpikeMatmul()

    def forward(self, x):
        return self.matmul(x, x.transpose(-1, -2)) @ x


def test_attention_is_refused():
    model, x = exact(nn.Linear(6, 6), Attention())
    with pytest.raises(lmht.ReparameterisationError, match="product of two sums"):
        lmht.reparameterise(model, x)
    with pytest.warns(UserWarning, match="of the windows of '4'"):
        single = lmht.reparameterise(model, x, force=True)
    assert lmht.agreement(model, single, x).difference > 0


def test_max_pooling_before_the_first_neuron_does_no_harm_behind_it_it_does():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lmht.reparameterise(build("lmht_ms_resnet34"), images())
        with pytest.raises(lmht.ReparameterisationError, match=r"'maxpool' \(MaxPool2d\)"):
            lmht.reparameterise(zoo.create("lmht_resnet34", layers=(1,), planes=(8,)), images())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Sequence(nn.Linear(4, 4), spiking.IF()), "has no LM-HT neurons"),
        (
            Sequence(nn.Linear(4, 4), spiking.LMHT(2), spiking.LMHT(2, 4), nn.Linear(4, 4)),
            "differ in their levels",
        ),
        (Sequence(spiking.LMHT(2), nn.Linear(4, 4)), "comes before '0', the first neuron"),
        (Sequence(nn.Linear(4, 4), spiking.LMHT(2)), "comes behind '1', the last neuron"),
        (
            Sequence(nn.BatchNorm1d(4, affine=False), spiking.LMHT(2), nn.Linear(4, 4)),
            "has no gain to take a factor",
        ),
    ],
)
def test_networks_without_a_place_for_the_factor(model, message):
    with pytest.raises(lmht.ReparameterisationError, match=message):
        lmht.reparameterise(model.eval(), torch.randn(2, 5, 4))
