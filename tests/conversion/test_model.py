"""A converted network is an ordinary module: it copies, pickles, moves, trains, streams and exports."""

import copy
import pickle

import pytest
import torch
from torch import nn

import spiking
from conversion import ConvertedModel, bypassed, convert
from conversion.network.site import sites

SETTINGS = {"qcfs": {}, "srp": {"tau": 3}, "cos": {"rho": 3}, "parallel": {}}
METHODS = sorted(SETTINGS)


def make(model, method, images, time_steps=4, **kwargs):
    return convert(model, method, time_steps, images, progress=False, **SETTINGS[method], **kwargs)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture(params=["relu", "qcfs"])
def source(request, relu_net, qcfs_net):
    return relu_net if request.param == "relu" else qcfs_net


@pytest.fixture(scope="module")
def made():
    return {}


def copy_of(made, source, method, images):
    """A conversion is made once; each test has a copy of its own."""
    key = type(source).__name__, method
    if key not in made:
        made[key] = make(source, method, images(6))
    return copy.deepcopy(made[key])


@pytest.fixture
def snn(made, source, method, images):
    return copy_of(made, source, method, images)


@pytest.fixture
def relu_snn(made, relu_net, method, images):
    return copy_of(made, relu_net, method, images)


def outputs(model, x):
    with torch.no_grad():
        return model(x, steps=True)


# ---------------------------------------------------------------- outputs


def test_shapes(snn, images):
    assert isinstance(snn, ConvertedModel)
    assert type(snn).__name__ == "ConvertedModel"
    assert not snn.training
    steps = outputs(snn, images())
    assert steps.shape == (4, 4, 5)
    torch.testing.assert_close(snn(images()), steps.mean(0))
    head = [m for m in snn.modules() if isinstance(m, nn.Linear)][-1]
    assert (snn.num_classes, snn.num_features) == (head.out_features, head.in_features)
    assert (snn.in_chans, snn.time_steps) == (3, 4)


def test_two_calls_are_equal(snn, images):
    assert torch.equal(outputs(snn, images()), outputs(snn, images()))


def test_samples_are_independent(snn, images):
    x, y = images(3), images(2, seed=5)
    together = outputs(snn, torch.cat([x, y]))
    torch.testing.assert_close(together[:, :3], outputs(snn, x), rtol=0, atol=1e-5)
    torch.testing.assert_close(together[:, 3:], outputs(snn, y), rtol=0, atol=1e-5)


def test_batch_of_one(snn, images):
    x = images()
    torch.testing.assert_close(outputs(snn, x[:1]), outputs(snn, x)[:, :1], rtol=0, atol=1e-5)


def test_layout_of_the_image(snn, images):
    x = images()
    expected = outputs(snn, x)
    last = x.to(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs(snn, last), expected, rtol=0, atol=1e-5)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    torch.testing.assert_close(outputs(snn, strided), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["qcfs", "cos"])
def test_more_steps_come_closer_to_a_relu_network(method, relu_net, images):
    x = images(6)
    errors = []
    with torch.no_grad():
        expected = relu_net(x)
        snn = make(relu_net, method, x, threshold="max")
        for T in (4, 16, 64, 256):
            snn.time_steps = T
            errors.append((snn(x) - expected).abs().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02 * expected.abs().mean()


def test_bypassed_equals_the_source_at_every_step(snn, source, images):
    x = images(3, seed=3)
    with bypassed(snn):
        steps = outputs(snn, x)
    assert len(steps) == snn.clock.time_steps
    means = steps.cumsum(0) / torch.arange(1, len(steps) + 1).view(-1, 1, 1)
    torch.testing.assert_close(means, source(x).detach().expand_as(means), rtol=0, atol=1e-4)
    assert not torch.equal(outputs(snn, x), steps), "the neurons must be back"


# ---------------------------------------------------------------- T


def test_time_steps_can_be_set(source, method, images):
    x = images()
    snn = make(source, method, x, 4)
    if method == "parallel":
        snn.time_steps = 4
        with pytest.raises(ValueError, match="convert the source again with time_steps=6"):
            snn.time_steps = 6
        return
    long = make(source, method, x, 7)
    snn.time_steps = 7
    assert snn.time_steps == 7
    assert torch.equal(outputs(snn, x), outputs(long, x))
    snn.time_steps = 1
    assert outputs(snn, x).shape[0] == 1
    with pytest.raises(ValueError, match="time_steps must be an integer of at least 1, got 0"):
        snn.time_steps = 0
    if snn.method.anytime:
        assert torch.equal(outputs(snn, x), outputs(long, x)[:1])


def test_least_squares_thresholds_are_for_the_steps_that_count(relu_net, images):
    """The rehearsal of SRP is no step of the output."""
    found = [make(relu_net, m, images(), 3, threshold="mse") for m in ("qcfs", "srp", "cos")]
    for snn in found[1:]:
        for key, value in found[0].state_dict().items():
            assert torch.equal(value, snn.state_dict()[key]), key


# ---------------------------------------------------------------- copies


def assert_same(model, twin, x):
    assert type(twin).__mro__[1] is ConvertedModel
    assert torch.equal(outputs(twin, x), outputs(model, x))
    assert list(twin.state_dict()) == list(model.state_dict())
    assert twin.recipe == model.recipe
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}
    if model.method.free_time_steps:
        twin.time_steps = 6
        assert model.time_steps == 4
        assert outputs(twin, x).shape[0] == 6
        assert outputs(model, x).shape[0] == 4
        twin.time_steps = 4
    assert str(twin.report) == str(model.report)


