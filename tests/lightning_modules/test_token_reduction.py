"""Token reduction as an argument of a task."""

import pytest
import torch

import zoo
from lightning_modules import ClassificationTask, ShortcutTask

MODEL = {"dim": 16, "num_heads": 2, "depth": 2, "time_steps": 2}
CHOICE = {"method": "uncert", "keep": 0.5}


def make(cls=ClassificationTask, **arguments):
    options = {"model_args": MODEL, "num_classes": 6, "in_chans": 1, "lr": 1e-2, **arguments}
    return cls("spikformer_nano", **options)


@pytest.mark.parametrize("cls", [ClassificationTask, ShortcutTask])
def test_a_run_on_half_of_the_tokens(cls, tiny_data, trainer):
    task = make(cls, token_reduction=CHOICE)
    tokens = []
    task.model.block[1].register_forward_hook(lambda m, args, out: tokens.append(out.shape[-2]))
    run = trainer()
    run.fit(task, tiny_data())
    assert set(tokens) == {8}  # of 16
    assert run.callback_metrics["train/loss"].isfinite()


def test_checkpoints_fit_with_and_without(tiny_data, trainer, tmp_path):
    task, run = make(), trainer()
    run.fit(task, tiny_data())
    run.save_checkpoint(tmp_path / "plain.ckpt")
    later = ClassificationTask.load_from_checkpoint(tmp_path / "plain.ckpt", token_reduction=CHOICE)
    assert later.model.token_reduction.shares[-1] == pytest.approx(0.5)
    for key, value in later.model.state_dict().items():
        assert torch.equal(value, task.model.state_dict()[key])
    reduced = trainer()
    reduced.fit(make(token_reduction=CHOICE), tiny_data())
    reduced.save_checkpoint(tmp_path / "reduced.ckpt")
    again = ClassificationTask.load_from_checkpoint(tmp_path / "reduced.ckpt")
    assert again.hparams.token_reduction == CHOICE
    assert hasattr(again.model, "token_reduction")
    # the network itself is what a checkpoint holds
    assert not hasattr(zoo.load(f"local-dir:{tmp_path / 'reduced.ckpt'}"), "token_reduction")


def test_a_model_without_tokens_is_refused(tiny_task):
    with pytest.raises(ValueError, match="spiking_cnn_nano has no blocks"):
        tiny_task(token_reduction=CHOICE)
