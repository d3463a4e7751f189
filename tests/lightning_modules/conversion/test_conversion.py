"""The task that converts: what it trains, measures and stores is the converted network."""

import pickle

import lightning.pytorch as pl
import pytest
import torch

import conversion
import spiking
import zoo
from conversion.methods.cos import cos, initial_membrane
from conversion.methods.integrate_fire import integrate_fire
from conversion.methods.srp import srp
from conversion.network.site import sites
from lightning_modules import ConversionTask, Energy, FiringRate
from lightning_modules.source import Calibration, Source

NET = {"layers": [1, 1], "planes": [4, 8], "levels": 4, "v_threshold": 2.0}
SIZE = [1, 16, 16]


@pytest.fixture
def make():
    def build(method="qcfs", net=None, **arguments):
        torch.manual_seed(0)
        source = {"model": "qcfs_resnet18", "model_args": {**NET, **(net or {})}, "pretrained": False}
        options = {"num_classes": 6, "in_chans": 1, "input_size": SIZE, "time_steps": 4, "lr": 0.02}
        return ConversionTask(source=source, method=method, **{**options, **arguments})

    return build


def images(count=4):
    return torch.randn(count, *SIZE, generator=torch.Generator().manual_seed(1))


def outputs(model):
    with torch.no_grad():
        return model.eval()(images(), steps=True)


class Losses(pl.Callback):
    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))


def test_fine_tuning_trains_the_converted_network(make, tiny_data, trainer, tmp_path):
    task, losses = make(), Losses()
    data = tiny_data(train_samples=128)
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    run = trainer(max_epochs=4, callbacks=[losses], enable_checkpointing=False)
    run.fit(task, data)
    assert sum(losses.losses[-4:]) < 0.7 * sum(losses.losses[:4])
    after = task.model.state_dict()
    assert all(not torch.equal(after[n], before[n]) for n, p in task.model.named_parameters() if p.dim() > 1)
    assert not torch.equal(after["act1.v_threshold"], before["act1.v_threshold"]), "thresholds learn, too"
    assert task.title == "qcfs_resnet18 by qcfs"

    path = tmp_path / "last.ckpt"
    run.save_checkpoint(path)
    assert not any(key.startswith("_ann") for key in torch.load(path, weights_only=True)["state_dict"])
    expected = outputs(task.model)
    loaded = zoo.load(str(path))
    assert isinstance(loaded, conversion.ConvertedModel)
    torch.testing.assert_close(outputs(loaded), expected)
    again = ConversionTask.load_from_checkpoint(path, weights_only=True)
    torch.testing.assert_close(outputs(again.model), expected)
    copy = pickle.loads(pickle.dumps(make()))
    assert copy.model.clock is copy.model.get_submodule("act1").clock

    fresh = make()  # the same settings, other weights until the checkpoint is there
    tested = trainer(callbacks=[FiringRate(), Energy(batches=0)])
    tested.test(fresh, data, ckpt_path=path, verbose=False, weights_only=True)
    torch.testing.assert_close(outputs(fresh.model), expected)
    x, y = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    with spiking.FiringRateMonitor(loaded) as monitor, torch.no_grad():
        logits = loaded(x, steps=True)
    found = tested.callback_metrics
    for t in range(1, 5):
        right = (logits[:t].mean(0).argmax(1) == y).float().mean()
        assert found[f"test/acc1_t{t}"] == pytest.approx(right.item())
    energy = spiking.profile_energy(loaded, x)
    assert found["test/firing_rate"] == pytest.approx(monitor.rate(), rel=1e-5)
    assert found["test/energy_mj"] == pytest.approx(energy.energy_mj, rel=1e-5)


def test_calibration_equals_that_of_convert_and_needs_no_fit(make, tiny_data, trainer):
    data = tiny_data()
    task = make("parallel", net={"activation": "relu"}, calibration={"samples": 12, "batch_size": 4})
    ann = task._ann[0]
    trainer().test(task, data, verbose=False)
    found = Calibration(samples=12, batch_size=4).images(data)
    whole = conversion.convert(ann, "parallel", 4, found, progress=False)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(task.model.state_dict()[name], value, msg=name)
    assert task.model.report.images == 12
    logged = trainer()
    logged.test(task, data, verbose=False)
    assert "test/acc1" in logged.callback_metrics
    assert "test/acc1_t1" not in logged.callback_metrics, "single steps of this method mean nothing"
    fit = trainer()  # what evaluation made in inference mode can be trained
    fit.fit(task, data)
    assert task.model.report.images == 12
    torch.testing.assert_close(task.model.act1.v_threshold, whole.act1.v_threshold)  # calibrated once