def test_deepcopy(snn, images):
    twin = copy.deepcopy(snn)
    assert_same(snn, twin, images())
    assert_same(snn, copy.deepcopy(twin), images())
    assert not any(m.training for m in twin.modules())
    assert all(m.training for m in copy.deepcopy(snn.train()).modules())


def test_pickle(snn, images):
    twin = pickle.loads(pickle.dumps(snn))
    assert_same(snn, twin, images())
    assert_same(snn, pickle.loads(pickle.dumps(twin)), images())
    assert not any(m.training for m in twin.modules())
    assert all(m.training for m in pickle.loads(pickle.dumps(snn.train())).modules())


def test_state_dict(snn, source, images):
    """Names of the source, and what neurons add; nothing that the graph made for itself."""
    ours, theirs = set(snn.state_dict()), set(source.state_dict())
    added = {f"{name}.{n}" for name, site in sites(snn).items() for n in site.state_dict()}
    assert theirs <= ours
    assert ours - theirs <= added
    twin = copy.deepcopy(snn)
    for p in twin.parameters():
        p.data.zero_()
    twin.load_state_dict(snn.state_dict())
    assert torch.equal(outputs(twin, images()), outputs(snn, images()))


# ---------------------------------------------------------------- dtypes and devices


def test_float64(snn, images):
    expected = outputs(snn, images())
    steps = outputs(snn.to(torch.float64), images().double())
    assert steps.dtype == torch.float64
    # a rounding difference may move a spike, but not many
    assert (steps.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_sources_of_other_dtypes(source, method, images, dtype):
    snn = make(source.to(dtype), method, images().to(dtype))
    steps = outputs(snn, images().to(dtype))
    assert steps.dtype == dtype
    assert steps.isfinite().all()
    if method == "parallel":
        assert {s.phi_in.dtype for s in sites(snn).values() if s.phi_in is not None} <= {torch.float32, dtype}


def test_meta_device(snn, images):
    """All that the graph needs is in parameters and buffers, so that nothing stays behind."""
    snn.to("meta")
    assert snn(images().to("meta"), steps=True).shape == (4, 4, 5)


def test_autocast(snn, images):
    expected = outputs(snn, images())
    with torch.autocast("cpu", torch.bfloat16):
        steps = outputs(snn, images())
    assert steps.isfinite().all()
    assert (steps.float() - expected).abs().mean() < 0.5 * expected.abs().mean()


# ---------------------------------------------------------------- training


def test_training_reaches_everything(snn, source, images):
    snn.train()
    assert all(m.training for m in snn.modules())
    norms = {n: m for n, m in snn.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms.keys() == {n for n, m in source.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {n: m.running_mean.clone() for n, m in norms.items()}
    loss = nn.functional.cross_entropy(snn(images(6)), torch.arange(6) % 5)
    loss.backward()
    for name, norm in norms.items():
        assert not torch.equal(norm.running_mean, before[name]), name
        assert norm.num_batches_tracked == 1
    for name, parameter in snn.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    trained = [n for n, _ in snn.named_parameters() if n.endswith("v_threshold")]
    assert len(trained) == len([n for n, _ in source.named_parameters() if n.endswith("v_threshold")])
    reached = [n for n, p in snn.named_parameters() if bool((p.grad != 0).any())]
    assert len(reached) > 0.8 * len(list(snn.parameters()))
    torch.optim.SGD(snn.parameters(), lr=0.01).step()
    assert outputs(snn.eval(), images()).isfinite().all()


def test_fine_tuning_learns(qcfs_net, images):
    torch.manual_seed(0)
    snn = make(qcfs_net, "qcfs", None, input_size=(3, 12, 12)).train()
    x, y = images(8), torch.arange(8) % 5
    optimiser = torch.optim.SGD(snn.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(snn(x), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


# ---------------------------------------------------------------- streaming, compilation, export


@pytest.mark.parametrize("sources", ["relu", "qcfs"])
def test_streaming_in_chunks(sources, relu_net, qcfs_net, images):
    source = relu_net if sources == "relu" else qcfs_net
    snn, x = make(source, "qcfs", images()), images(2, seed=4)
    snn.time_steps = 6
    whole = outputs(snn, x)
    for chunk in (1, 2, 3):
        snn.time_steps = chunk
        with torch.no_grad(), spiking.streaming(snn):
            parts = torch.cat([snn(x, steps=True) for _ in range(6 // chunk)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    snn.time_steps = 6
    assert torch.equal(outputs(snn, x), whole), "nothing is left behind"


@pytest.mark.parametrize("method", ["srp", "cos", "parallel"])
def test_methods_that_look_ahead_do_not_stream(method, qcfs_net, images):
    snn = make(qcfs_net, method, images())
    with pytest.raises(RuntimeError, match="is not causal"), spiking.streaming(snn):
        pass


@pytest.mark.compile
def test_compiles(relu_snn, images):
    compiled = torch.compile(relu_snn, backend="aot_eager", fullgraph=True)
    for batch in (4, 2):
        torch.testing.assert_close(outputs(compiled, images(batch)), outputs(relu_snn, images(batch)))


@pytest.mark.export
def test_exports(relu_snn, images):
    batch = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(relu_snn, (images(),), dynamic_shapes=(batch,), strict=False)
        for n in (4, 3):
            torch.testing.assert_close(program.module()(images(n)), relu_snn(images(n)))


# ---------------------------------------------------------------- shapes of sources


def test_hooks_on_layers_and_neurons(snn, images):
    seen = []
    for module in (*sites(snn).values(), *(m for m in snn.modules() if isinstance(m, nn.Conv2d))):
        module.register_forward_hook(lambda m, _, y: seen.append(m))
    outputs(snn, images())
    assert (
        len(seen)
        == len(set(seen))
        == len(sites(snn)) + len([m for m in snn.modules() if isinstance(m, nn.Conv2d)])
    )


def test_sites_of_the_relu_net(relu_net, images):
    snn = make(relu_net, "qcfs", images())
    names = list(sites(snn))
    assert names == ["relu", "block.relu", "block.relu_1", "relu6", "relu_1"]
    assert [s.activation.kind for s in sites(snn).values()] == ["relu", "relu", "relu", "clipped", "relu"]
    assert snn.report.analog == {"pool": "max_pool2d"}
    assert (snn.report.spiking_layers, snn.report.layers) == (3, 5)
    assert "site" in str(snn.report)
    assert "block.relu_1" in str(snn.report)
    assert snn.report.to_dict()["sites"][3]["activation"] == "clipped(6)"


def test_head_that_is_a_convolution(images):
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten()
    ).eval()
    snn = make(net, "qcfs", images())
    assert (snn.num_classes, snn.num_features) == (5, 6)
    assert snn(images()).shape == (4, 5)


def test_head_that_stays_a_function(images):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.prototypes = nn.Conv2d(3, 6, 3), nn.Parameter(torch.randn(5, 6))

        def forward(self, x):
            features = self.conv(x).relu().mean((2, 3))
            return nn.functional.linear(features, nn.functional.normalize(self.prototypes))

    snn = make(Tied().eval(), "qcfs", images())
    assert snn(images()).shape == (4, 5)
    assert "prototypes" in snn.state_dict()
    assert snn.report.spiking_layers == 1


def test_names_that_collide(images):
    """Modules and methods of the source that carry the names of our units."""

    class Colliding(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = nn.Conv2d(3, 6, 3), nn.Linear(6, 5)
            self.relu = nn.ReLU()
            self.relu_1 = nn.Conv2d(6, 6, 1)

        def forward(self, x):
            x = self.relu(self.encode(x))
            return self.decode(self.relu(self.relu_1(x)).mean((2, 3)))

    net = Colliding().eval()
    snn = make(net, "qcfs", images())
    assert list(sites(snn)) == ["relu", "relu_2"]
    assert isinstance(snn.relu_1, nn.Conv2d)
    assert set(net.state_dict()) <= set(snn.state_dict())


def test_tied_weights_stay_tied(images):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.b.weight = self.a.weight
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            x = self.stem(x).relu()
            x = self.b(self.a(x).relu()).relu()
            return self.head(self.a(x).relu().mean((2, 3)))

    snn = make(Tied().eval(), "qcfs", images())
    assert snn.a.weight is snn.b.weight
    assert snn(images()).shape == (4, 5)


def test_vectors():
    """A QCFS source without data may take any shape; images are needed for thresholds alone."""
    from spiking.qcfs import QCFS

    net = nn.Sequential(nn.Linear(7, 9), QCFS(4, 1.0), nn.Linear(9, 5)).eval()
    snn = convert(net, "parallel", 4, input_size=(7,), progress=False)
    x = torch.randn(3, 7)
    torch.testing.assert_close(snn(x), net(x), rtol=0, atol=1e-5)
