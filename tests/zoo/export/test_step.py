"""One step a call with states in and out: as many steps as one likes, equal to the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import spiking
import zoo
from conversion import convert
from conversion.network.units import Increments, RunningMean
from spiking.neurons import MultiThreshold, Tracking
from spiking.neurons.base import Temporal
from spiking.reference.multi_threshold import choose_level, choose_level_at_once
from tests.zoo.export.lively import liven
from zoo.export.interface import interface_of
from zoo.export.step import one_step

pytestmark = pytest.mark.export
LEVELS = spiking.Levels.largest(torch.tensor([[1.0, 2.0, 0.0]]), 4)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    small = zoo.create("spiking_cnn_nano", channels=(8, 8), num_classes=3, time_steps=2)
    return liven(small, torch.randn(8, 1, 28, 28))


def test_steps_of_a_file_go_on_as_long_as_one_likes(network, tmp_path):
    done = zoo.export(network, tmp_path / "step.pt2", step=True)
    assert "silent" not in done.checked
    assert list(done.inputs)[:3] == ["images", "steps_done", "state.levels.0.v"]
    assert list(done.outputs)[:3] == ["logits", "next.steps_done", "next.levels.0.v"]
    step = torch.export.load(done.path).module()
    image, counter = torch.randn(3, 1, 28, 28), torch.tensor(0)
    states = [
        torch.full([3 if axis == "batch" else int(axis) for axis in text.strip("[]").split(", ")], 7.0)
        for name, text in done.inputs.items()
        if name.startswith("state.")  # whatever they are, the first step starts from rest
    ]
    logits = []
    for _ in range(5):
        now, counter, *states = step(image, counter, *states)
        logits.append(now)
    assert int(counter) == 5
    network.time_steps = 5
    try:
        with torch.no_grad():
            torch.testing.assert_close(torch.stack(logits), network(image, steps=True), rtol=1e-4, atol=1e-5)
    finally:
        network.time_steps = 2


@pytest.mark.parametrize(
    "unit",
    [
        spiking.IF(),
        spiking.LIF(v_reset=None),
        spiking.PLIF(v_reset=-0.25),
        spiking.KLIF(),
        spiking.CLIF(),
        spiking.get_neuron("lmh"),
        spiking.get_neuron("slidingpsn", order=3),
        MultiThreshold(spiking.Levels.single(torch.tensor([[1.0, 2.0, 3.0]]))),
        MultiThreshold(LEVELS, "relu"),
        Tracking(LEVELS, "relu"),
        Tracking(LEVELS, code="rate"),
        RunningMean(),
        Increments(),
        zoo.create("proxy_target_clif").neurons[0],
        zoo.create("proxy_target_dn").neurons[0],
    ],
    ids=lambda unit: type(unit).__name__,
)
def test_the_state_at_rest_is_where_every_unit_begins(unit: Temporal):
    x = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)) * 2
    rest = unit.initial_state(x[0])
    given, after = unit.run(x, rest, True)
    expected, wanted = unit.run(x, None, True)
    torch.testing.assert_close(given, expected, rtol=0, atol=0)
    torch.testing.assert_close(after, wanted, rtol=0, atol=0)
    if isinstance(rest, tuple) and not isinstance(rest[0], torch.Tensor):  # a count may be a tensor, too
        counted = unit.run(x, (torch.tensor(0), *rest[1:]), True)
        torch.testing.assert_close(counted[0], expected, rtol=0, atol=0)
        assert int(counted[1][0]) == 4


@pytest.mark.parametrize("kind", ["identity", "relu", "positive"])
@pytest.mark.parametrize(
    "levels",
    [
        LEVELS,
        spiking.Levels.smallest(torch.tensor([[0.25, 0.5, -1.0]]), torch.tensor([[0.5, 0.0, 0.25]]), 5),
        spiking.Levels.single(torch.tensor([[1.0, 0.0, -1.0]])),
    ],
    ids=["largest", "smallest", "single"],
)
def test_all_levels_at_once_choose_what_one_after_the_other_does(levels, kind):
    grid = torch.arange(-64, 65) / 16  # hits every boundary exactly
    u = torch.cat([grid, torch.randn(200)]).unsqueeze(1).expand(-1, 3)
    sent = (torch.randint(0, 17, u.shape) / 4).float()
    torch.testing.assert_close(
        choose_level_at_once(u, sent, levels, kind), choose_level(u, sent, levels, kind), rtol=0, atol=0
    )


class Convolutions(nn.Module):
    """A source of a conversion."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(144, 3),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize(
    "method",
    ["dcgs", *(pytest.param(name, marks=pytest.mark.slow) for name in ("qcfs", "srp", "ecmt"))],
)
def test_a_converted_network_has_one_step(method):
    torch.manual_seed(0)
    settings = {"tau": 0} if method == "srp" else {}
    images = torch.randn(8, 1, 8, 8)
    source = Convolutions().eval()
    snn = convert(source, method=method, time_steps=4, calibration=images, progress=False, **settings)
    step, whole = one_step(snn, interface_of(snn))
    (frames,) = whole.draw(3, torch.Generator().manual_seed(0))
    _, counter, *states = step.draw(3, torch.Generator())
    logits = []
    with torch.no_grad():
        for frame in frames:
            now, counter, *states = step((frame, counter, *states))
            logits.append(now)
        torch.testing.assert_close(torch.stack(logits), whole((frames,))[0], rtol=1e-5, atol=1e-6)
    assert len(torch.stack(logits)[0].unique(dim=0)) == 3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("spiking_cnn_nano", {"neuron": "psn"}, "is not causal"),
        (
            "spiking_cnn_nano",
            {"neuron": "maskedpsn", "neuron_args": {"strength": 1.0}},
            "grows from step to step",
        ),
        ("proxy_target_lif", {"hidden": (8,)}, "one answer after all its time steps"),
        ("qcfs_resnet20", {}, "one answer after all its time steps"),
    ],
)
def test_what_has_no_single_step_says_why(tmp_path, name, arguments, message):
    with pytest.raises(zoo.ExportError, match=message):
        zoo.export(zoo.create(name, **arguments), tmp_path / "net.pt2", step=True)
    assert list(tmp_path.iterdir()) == []
