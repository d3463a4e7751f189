"""Language models of text and images are trained, adapted, scored and asked."""

from __future__ import annotations

import json

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import cross_entropy

import zoo
from datamodules import CaptionedDigitsDataModule
from lightning_modules import DiDATask, NextTokenTask
from lightning_modules.callbacks.writings import WritingWriter
from lightning_modules.token_losses import next_tokens, target_weights, weighted_cross_entropy
from zoo.models.emu3_5.packing import pack

pytest.importorskip("transformers")
SMALL = {"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8}


@pytest.fixture(scope="module")
def data():
    module = CaptionedDigitsDataModule(batch_size=4, eval_batch_size=64, images_per_sequence=2)
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def batch(data):
    return next(iter(data.train_dataloader()))


def task(cls=NextTokenTask, data=None, **arguments):
    torch.manual_seed(0)
    lexicon, grid = CaptionedDigitsDataModule.lexicon, CaptionedDigitsDataModule.grid
    return cls(model="emu3_5_tiny", **{"model_args": SMALL, "lexicon": lexicon, "grid": grid, **arguments})


def leave(task, path):
    """A checkpoint of the task."""
    content = {"pytorch-lightning_version": pl.__version__, "state_dict": task.state_dict()}
    content["hyper_parameters"] = dict(task.hparams)
    task.on_save_checkpoint(content)
    path.parent.mkdir(parents=True)
    torch.save(content, path)


def test_samples_are_documents_however_many_images_they_have(batch):
    assert len(batch["images"]) == 8
    assert task().samples_in(batch) == 4


# -- the loss --------------------------------------------------------------------------------------


def test_weights_scale_terms_of_their_kind_alone():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 6, 9), torch.randint(9, (2, 6))
    counted = torch.rand(2, 6) > 0.2
    each = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(2, 6)
    for visual in (0.5, 1.0):
        weights = target_weights(targets, counted, 5, visual)
        total = float(weighted_cross_entropy(logits, targets, weights)) * float(weights.sum())
        text, image = (each[counted & kind].sum() for kind in (targets < 5, targets >= 5))
        assert total == pytest.approx(float(text + visual * image), rel=1e-5)


def test_nothing_is_predicted_across_documents():
    tokens = torch.tensor([[1, 5, 2, 1, 6, 2, 0, 0]])
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 0, 0]])
    targets, counted = next_tokens(tokens, documents, pad=0)
    assert counted.tolist() == [[True, True, False, True, True, False, False, False]]
    assert targets[0, :2].tolist() == [5, 2]


@pytest.fixture(scope="module")
def network():
    return task().eval()


@given(
    st.lists(st.lists(st.integers(1, 26), min_size=2, max_size=12), min_size=2, max_size=8),
    st.integers(12, 40),
)
@settings(max_examples=25, deadline=None)
def test_packed_documents_are_what_they_are_alone(network, documents, length):
    packed = pack([torch.tensor(ids) for ids in documents], network.vocabulary.pad, length)
    with torch.no_grad():
        together = network.logits(*packed)
        for row, numbers, logits in zip(packed.tokens, packed.documents, together, strict=True):
            for number in range(1, int(numbers.max()) + 1):
                own = numbers == number
                alone = network.model(row[own][None])[0]
                torch.testing.assert_close(logits[own], alone, rtol=1e-5, atol=1e-5)


