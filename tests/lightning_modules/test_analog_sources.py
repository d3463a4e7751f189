"""The task trains the analog sources of conversions as it trains spiking networks."""

import json

import pytest
import torch

from lightning_modules import ClassificationTask, Energy, FiringRate, RunReport
from spiking.qcfs import QCFS

SMALL = {"layers": [1, 1], "planes": [4, 8], "levels": 4, "v_threshold": 2.0}


@pytest.fixture
def task():
    torch.manual_seed(0)
    return ClassificationTask("qcfs_resnet20", SMALL, num_classes=6, in_chans=1, lr=0.05)


def thresholds(task):
    return {k: p for k, p in task.named_parameters() if k.endswith("v_threshold")}


def test_a_run_trains_tests_and_reports(task, tiny_data, trainer, tmp_path):
    before = {k: p.detach().clone() for k, p in thresholds(task).items()}
    run = trainer(callbacks=[Energy(batches=0), RunReport()])
    run.fit(task, tiny_data())
    assert all(not torch.equal(p, before[k]) for k, p in thresholds(task).items())
    run.test(task, tiny_data(), verbose=False)
    logged = run.callback_metrics
    assert logged["test/acc1"] == logged["test/acc1_t1"]
    assert logged["test/sops"] == 0
    assert logged["test/energy_mj"] == pytest.approx(logged["test/ann_energy_mj"].item())
    assert json.loads((tmp_path / "report.json").read_text())["model"] == "qcfs_resnet20"


def test_thresholds_decay_where_the_recipe_says_so(task):
    names = {id(p): k for k, p in task.named_parameters()}

    def decayed():
        groups = task.parameter_groups()
        return {names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]}

    assert len(thresholds(task)) == sum(isinstance(m, QCFS) for m in task.modules())
    assert not decayed() & set(thresholds(task))
    task.decay_all = True
    assert decayed() == set(names.values())


def test_there_is_no_firing_rate(task, tiny_data, trainer):
    with pytest.raises(ValueError, match="QCFSResNet contains no spiking neurons"):
        trainer(callbacks=[FiringRate()]).test(task, tiny_data(), verbose=False)
