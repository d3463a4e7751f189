"""Direct training: options, schedule, bad input, and a whole run."""

import shutil

import pytest
import torch

import zoo
from conversion import convert
from lightning_modules import BaseTask, ClassificationTask
from lightning_modules.optimizer import spared_from_decay
from spiking.qcfs import QCFS


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loss": "tet"},
        {"mixup": 0.5, "cutmix": 1.0, "label_smoothing": 0.1},
        {"optimizer": "sgd", "warmup_epochs": 0.5, "warmup_lr": 1e-3, "schedule_interval": "epoch"},
        {"channels_last": False},
    ],
    ids=lambda o: "+".join(o) or "default",
)
def test_a_run_trains_and_logs(options, tiny_task, tiny_data, trainer):
    task = tiny_task(**options)
    before = task.model.classifier.weight.detach().clone()
    run = trainer()
    run.fit(task, tiny_data())
    assert not torch.equal(before, task.model.classifier.weight)
    assert {"train/loss", "train/acc1", "val/loss", "val/acc1", "val/acc5"} <= set(run.callback_metrics)
    run.test(task, tiny_data(), verbose=False)
    logged = run.callback_metrics
    assert logged["test/acc1"] == logged["test/acc1_t2"]
    assert "test/acc1_t1" in logged


@pytest.mark.parametrize(("width", "innermost"), [(4, False), (16, True)])
def test_a_convolution_that_would_overrun_its_memory_keeps_the_layout(width, innermost):
    """oneDNN writes past its buffer for strided 1 x 1 convolutions of few channels that are innermost."""
    net = {"layers": [1, 1], "planes": [width, 8], "activation": "relu"}
    task = ClassificationTask("qcfs_resnet18", net, num_classes=3, in_chans=1)
    assert task.channels_last is innermost
    x = task.prepare(torch.randn(4, 1, 16, 16))
    assert x.is_contiguous(memory_format=torch.channels_last) or not innermost
    found = []
    for enabled in (True, False):
        task.zero_grad()
        with torch.backends.mkldnn.flags(enabled=enabled, allow_tf32=False):
            task(x).square().sum().backward()
        found.append([p.grad.clone() for p in task.parameters()])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_the_mean_accuracy_is_that_of_the_model(tiny_task, tiny_data, trainer):
    task, data, run = tiny_task(), tiny_data(), trainer()
    run.test(task, data, verbose=False)
    task.eval()
    with torch.no_grad():
        hits = torch.cat([task.model(x).argmax(1) == y for x, y in data.test_dataloader()])
    assert run.callback_metrics["test/acc1"] == pytest.approx(hits.float().mean().item())


def test_events_are_transposed_once(tiny_task, tiny_data, trainer):
    task = tiny_task(in_chans=2)
    run = trainer(max_steps=2)
    run.fit(task, tiny_data(kind="events", in_chans=2, time_steps=3))
    x = torch.rand(4, 3, 2, 16, 16)
    assert task(x).shape == (3, 4, 6)


def test_bf16_mixed_trains(tiny_task, tiny_data, trainer):
    task = tiny_task()
    trainer(precision="bf16-mixed", max_steps=2).fit(task, tiny_data())
    assert all(p.isfinite().all() and p.dtype is torch.float32 for p in task.parameters())


def test_mixing_stops_when_told(tiny_task, tiny_data, trainer):
    task = tiny_task(mixup=1.0, mixup_off_epoch=1)
    trainer(max_steps=1).fit(task, tiny_data())
    x, y = torch.rand(4, 1, 16, 16), torch.tensor([0, 1, 2, 3])
    assert task.mix(x, y)[1].dim() == (2 if task.current_epoch == 0 else 1)
    task.mixup_off_epoch = 0
    assert task.mix(x, y)[1].shape == (4, 6)
    assert task.mix(x[:3], y[:3])[0].shape[0] == 2  # timm mixes pairs