def test_packing_changes_rows_and_not_the_loss():
    found = []
    for length in (None, 512):
        data = CaptionedDigitsDataModule(batch_size=6, images_per_sequence=3, varied=True, pack_length=length)
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))
        assert batch["counts"].sum() == len(batch["images"]) == len(batch["words"])
        assert len(set(batch["counts"].tolist())) > 1
        model = task(pack_length=length)
        tokens, documents, positions = model.packed(batch)
        with torch.no_grad():
            loss = model.next_token_loss(model.logits(tokens, documents, positions), tokens, documents)
        found.append((len(tokens), tokens.shape[1], float(loss)))
    (rows, longest, loss), (packed_rows, filled, packed_loss) = found
    assert (rows, longest) == (6, 2 + 3 * 76)
    assert packed_rows < rows
    assert longest < filled <= 512
    assert packed_loss == pytest.approx(loss, rel=1e-5)


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["metric", "mixture"])
def test_adaptation_sees_all_images_and_keeps_the_clean_loss(batch, path):
    model = task(DiDATask, path=path)
    tokens, documents, positions = model.packed(batch)
    assert tokens.shape == (4, 2 + 2 * (2 + 2 + 72))
    model.log = lambda *a, **k: None
    for number in (0, 1):  # with the clean sequences, and without
        model.training_step(batch, number).backward()
        head = model.model.decoder.lm_head.weight.grad
        assert head.isfinite().all()
        model.zero_grad()
    from zoo.models.emu3_5.dida import noisy_copies

    copies = noisy_copies(tokens, documents, positions, model.roles)
    assert copies.counted.sum(1).tolist() == [128] * 4
    noisy = model.corrupted(tokens, copies)
    with torch.no_grad():
        clean, found = model.both_logits(tokens, noisy, documents, positions, copies, True)
        none, again = model.both_logits(tokens, noisy, documents, positions, copies, False)
        alone = model.logits(tokens, documents, positions)
    assert none is None
    assert torch.equal(found, again)
    torch.testing.assert_close(clean, alone, rtol=1e-5, atol=1e-5)


def test_low_rank_additions_alone_are_trained(batch):
    pytest.importorskip("peft")
    model = task(DiDATask, lora={"r": 2})
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    model.log = lambda *a, **k: None
    model.training_step(batch, 0).backward()
    assert model.writer(denoising=model.denoising, path=model.path).write(
        model.prompt("digit 3", image=True), images=1
    ).tokens.shape == (1, 4 + 73)
    with pytest.raises(ValueError, match=r"lora: .*rank_of_all"):
        task(lora={"rank_of_all": 2})
    with pytest.raises(ValueError, match=r"lora.use_dora: its additions cannot become part of the weights"):
        task(lora={"use_dora": True})