METHODS = {  # settings, L of the source, what is said, whether thresholds learn
    "qcfs": ({}, 4, "gradients flow through all steps and the reset; thresholds learn", True),
    "srp": ({"tau": 2}, 4, "through the T steps of the run alone", True),
    "cos": ({"rho": 2}, 4, "initial membranes that it finds are constants", True),
    "parallel": ({}, 8, "corrections stay as they were measured", True),
    "dcgs": ({}, 4, "neurons are graded", False),
    "ecmt": ({}, 4, "neurons are graded", False),
}


def test_every_method_is_here():
    assert set(METHODS) == set(conversion.list_methods())


@pytest.mark.parametrize("method", METHODS)
def test_fine_tuning_of_every_method_moves_what_it_says(method, make, tiny_data, trainer, monkeypatch):
    settings, levels, words, learn = METHODS[method]
    told, losses = [], Losses()
    monkeypatch.setattr(
        "lightning_modules.conversion.task.rank_zero_info", lambda text: told.append(str(text))
    )
    task = make(method, net={"levels": levels}, method_args=settings, calibration={"samples": 16})
    data = tiny_data(train_samples=128)
    trainer().test(task, data, verbose=False)  # calibrates
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    trainer(max_epochs=4, callbacks=[losses], enable_checkpointing=False).fit(task, data)
    assert words in told[-1]
    assert sum(losses.losses[-4:]) < 0.9 * sum(losses.losses[:4])
    after = task.model.state_dict()
    weights = [n for n, p in task.model.named_parameters() if p.dim() > 1]
    assert all(not torch.equal(after[n], before[n]) for n in weights)
    thresholds = [f"{name}.v_threshold" for name in sites(task.model)]
    assert thresholds
    assert {not torch.equal(after[n], before[n]) for n in thresholds} == {learn}
    for name in (n for n in after if n.endswith(("phi_in", "phi_out", "negative_threshold"))):
        assert torch.equal(after[name], before[name])


def test_measured_thresholds_are_said_to_stay(make):
    model = make("srp", net={"activation": "relu"}).model
    assert "thresholds stay as they were measured" in model.method.fine_tuning(model)


def test_training_what_is_its_source_is_refused(make, tiny_data, trainer):
    task = make("parallel")  # T = L = 4
    with pytest.raises(ValueError, match=r"makes no sense here.*T = L = 4.*ClassificationTask"):
        trainer(max_epochs=1).fit(task, tiny_data())
    trainer(max_epochs=0).fit(make("parallel"), tiny_data())


def test_rehearsals_take_no_gradient(make):
    """Of SRP and COS: the same network with its rehearsal cut off by hand has the same gradients."""
    for name, function in (("srp", lambda x: srp(x, 2)[0][2:]), ("cos", lambda x: cos(x, 2))):
        x = torch.rand(6, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
        weight = torch.randn(6 - 2 * (name == "srp"), 40)
        (function(x) * weight).sum().backward()
        if name == "srp":
            mask = srp(x.detach(), 2)[1]
            assert not x.grad[:2].any()
            assert not x.grad[:, ~mask].any()
            assert x.grad[2:, mask].any()
            continue
        again = x.detach().requires_grad_()
        (integrate_fire(again, initial_membrane(x.detach(), 2))[0] * weight).sum().backward()
        assert torch.equal(x.grad, again.grad)


def test_no_epoch_is_a_conversion(make, tiny_data, trainer):
    task = make()
    ann = task._ann[0]
    run = trainer(max_epochs=0)
    run.fit(task, tiny_data())
    whole = conversion.convert(ann, "qcfs", 4, input_size=SIZE, progress=False)
    torch.testing.assert_close(outputs(task.model), outputs(whole))


def test_what_cannot_be_says_so(make, tiny_data, trainer):
    with pytest.raises(ValueError, match="use loss: ce"):
        make("parallel", loss="tet")
    with pytest.raises(ValueError, match="did you mean 'srp'"):
        make("srpp")
    with pytest.raises(ValueError, match="source has no key 'modle'"):
        ConversionTask(source={"modle": "qcfs_resnet18"})
    with pytest.raises(conversion.ConversionError, match=r"does not run on inputs \[B, 3, 16\]"):
        ConversionTask(source=Source(model="timm/resnet10t", pretrained=False), input_size=[3, 16])
    task = make(net={"activation": "relu"})
    with pytest.raises(conversion.ConversionError, match=r"calibration: \{samples: 100\}"):
        trainer().test(task, tiny_data(), verbose=False)
    task = make(net={"activation": "relu"}, calibration=Calibration(samples=4))
    data = tiny_data()
    data.setup()
    with pytest.raises(ValueError, match="calibrates with the data module"):
        trainer().test(task, data.test_dataloader(), verbose=False)