def test_checkpoints_load_without_running_code(tiny_task, tiny_data, trainer, tmp_path):
    task, run = tiny_task(), trainer(enable_checkpointing=True, max_steps=1)
    run.fit(task, tiny_data())
    run.save_checkpoint(tmp_path / "x.ckpt")
    loaded = ClassificationTask.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded.eval()(x), task.eval()(x))
    alone = zoo.load(str(tmp_path / "x.ckpt"))
    assert torch.equal(alone(x), task(x).mean(0))


def test_weights_for_fine_tuning_are_loaded(tiny_task, tiny_data, trainer, tmp_path):
    source = tiny_task().model
    zoo.save(source, tmp_path / "saved")
    arguments = {"time_steps": 2, "channels": [4, 8], "pool_size": 1}
    task = tiny_task(model_args={**arguments, "weights": str(tmp_path / "saved")})
    for key, value in source.state_dict().items():
        assert torch.equal(value, task.model.state_dict()[key]), key
    run = trainer(max_steps=1)
    run.fit(task, tiny_data())
    run.save_checkpoint(tmp_path / "tuned.ckpt")
    shutil.rmtree(tmp_path / "saved")  # the checkpoint stands alone
    again = ClassificationTask.load_from_checkpoint(tmp_path / "tuned.ckpt", weights_only=True)
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(again.eval()(x), task.eval()(x))
    assert torch.equal(zoo.load(str(tmp_path / "tuned.ckpt"))(x), task(x).mean(0))


def test_vectors_scalars_and_neuron_parameters_are_not_decayed(tiny_task):
    task = tiny_task(model_args={"time_steps": 2, "channels": [4, 8], "neuron": "plif"}, weight_decay=0.1)
    spared = spared_from_decay(task)
    assert "model.classifier.bias" in spared
    assert any(name.endswith(".w") for name in spared)
    assert "model.classifier.weight" not in spared
    decays = {g["weight_decay"]: sum(p.numel() for p in g["params"]) for g in task.parameter_groups()}
    assert set(decays) == {0.1, 0.0}
    assert sum(decays.values()) == sum(p.numel() for p in task.parameters())
    everything = tiny_task(decay_all=True, weight_decay=0.1).parameter_groups()
    assert [g["weight_decay"] for g in everything] == [0.1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mse"}, "loss"),
        ({"lr": -1.0}, "lr"),
        ({"optimizer": "adamm"}, "adamm"),
        ({"schedule": "step"}, "schedule"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"model_args": {"neuron": "liff"}}, "liff"),
        ({"model_args": {"time_steps": 0}}, "time_steps"),
    ],
)
def test_impossible_options_name_themselves(options, words, tiny_task):
    with pytest.raises(ValueError, match=words):
        tiny_task(**options)


def test_an_unknown_model_is_named():
    with pytest.raises(zoo.UnknownModelError, match="did you mean 'spiking_cnn_nano'"):
        ClassificationTask("spiking_cnn_nanno")


def test_a_label_outside_the_classes_is_named(tiny_task, tiny_data, trainer):
    with pytest.raises(ValueError, match=r"label [345], but the model has 3 classes"):
        trainer().fit(tiny_task(num_classes=3), tiny_data())


def test_a_broken_loss_stops_the_run(tiny_task, tiny_data, trainer):
    task = tiny_task()
    with torch.no_grad():
        task.model.classifier.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"lower model.init_args.lr"):
        trainer(num_sanity_val_steps=0).fit(task, tiny_data())


def test_predictions_are_probabilities(tiny_task):
    out = tiny_task().eval().predict_step((torch.rand(3, 1, 16, 16), ["a", "b", "c"]), 0)
    torch.testing.assert_close(out["probabilities"].sum(1), torch.ones(3))
    assert out["logits"].shape == (3, 6)


HYBRID = {"layers": [1, 1], "planes": [4, 8]}


def qcfs_checkpoint(folder, levels=4):
    """A run's checkpoint of a small QCFS network, and the network."""
    task = ClassificationTask(
        "qcfs_resnet20", model_args={**HYBRID, "levels": levels}, num_classes=6, in_chans=1
    )
    for site in (m for m in task.model.modules() if isinstance(m, QCFS)):
        site.v_threshold.data.fill_(1.5)
    content = {
        "state_dict": task.state_dict(),
        "hyper_parameters": dict(task.hparams),
        "pytorch-lightning_version": "2.6.6",
    }
    torch.save(content, folder / "best.ckpt")
    return folder / "best.ckpt", task.model.eval()


