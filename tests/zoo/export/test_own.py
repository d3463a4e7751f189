"""Plain modules with neurons of ours, and networks of other tasks than classification."""

from __future__ import annotations

import tempfile

import pytest
import torch
from torch import nn

import spiking
import zoo
from cli.main import main
from spiking.layers import FoldTime
from zoo.export.interface import interface_of
from zoo.export.plan import plan_of
from zoo.export.request import Request

pytestmark = pytest.mark.export


class Sequences(nn.Module):
    """Takes ``[T, B, 1, 7, 5]``, maps of odd sides."""

    pretrained_cfg = {"input_size": (1, 7, 5)}  # noqa: RUF012
    time_steps = 3

    def __init__(self, neuron="lif"):
        super().__init__()
        self.convolution = FoldTime(nn.Conv2d(1, 4, 3, padding=1))
        self.fire = spiking.get_neuron(neuron)
        self.classify = nn.Linear(4 * 7 * 5, 3)

    def forward(self, x):
        return self.classify(self.fire(4 * self.convolution(x)).flatten(2))


class Images(Sequences):
    """Takes images and makes T steps of them."""

    def forward(self, x):
        return super().forward(x.expand(3, *x.shape)).mean(0)


def made(cls, *arguments):
    torch.manual_seed(0)
    return cls(*arguments).eval()


@pytest.mark.parametrize(
    ("cls", "sequence", "inputs", "outputs"),
    [
        (Sequences, True, "[3, batch, 1, 7, 5]", "[3, batch, 3]"),
        (Images, False, "[batch, 1, 7, 5]", "[batch, 3]"),
    ],
)
def test_how_a_module_is_called_shows_when_it_runs(cls, sequence, inputs, outputs):
    interface = interface_of(made(cls), sequence)
    drawn = interface.draw(5, torch.Generator().manual_seed(0))
    assert interface.inputs[0].axes(drawn[0]) == inputs
    assert interface.outputs[0].axes(interface(drawn)[0]) == outputs


def test_a_module_that_estimates_numbers_gives_values():
    model = made(Images)
    assert interface_of(model).outputs[0].name == "logits"
    model.task = "regression"
    assert interface_of(model).outputs[0].name == "values"


@pytest.mark.parametrize("neuron", ["lif", "plif", "clif"])
def test_one_step_of_a_module(neuron):
    plan = plan_of(made(Sequences, neuron), Request(step=True))
    drawn = plan.compared.draw(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        (wanted,), (found,) = plan.compared(drawn), plan.whole(plan.traced)(drawn)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert wanted.std() > 0, "a silent module proves nothing"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["step", "sequence"])
def test_a_module_in_onnx(kind, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = zoo.export(made(Sequences, "clif"), tmp_path / "own.onnx", **{kind: True})
    assert "equal to PyTorch on 4 random inputs" in done.checked
    assert "silent" not in done.checked


def of_vectors(time_steps):
    model = nn.Sequential(nn.Linear(3, 4), spiking.IF(), nn.Linear(4, 2)).eval()
    model.pretrained_cfg = {"input_size": (3,)}
    model.time_steps = time_steps
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (of_vectors(2), {}, "takes samples for time steps.*sequence=True"),
        (of_vectors(None), {"sequence": True}, "set model.time_steps"),
        (made(Sequences), {}, r"does not take \[2, 1, 7, 5\].*sequence=True"),
        (made(Images), {"step": True}, r"needs a module that takes \[T, B, ...\]"),
    ],
)
def test_modules_that_are_called_otherwise(model, options, message, tmp_path):
    with pytest.raises(zoo.ExportError, match=message):
        zoo.export(model, tmp_path / "own.pt2", **options)
    assert list(tmp_path.iterdir()) == []


def test_maps_and_values_are_answers_too():
    segments = zoo.create("spiking_fpn_nano", encoder_args={"channels": (4, 4)}, width=4).eval()
    interface = interface_of(segments)
    (x,) = interface.draw(2, torch.Generator())
    assert interface.outputs[0].axes(interface((x,))[0]) == "[4, batch, 4, 32, 32]"
    estimates = zoo.create("spiking_cnn_nano", channels=(4,), num_classes=1).eval()
    estimates.task = "regression"
    assert [port.name for port in interface_of(estimates).outputs] == ["values"]


def test_what_no_call_has_is_refused_before_it_is_built(capsys, monkeypatch):
    monkeypatch.setattr(zoo, "load", lambda *_, **__: pytest.fail("this network has 34 billion weights"))
    with pytest.raises(SystemExit, match="2"):
        main(["export", "emu3_5", "--to", "pt2"])
    assert "whose inputs and outputs no single call has" in capsys.readouterr().err


def test_where_nothing_can_be_written_is_told_at_once(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match="cannot write into the folder"):
        zoo.export(made(Sequences), tmp_path / "own.pt2", sequence=True)
    monkeypatch.undo()
    with pytest.raises(zoo.ExportError, match="the suffix of onnx, but is to be pt2"):
        zoo.export(made(Sequences), tmp_path / "own.onnx", "pt2")
