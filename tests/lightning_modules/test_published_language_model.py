"""The published model is adapted by additions to it: its folder in small, its true size without memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import save_file

import zoo
from datamodules import TokenRowsDataModule
from lightning_modules import DiDATask, NextTokenTask
from lightning_modules.low_rank import with_lora
from zoo.models.emu3_5 import Emu35

pytest.importorskip("transformers")
pytest.importorskip("peft")
ROOT = Path(__file__).resolve().parents[2]
SIZES = {"visual_codes": 6, "layers": 1, "width": 8, "ffn": 8, "heads": 2, "kv_heads": 1, "head_dim": 4}
CONFIG = {
    "model_type": "Emu3", "vocab_size": 151_860, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
}  # fmt: skip
TOKENIZER = {
    "n_embed": 6,
    "embed_dim": 8,
    "ddconfig": {
        "double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of the language model and of the tokenizer in the authors' layout."""
    model, tokenizer = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("tokenizer")
    torch.manual_seed(0)
    made = Emu35(vocabulary="emu3_5", context=64, rope_theta=1e6, **SIZES)
    save_file({k: v.contiguous() for k, v in made.decoder.state_dict().items()}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps(CONFIG))
    arguments = {
        "codes": 6,
        "embed_dim": 8,
        "z_channels": 8,
        "channels": 32,
        "multipliers": (1, 2),
        "blocks": 1,
    }
    ibq = zoo.create("emu3_5_ibq", attention=(), resolution=16, **arguments)
    (tokenizer / "config.yaml").write_text(yaml.safe_dump(TOKENIZER))
    torch.save({"state_dict": ibq.state_dict()}, tokenizer / "model.ckpt")
    return str(model), str(tokenizer)


def rows(vocabulary):
    """A caption and an image of 1 x 2 codes, and padding."""
    v = vocabulary
    image = [
        v.image_start,
        *v.grid_tokens(1, 2),
        v.image_token,
        v.first_visual + 4,
        v.first_visual,
        v.image_end,
    ]
    row = [v.bos, 99, *image, v.eos, v.pad]
    return {
        "tokens": torch.tensor([row]),
        "documents": torch.tensor([[1] * (len(row) - 1) + [0]]),
        "positions": torch.arange(len(row))[None],
    }


def test_a_published_folder_is_adapted_and_its_checkpoint_stands_alone(places, tmp_path):
    model, tokenizer = places
    settings = {"lora": {"r": 2}, "tokenizer": tokenizer, "denoising": {"passes": 2}}
    task = DiDATask("emu3_5", model_args={"weights": model}, **settings)
    assert task.starts_trained
    assert task.model.decoder.dtype == torch.bfloat16
    assert isinstance(task.path.embeddings, torch.Tensor)
    assert task.path.codes == 6
    task.log = lambda *args, **kwargs: None
    task.training_step(rows(task.vocabulary), 0).backward()
    trained = {name for name, p in task.named_parameters() if p.grad is not None}
    assert trained
    assert all("lora_" in name for name in trained)
    content = {"pytorch-lightning_version": "2.6.6", "state_dict": task.state_dict()}
    content["hyper_parameters"] = dict(task.hparams)
    task.on_save_checkpoint(content)
    assert "weights" not in content["hyper_parameters"]["model_args"]
    torch.save(content, tmp_path / "run.ckpt")
    again = DiDATask.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert again.path.codes == 6
    assert all(torch.equal(v.float(), task.state_dict()[k].float()) for k, v in again.state_dict().items())
    alone = zoo.load(str(tmp_path / "run.ckpt"))
    assert alone.noise["path"] == "metric"
    with pytest.raises(ValueError, match=r"the files in .* tell layers; leave it out"):
        NextTokenTask("emu3_5", model_args={"weights": model, "layers": 2})


def test_additions_to_the_published_size_without_memory():
    """134 M numbers are trained of 34.2 B: 16 for each row and column of seven matrices in 64 layers."""
    with torch.device("meta"):
        decoder = with_lora(zoo.create("emu3_5").decoder, {"r": 16, "lora_alpha": 32})
    trained = sum(p.numel() for p in decoder.parameters() if p.requires_grad)
    q, kv, ffn = 5120 + 8192, 5120 + 1024, 5120 + 25_600
    assert trained == 16 * 64 * (2 * q + 2 * kv + 3 * ffn) == 134_217_728
    assert sum(p.numel() for p in decoder.parameters()) == 34_103_460_864 + trained


def test_the_shipped_configuration_names_what_there_is():
    said = yaml.safe_load((ROOT / "configs" / "emu3_5" / "published_dida.yaml").read_text(encoding="utf-8"))
    from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

    strategy = said["trainer"]["strategy"]["init_args"]
    (wrapped,) = strategy["auto_wrap_policy"]
    assert wrapped == f"{Qwen3DecoderLayer.__module__}.{Qwen3DecoderLayer.__name__}"
    with torch.device("meta"):
        model = zoo.create("emu3_5")
    data = TokenRowsDataModule(**said["data"]["init_args"])
    assert (data.bos, data.pad) == (model.vocabulary.bos, model.vocabulary.pad)
    assert sum(isinstance(module, Qwen3DecoderLayer) for module in model.modules()) == 64


def test_the_mask_has_the_form_that_attention_takes():
    """A table of truth values would be added to the scores of FlexAttention, and hide nothing."""
    from torch.nn.attention.flex_attention import BlockMask

    small = {"layers": 1, "width": 16, "ffn": 24, "heads": 2, "kv_heads": 1, "head_dim": 8}
    task = DiDATask("emu3_5_tiny", model_args=small, grid=(1, 2))
    v, seen = task.vocabulary, []
    image = [v.image_start, v.image_token, v.first_visual + 4, v.first_visual, v.image_end]
    tokens = torch.tensor([[v.bos, 8, *image, v.eos]])
    batch = {"tokens": tokens, "documents": torch.ones_like(tokens), "positions": torch.arange(8)[None]}
    decoder = task.model.decoder

    class Watching(torch.nn.Module):
        def forward(self, attention_mask, **arguments):
            seen.append(type(attention_mask))
            return decoder(**arguments)

    task.model.decoder = Watching()
    task.log = lambda *args, **kwargs: None
    for kind, form in (("sdpa", torch.Tensor), ("flex_attention", BlockMask)):
        Watching.config = SimpleNamespace(_attn_implementation=kind)
        task.training_step(batch, 0)
        task._measure(batch, "val")
        assert seen == [form] * 3
        seen.clear()
