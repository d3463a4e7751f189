"""Training of a vision tokenizer, and its use by a language model."""

from __future__ import annotations

import shutil

import lightning.pytorch as pl
import pytest
import torch

import zoo
from lightning_modules import DiDATask, ImageTokenizerTask, NextTokenTask


def batch():
    torch.manual_seed(0)
    return {"images": torch.rand(4, 1, 8, 8)}


def test_steps_lower_the_loss_and_every_part_learns():
    torch.manual_seed(0)
    task = ImageTokenizerTask(lr=1e-3)
    task.log = lambda *args, **kwargs: None
    optimizer = torch.optim.Adam(task.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = task.training_step(batch(), 0)
        loss.backward()
        losses.append(loss.item())
        assert all(p.grad is not None for p in task.parameters())
        optimizer.step()
    assert losses[-1] < losses[0]


def test_images_are_brought_to_minus_one_to_one():
    images = ImageTokenizerTask.images_of({"images": torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)})
    assert images.flatten().tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"model": "spiking_cnn_nano"}, "vision tokenizer"), ({"entropy_weight": -1}, "entropy_weight")],
)
def test_bad_settings_are_named(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        ImageTokenizerTask(**arguments)


def test_a_language_model_takes_a_saved_tokenizer(tmp_path):
    pytest.importorskip("transformers")
    tokenizer = zoo.create("emu3_5_ibq_tiny").eval()
    zoo.save(tokenizer, tmp_path / "tokenizer")
    settings = {"lexicon": ("digit", "3"), "grid": (2, 2), "tokenizer": str(tmp_path / "tokenizer")}
    task = NextTokenTask("emu3_5_tiny", {"visual_codes": 64, "layers": 1}, **settings)
    images = torch.rand(2, 1, 8, 8)
    words, counts = torch.tensor([[0, 1]] * 2), torch.tensor([1, 1])
    tokens, _, _ = task.packed({"words": words, "images": images, "counts": counts})
    shown = tokens[task.vocabulary.first_visual <= tokens].reshape(2, 2, 2) - task.vocabulary.first_visual
    assert torch.equal(shown, tokenizer.encode(images * 2 - 1))
    assert not any(p.requires_grad for p in task.pictures.parameters())
    assert not task.train().pictures.training
    with pytest.raises(ValueError, match="visual_codes to 64"):
        NextTokenTask("emu3_5_tiny", {"visual_codes": 9}, **settings)


def test_checkpoints_bring_the_tokenizer_with_them(tmp_path):
    pytest.importorskip("transformers")
    tokenizer = zoo.create("emu3_5_ibq_tiny", codes=32).eval()
    zoo.save(tokenizer, tmp_path / "tokenizer")
    small = {"visual_codes": 32, "layers": 1, "width": 16, "ffn": 24}
    task = DiDATask("emu3_5_tiny", model_args=small, grid=(2, 2), tokenizer=str(tmp_path / "tokenizer"))
    content = {"pytorch-lightning_version": pl.__version__, "state_dict": task.state_dict()}
    content["hyper_parameters"] = dict(task.hparams)
    task.on_save_checkpoint(content)
    torch.save(content, tmp_path / "whole.ckpt")
    shutil.rmtree(tmp_path / "tokenizer")
    again = DiDATask.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(again.pictures.encode(images), tokenizer.encode(images * 2 - 1))
    assert torch.equal(again.path.embeddings, task.path.embeddings), "distances are those of these codes"
    alone = zoo.load(str(tmp_path / "whole.ckpt"))
    assert (alone.grid, alone.noise["path"], alone.vocabulary.visual_codes) == ([2, 2], "metric", 32)