def test_low_rank_additions_become_part_of_the_weights_of_a_next_run(tmp_path):
    pytest.importorskip("peft")
    ranks = {"r": 2, "lora_alpha": 6, "rank_pattern": {"q_proj": 3}}
    first = task(lora=ranks, model_args=SMALL)
    torch.manual_seed(1)
    for name, p in first.named_parameters():
        if "lora_B" in name:  # which begins at zero
            torch.nn.init.normal_(p)
    tokens = torch.randint(27, (2, 9))
    wanted = first.eval().model(tokens)
    run = tmp_path / "run"
    leave(first, run / "checkpoints" / "best.ckpt")
    next_run = task(DiDATask, model_args={**SMALL, "weights": str(run)}).eval()
    plain = zoo.load(str(run / "checkpoints" / "best.ckpt"))
    again = NextTokenTask.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True).eval()
    with torch.no_grad():
        for model in (next_run.model, plain, again.model):
            torch.testing.assert_close(model(tokens), wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(task().eval().model(tokens), wanted, atol=1e-3)
    assert not any("lora" in name for name in plain.state_dict())
    twice = task(lora=ranks, model_args={**SMALL, "weights": str(run)}).eval()  # and new ones upon it
    torch.testing.assert_close(twice.model(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_additions_of_unknown_form_are_refused():
    from zoo.models.emu3_5.low_rank import merged

    layer = "decoder.base_model.model.model.q_proj"
    state = {
        f"{layer}.base_layer.weight": torch.ones(2, 2),
        f"{layer}.lora_A.default.weight": torch.ones(1, 2),
    }
    with pytest.raises(
        zoo.CheckpointError, match=r"q_proj cannot become part.*they have lora_A.default.weight;"
    ):
        merged(state, torch.nn.Linear(1, 1))
    state |= {f"{layer}.lora_B.default.weight": torch.ones(2, 1), f"{layer}.lora_scale": torch.tensor(0.5)}
    (found,) = merged(state, torch.nn.Linear(1, 1)).items()
    assert found[0] == "decoder.model.q_proj.weight"
    assert torch.equal(found[1], torch.full((2, 2), 1.5))


def test_a_run_is_scored_adapted_and_asked(data, tmp_path):
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": tmp_path,
    }
    small = {**quiet, "max_steps": 2, "limit_val_batches": 1, "limit_test_batches": 1}
    first = task(score_samples=10)
    trainer = pl.Trainer(**small, enable_checkpointing=False)
    trainer.fit(first, datamodule=data)
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    trainer.save_checkpoint(checkpoint)
    adapted = task(
        DiDATask,
        model_args={**SMALL, "weights": str(checkpoint.parents[1])},
        denoising={"passes": 3},
        score_samples=10,
    )
    assert adapted.starts_trained
    same = adapted.model.state_dict()
    assert all(torch.equal(v, same[k]) for k, v in first.model.state_dict().items())
    (found,) = pl.Trainer(**small).test(adapted, datamodule=data, verbose=False)
    assert found["test/perplexity"] == pytest.approx(2.718281828 ** found["test/loss"], rel=1e-4)
    assert (found["test/image_passes"], found["test/dida_image_passes"]) == (72, 3)
    assert 0 <= found["test/dida_score"] <= 1
    data.prompts = ["digit 7"]
    writer = WritingWriter(tmp_path / "out")
    pl.Trainer(**quiet, callbacks=[writer]).predict(adapted, datamodule=data, return_predictions=False)
    for way in ("ar", "dida"):
        told = json.loads((tmp_path / "out" / f"0000_{way}.json").read_text())
        assert (told["prompt"], told["way"]) == ("digit 7", way)
        assert told["text"] == " ".join(part["text"] for part in told["parts"] if "text" in part)
        names = [part["image"] for part in told["parts"] if "image" in part]
        assert all(Image.open(tmp_path / "out" / name).size == (128, 128) for name in names)
        page = (tmp_path / "out" / "index.html").read_text()
        assert all(f'src="{name}"' in page for name in names)
    assert page.count("digit 7 <i>") == 2


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (NextTokenTask, {"visual_weight": -1.0}, "visual_weight must be 0 or more"),
        (NextTokenTask, {"pack_length": 513}, "between 1 and the model's context of 512 tokens, got 513"),
        (NextTokenTask, {"lexicon": ["cat"]}, "this vocabulary has no word 'cat'; it has 0, 1"),
        (NextTokenTask, {"model_args": {"weights": "nowhere"}}, "no such file or folder: nowhere"),
        (DiDATask, {"path": "straight"}, "path must be 'metric' or 'mixture', got 'straight'"),
        (DiDATask, {"clean_every": -1}, "clean_every must be 0"),
        (DiDATask, {"denoising": {"passes": 0}}, "number of passes must be at least 1"),
    ],
)
def test_wrong_values_are_named(cls, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        task(cls, **arguments)


def test_ids_outside_of_the_vocabulary_and_images_cut_off():
    model = task(DiDATask)
    row = torch.tensor([[1, 17, 9, 99]])
    ones, places = torch.ones_like(row), torch.arange(4)[None]
    with pytest.raises(ValueError, match=r"token 99 of the data is outside of the vocabulary.* 0 to 26"):
        model.packed({"tokens": row, "documents": ones, "positions": places})
    cut = torch.tensor([[1, 3, 5, 20]])
    with pytest.raises(ValueError, match="the image that row 0 ends with is cut off"):
        model.training_step({"tokens": cut, "documents": ones, "positions": places}, 0)


def test_a_missing_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'fulgurite\[multimodal\]'"):
        zoo.create("emu3_5_tiny", **SMALL)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"LoRA needs peft: pip install 'fulgurite\[multimodal\]'"):
        task(lora={"r": 2})