def test_hybrid_training_starts_from_a_run_and_keeps_nothing_of_it(tmp_path, tiny_data, trainer):
    path, source = qcfs_checkpoint(tmp_path)
    args = {**HYBRID, "time_steps": 2, "hybrid": {"source": str(path), "init": "normalized"}}
    task = ClassificationTask("lmht_resnet20", model_args=args, num_classes=6, in_chans=1, lr=1e-2)
    assert task.trained_by() == ("hybrid training: a QCFS network goes on as an LM-HT network", "2402.00411")
    x = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(task.model.eval()(x), source(x), rtol=1e-4, atol=1e-4)
    run = trainer(max_steps=2)
    run.fit(task, tiny_data())
    run.save_checkpoint(tmp_path / "after.ckpt")
    path.unlink()  # the run's own checkpoint needs its source no more
    again = ClassificationTask.load_from_checkpoint(tmp_path / "after.ckpt")
    with torch.no_grad():
        assert torch.equal(again.model.eval()(x), task.model.eval()(x))


def test_hybrid_training_starts_from_what_convert_left(tmp_path):
    _, source = qcfs_checkpoint(tmp_path)
    zoo.save(convert(source, "srp", 4, input_size=(1, 16, 16), progress=False), tmp_path / "converted")
    args = {**HYBRID, "time_steps": 2, "hybrid": {"source": str(tmp_path / "converted")}}
    task = ClassificationTask("lmht_resnet20", model_args=args, num_classes=6, in_chans=1)
    assert task.starts_trained
    x = torch.randn(4, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(task.model.eval()(x), source(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("hybrid", "more", "message"),
    [
        ({"init": "normalized"}, {}, "hybrid needs a source"),
        ({"source": "qcfs_resnet20"}, {"weights": "w.pth"}, "two starts; give one"),
        ({"source": "nowhere/best.ckpt"}, {}, "no such file"),
        ({"source": "qcfs_resnet20", "inti": "normalized"}, {}, "has no key 'inti'"),
        ({"source": "qcfs_resnet20"}, {}, "random weights|no weights|pretrained"),
    ],
)
def test_a_hybrid_start_that_is_wrong_says_so(hybrid, more, message):
    args = {**HYBRID, "hybrid": hybrid, **more}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ClassificationTask("lmht_resnet20", model_args=args, num_classes=6, in_chans=1)


def test_networks_of_timm_train_as_analog_sources(tiny_data, trainer, tmp_path):
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    task = ClassificationTask(
        "timm/vit_tiny_patch16_224", model_args=size, num_classes=6, in_chans=1, lr=1e-2
    )
    data = tiny_data()
    run = trainer(enable_checkpointing=True)
    run.fit(task, data)
    run.test(task, data, verbose=False)
    assert "test/acc1_t1" in run.callback_metrics
    assert "test/acc1_t2" not in run.callback_metrics, "an analog network has one step"
    run.save_checkpoint(tmp_path / "run.ckpt")
    loaded = zoo.load(str(tmp_path / "run.ckpt"))
    assert not loaded.training
    x, task = torch.rand(2, 1, 16, 16), task.eval()
    torch.testing.assert_close(loaded(x), task(x)[0])  # whose channels lie innermost
    assert zoo.create("timm/vit_tiny_patch16_224", **size).training


def test_a_task_says_what_predict_writes(tiny_task, tmp_path):
    table, maps = tiny_task().prediction_callbacks(tmp_path / "p.csv", class_names=["a"], explain="tokens")
    assert (table.output, table.table.top_k, maps.folder) == (tmp_path / "p.csv", 5, tmp_path / "p_tokens")
    with pytest.raises(ValueError, match="top_k"):
        tiny_task().prediction_callbacks(tmp_path / "p.csv", top_k=0)
    with pytest.raises(ValueError, match="BaseTask has no predictions"):
        BaseTask().prediction_callbacks(tmp_path / "p.csv")
