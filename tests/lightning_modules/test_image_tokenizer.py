"""Training of a vision tokenizer, and its use by a language model."""

from __future__ import annotations

import pytest
import torch

import zoo
from lightning_modules import ImageTokenizerTask, NextTokenTask


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
    assert not any("pictures" in name for name in task.state_dict())
    with pytest.raises(ValueError, match="visual_codes to 64"):
        NextTokenTask("emu3_5_tiny", {"visual_codes": 9}, **settings)
