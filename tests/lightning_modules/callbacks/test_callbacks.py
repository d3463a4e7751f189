"""Callbacks measure what the tools they stand on measure, and leave files behind."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger

import spiking
from lightning_modules import CompressSpikes, Energy, FiringRate, RasterFigure, ResumableState, RunReport
from spiking import compression


def test_measurements_equal_the_tools_and_the_report_is_written(tiny_task, tiny_data, trainer, tmp_path):
    task, data = tiny_task(), tiny_data()
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    callbacks = [FiringRate(), Energy(batches=0), RasterFigure(), RunReport()]
    run = trainer(callbacks=callbacks, logger=logger, log_every_n_steps=1)
    run.fit(task, data)
    assert "val/firing_rate" in run.callback_metrics
    run.test(task, data, verbose=False)
    logged = run.callback_metrics
    images = torch.cat([x for x, _ in data.test_dataloader()])
    report = spiking.profile_energy(task.model, images)
    assert logged["test/sops"] == pytest.approx(report.sops, rel=1e-5)
    assert logged["test/energy_mj"] == pytest.approx(report.energy_mj, rel=1e-5)
    assert logged["test/ann_energy_mj"] == pytest.approx(report.ann_energy_mj, rel=1e-5)
    task.eval()
    with spiking.FiringRateMonitor(task.model) as monitor, torch.no_grad():
        task(images)
    assert logged["test/firing_rate"] == pytest.approx(monitor.rate(), rel=1e-5)
    for name in ("curves", "firing_rates", "raster"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["metrics"]["test/acc1"] == pytest.approx(float(logged["test/acc1"]))
    assert "energy" in (tmp_path / "report.md").read_text()


def test_hooks_are_gone_after_a_run_and_after_an_error(tiny_task, tiny_data, trainer):
    task = tiny_task()
    trainer(callbacks=[FiringRate(), Energy()]).test(task, tiny_data(), verbose=False)
    broken = tiny_task(num_classes=3)
    with pytest.raises(ValueError, match="classes"):
        trainer(callbacks=[FiringRate(), Energy()]).test(broken, tiny_data(), verbose=False)
    for module in (*task.modules(), *broken.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_moving_averages_are_lightnings(tiny_task, tiny_data, trainer):
    task = tiny_task()
    trainer(callbacks=[EMAWeightAveraging(decay=0.9)]).fit(task, tiny_data())
    assert all(p.isfinite().all() for p in task.parameters())


def test_every_step_draws_the_same_numbers_whatever_came_before(tiny_task, trainer):
    run, draws = trainer(), []
    for _ in range(2):
        torch.rand(int(torch.randint(1, 9, ())))
        ResumableState().on_train_batch_start(run, tiny_task(), None, 3)
        draws.append(torch.rand(4))
    ResumableState().on_train_batch_start(run, tiny_task(), None, 4)
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(4))


@pytest.mark.parametrize(("cls", "options"), [(Energy, {"batches": -1}), (RasterFigure, {"sample": -1})])
def test_impossible_options_name_themselves(cls, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        cls(**options)


def test_compressed_spikes_change_no_weight_and_leave_nothing_behind(
    tiny_task, tiny_data, trainer, monkeypatch
):
    monkeypatch.setattr(compression, "SMALLEST", 512)
    packed = []
    pack = compression.pack
    monkeypatch.setattr(compression, "pack", lambda x: packed.append(pack(x)) or packed[-1])
    weights = []
    for callbacks in ([], [CompressSpikes()]):
        torch.manual_seed(3)
        task = tiny_task()
        trainer(callbacks=callbacks).fit(task, tiny_data())
        weights.append(task.state_dict())
    assert [found for found in packed if found], "spikes were kept as bits"
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    broken = CompressSpikes()
    with pytest.raises(ValueError, match="classes"):
        trainer(callbacks=[broken]).fit(tiny_task(num_classes=3), tiny_data())
    count = len(packed)
    layer = torch.nn.Linear(64, 8)
    layer(torch.ones(512, 64)).sum().backward()
    assert len(packed) == count, "no hook is left"
