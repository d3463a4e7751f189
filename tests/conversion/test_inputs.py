"""Sources that take no images: series, volumes, features, tokens."""

import pytest
import torch
from torch import nn

import spiking
import zoo
from conversion import CalibrationError, ConversionError, calibrate, convert, prepare
from zoo import registry

quiet = {"progress": False}


class Tokens(nn.Module):
    """Embedded tokens, and the mean of what a perceptron makes of them."""

    def __init__(self, num_classes=3, vocabulary=20, width=8):
        super().__init__()
        self.embed, self.num_classes = nn.Embedding(vocabulary, width), num_classes
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, width), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.mlp(self.embed(x)).mean(1))


def series():
    body = [nn.Conv1d(4, 8, 5), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


def volumes():
    body = [nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 1), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))


def features():
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))


SOURCES = {
    "series": (series, (4, 30)),
    "volumes": (volumes, (2, 6, 8, 8)),
    "features": (features, (20,)),
    "tokens": (Tokens, (10,)),
}


def source(name):
    torch.manual_seed(0)
    make, size = SOURCES[name]
    generator = torch.Generator().manual_seed(1)
    if name == "tokens":
        return make().eval(), torch.randint(20, (32, *size), generator=generator)
    return make().eval(), 3 * torch.randn(32, *size, generator=generator)


@pytest.mark.parametrize(
    "method",
    ["qcfs", "dcgs", *(pytest.param(m, marks=pytest.mark.slow) for m in ("srp", "cos", "parallel", "ecmt"))],
)
@pytest.mark.parametrize("name", SOURCES)
@torch.no_grad()
def test_sources_without_images_convert_run_and_report(name, method):
    model, x = source(name)
    snn = convert(model, method, 32, x, **quiet)
    expected = model(x)
    assert snn.report.self_test < 1e-12
    assert snn.report.images == 32
    assert snn.recipe["input_size"] == list(x.shape[1:])
    bound = 0.2 if method == "srp" else 0.1  # neurons that SRP silences stay silent, however long it runs
    assert float((snn(x) - expected).norm() / expected.norm()) < bound
    assert snn(x[:3], steps=True).shape == (32, 3, 3)
    report = spiking.profile_energy(snn, x[:4])
    assert report.samples == 4
    assert report.sops > 0
    if name != "tokens":
        assert (
            report.rows[0].ann_macs == spiking.profile_energy(model, x[:4], time_axis=False).rows[0].ann_macs
        )


def test_max_pooling_of_any_number_of_axes_comes_before_its_neuron():
    for name in ("series", "volumes"):
        model, x = source(name)
        snn = convert(model, "qcfs", 4, x, **quiet)
        assert not snn.report.analog
        assert snn.report.spiking_layers == 2


class Registered(zoo.ZooModel):
    """A classifier of tokens that the zoo can build."""

    recorded = ("num_classes",)

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.body = Tokens(num_classes)

    def forward(self, x):
        return self.body(x)


@torch.no_grad()
def test_a_network_of_tokens_goes_through_a_folder(tmp_path, monkeypatch):
    def toy_tokens(**kwargs):
        return zoo.build_model(Registered, "toy_tokens", {}, **kwargs)

    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    zoo.register_model(task="language")(toy_tokens)
    torch.manual_seed(0)
    _, x = source("tokens")
    snn = convert(zoo.create("toy_tokens").eval(), "dcgs", 8, x, **quiet)
    zoo.save(snn, tmp_path / "saved")
    again = zoo.load(f"local-dir:{tmp_path / 'saved'}")
    assert again.recipe["input_dtype"] == "int64"
    assert torch.equal(again(x), snn(x))


def test_inputs_at_run_time_are_those_of_the_source():
    model, x = source("tokens")
    snn = convert(model, "qcfs", 4, x, **quiet)
    with pytest.raises(TypeError, match=r"expected integer inputs \[B, 10\], got torch.float32"):
        snn(x.float())
    with pytest.raises(ValueError, match=r"expected \[B, 10\], got \(32, 5\); sizes are fixed"):
        snn(x[:, :5])
    model, x = source("features")
    snn = convert(model, "qcfs", 4, x, **quiet)
    with pytest.raises(TypeError, match=r"expected floating-point inputs \[B, 20\], got torch.int64"):
        snn(x.long())
    with pytest.raises(ValueError, match=r"expected \[B, 20\], got 1 axes \(20,\); add the batch axis"):
        snn(x[0])


def test_data_that_the_source_does_not_take_are_refused():
    model, x = source("features")
    with pytest.raises(CalibrationError, match=r"got 2 axes \(32, 7\), on which the source does not run"):
        convert(model, "qcfs", 4, x[:, :7], **quiet)
    with pytest.raises(CalibrationError, match=r"batch is torch\.int64, those before torch\.float32"):
        convert(model, "qcfs", 4, [x, x.long()], **quiet)
    model, x = source("tokens")
    with pytest.raises(CalibrationError, match="does not run"):
        convert(model, "qcfs", 4, x.float(), **quiet)
    snn = prepare(model, "qcfs", 4, input_size=(10,))  # tokens, since nothing else runs
    with pytest.raises((CalibrationError, ConversionError)):
        calibrate(snn, model, x.float(), **quiet)
    assert calibrate(snn, model, x, **quiet).self_test < 1e-12


def test_unscaled_series_are_no_unscaled_images():
    model, x = source("series")
    assert convert(model, "qcfs", 4, 1000 * x, **quiet).report.self_test < 1e-12
