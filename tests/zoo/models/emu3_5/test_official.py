"""The published folder of the language model, in small, and what is wrong with others."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.errors import CheckpointError

pytest.importorskip("transformers")
from tests.zoo.models.emu3_5.test_sequences import Letters
from zoo.models.emu3_5 import IBQ, Emu35, Pipeline
from zoo.models.emu3_5.official import arguments_of, load_emu3_5
from zoo.models.emu3_5.sequences import images_in

SIZES = {"visual_codes": 6, "layers": 2, "width": 4, "ffn": 8, "heads": 2, "kv_heads": 1, "head_dim": 4}
CONFIG = {
    "model_type": "Emu3", "vocab_size": 151_860, "hidden_size": 4, "intermediate_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "img_token_id": 151_851,
    "boi_token_id": 151_852, "eoi_token_id": 151_853, "eol_token_id": 151_846, "eof_token_id": 151_847,
    "image_area": 262_144,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Emu35(vocabulary="emu3_5", context=64, rope_theta=1e6, **SIZES).eval()


@pytest.fixture
def folder(tmp_path, model):
    state = {k: v.contiguous() for k, v in model.decoder.state_dict().items()}
    halves = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for n, (key, value) in enumerate(state.items()):
        list(halves.values())[n % 2][key] = value
    for name, part in halves.items():
        save_file(part, tmp_path / name, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {k: name for name, part in halves.items() for k in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_the_published_size_without_memory():
    with torch.device("meta"):
        model = zoo.create("emu3_5")
    whole = sum(p.numel() for p in model.parameters())
    layers = sum(p.numel() for p in model.decoder.model.layers.parameters())
    assert whole == zoo.registry.get_entry("emu3_5").parameters
    assert [round(n / 1e9, 2) for n in (whole, layers, whole - layers)] == [34.10, 31.21, 2.90]
    assert model.vocabulary.size == 282_926


def test_shards_load(folder, model):
    found = load_emu3_5(folder, dtype=torch.float32)
    tokens = torch.tensor([[151_849, 5, 77, 151_852, 151_851, 151_855]])
    with torch.no_grad():
        torch.testing.assert_close(found(tokens), model(tokens))
    assert not found.training
    assert load_emu3_5(folder).decoder.dtype == torch.bfloat16


def test_layers_can_be_placed(folder):
    found = load_emu3_5(folder, device_map={"": "cpu"})
    assert {p.device.type for p in found.parameters()} == {"cpu"}


def test_a_missing_shard_is_named(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 shards: model-00002-of-00002"):
        load_emu3_5(folder)


def test_a_tensor_too_few_is_named(folder, model):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    state = {k: v.contiguous() for k, v in model.decoder.state_dict().items() if "layers.1.mlp.up" not in k}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 missing \(model.layers.1.mlp.up_proj.weight\)"):
        load_emu3_5(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 184_622, "head_dim": None}, "older Emu3"),
        ({"vocab_size": 100_000}, "older Emu3"),
        ({"boi_token_id": 151_000}, "boi_token_id 151000"),
        ({"model_type": "llama"}, "'llama'"),
        ({"rope_theta": None}, "lacks rope_theta"),
    ],
)
def test_other_configurations_are_refused(change, said):
    with pytest.raises(CheckpointError, match=said):
        arguments_of({**CONFIG, **change})


def test_text_and_images_of_the_published_model_go_together(folder):
    sizes = {"embed_dim": 4, "z_channels": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}
    model = load_emu3_5(folder, dtype=torch.float32, tokenizer=IBQ(codes=6, attention=(), **sizes))
    with pytest.raises(ValueError, match="knows ids only"):
        Pipeline(model)("a cat")
    model.vocabulary = replace(model.vocabulary, text=Letters())
    model.grid, model.context = [2, 3], 120
    pipeline = Pipeline(model)
    asked = pipeline.prompt("a cat", task="t2i", image=True)
    answer = pipeline.answer(pipeline.writer().write(asked, images=1))
    assert [image.shape for image in answer.images] == [(3, 4, 6)]
    assert (answer.text, answer.ended) == ("", False)
    seen = pipeline.prompt("a cat", task="x2i", images=[torch.rand(3, 4, 6)])
    assert [codes.shape for codes in images_in(model.vocabulary, seen[0])] == [(2, 3)]
    with pytest.raises(ValueError, match="has 7 codes and the model 6"):
        model.take(IBQ(codes=7, attention=(), **sizes))
    with pytest.raises(ValueError, match=r"no tokenizer of images: load_emu3_5\(FOLDER, tokenizer=PLACE\)"):
        Pipeline(load_emu3_5(folder))
    with pytest.raises(ValueError, match="this model writes ar, not 'dida'; DiDA adapts a trained model"):
        pipeline("a cat", way="dida")


def test_a_tokenizer_is_kept_with_the_model(tmp_path):
    tokenizer = {"model": "emu3_5_ibq_tiny", "model_args": {}}
    made = zoo.create("emu3_5_tiny", layers=1, visual_codes=64, grid=[7, 7], tokenizer=tokenizer).eval()
    zoo.save(made, tmp_path / "kept")
    found = zoo.load(f"local-dir:{tmp_path / 'kept'}")
    codes = torch.randint(64, (1, 7, 7))
    assert torch.equal(found.pictures.decode(codes), made.pictures.decode(codes))
    assert (found.grid, found.tokenizer) == ([7, 7], tokenizer)
    answer = Pipeline(found)("digit 3")
    assert all(image.shape == (1, 28, 28) for image in answer.images)
