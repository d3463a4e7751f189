"""The vision tokenizer: what it promises beyond the authors' numbers."""

from __future__ import annotations

import pytest
import torch
import yaml

import zoo
from zoo.errors import CheckpointError
from zoo.models.emu3_5.ibq import IBQ, Codec, IndexPropagation, load_ibq

SMALL = {
    "double_z": False, "z_channels": 8, "resolution": 8, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4], "dropout": 0.0,
}  # fmt: skip
OURS = {
    "codes": 12, "embed_dim": 6, "z_channels": 8, "channels": 32, "multipliers": (1, 2), "blocks": 1,
    "attention": (4,), "resolution": 8,
}  # fmt: skip


def published(folder, model, **config):
    folder.mkdir(exist_ok=True)
    config = {"ddconfig": SMALL, "n_embed": 12, "embed_dim": 6, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    extra = {"loss.discriminator.weight": torch.zeros(2)}
    torch.save({"state_dict": {**model.state_dict(), **extra}}, folder / "model.ckpt")
    return folder


def test_the_published_size_without_memory():
    with torch.device("meta"):
        model = zoo.create("emu3_5_ibq")
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 1) == 455.3
    assert count == zoo.registry.get_entry("emu3_5_ibq").parameters


def test_the_straight_through_value_is_the_hard_code_and_every_code_learns():
    torch.manual_seed(0)
    layer = IndexPropagation(20, 6).train()
    layer.embedding.weight.data.normal_()
    z = torch.randn(2, 6, 3, 3, requires_grad=True)
    out = layer(z)
    torch.testing.assert_close(out.z, layer.entry(out.codes))
    (out.z * torch.randn_like(out.z)).sum().backward()
    unused = torch.ones(20, dtype=torch.bool)
    unused[out.codes.flatten()] = False
    assert unused.any()
    assert layer.embedding.weight.grad.abs().sum(1).gt(0).all()
    assert z.grad.abs().sum() > 0


def test_codes_hold_all_that_the_decoder_sees():
    model = zoo.create("emu3_5_ibq_tiny").eval()
    images = torch.rand(2, 1, 28, 28) * 2 - 1
    with torch.no_grad():
        codes = model.encode(images)
        assert codes.shape == (2, 7, 7)
        torch.testing.assert_close(model.decode_code(codes), model(images))


def test_evaluation_has_no_loss_even_where_entropies_are_asked_for():
    model = zoo.create("emu3_5_ibq_tiny").eval()
    out = model.quantized(torch.zeros(1, 1, 8, 8), entropy=True)
    assert out.loss == out.sample_entropy == out.mean_entropy == 0


def test_the_published_layout_loads(tmp_path):
    torch.manual_seed(1)
    model = IBQ(**OURS).eval()
    found = load_ibq(published(tmp_path, model))
    x = torch.rand(1, 3, 8, 12) * 2 - 1
    with torch.no_grad():
        assert torch.equal(found(x), model(x))
    assert not found.training
    assert all(p.device.type == "cpu" for p in found.parameters())


def test_a_tokenizer_survives_saving(tmp_path):
    model = zoo.create("emu3_5_ibq_tiny").eval()
    zoo.save(model, tmp_path / "saved")
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(zoo.load(str(tmp_path / "saved"))(x), model(x))


def test_a_codec_speaks_of_brightness():
    codec = Codec(zoo.create("emu3_5_ibq_tiny"))
    images = torch.rand(3, 1, 28, 28)
    back = codec.decode(codec.encode(images))
    assert back.shape == images.shape
    assert 0 <= back.min() <= back.max() <= 1
    assert codec.embeddings().shape == (64, 16)


@pytest.mark.parametrize("name", ["config.yaml", "model.ckpt"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = published(tmp_path, IBQ(**OURS))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_ibq(folder)


def test_a_file_of_another_size_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"does not fit its config.yaml"):
        load_ibq(published(tmp_path, IBQ(**OURS), n_embed=13))


def test_a_configuration_without_values_is_refused(tmp_path):
    folder = published(tmp_path, IBQ(**OURS))
    (folder / "config.yaml").write_text("embed_dim: 6\n")
    with pytest.raises(CheckpointError, match=r"lacks ddconfig, n_embed"):
        load_ibq(folder)


def test_bad_input_is_named():
    model = zoo.create("emu3_5_ibq_tiny")
    with pytest.raises(ValueError, match="multiples of 4, got 30 x 28"):
        model.encode(torch.zeros(1, 1, 30, 28))
    with pytest.raises(ValueError, match=r"\[N, 1, H, W\]"):
        model.encode(torch.zeros(1, 3, 28, 28))
    with pytest.raises(ValueError, match=r"0\.\.63, got 0\.\.64"):
        model.decode_code(torch.tensor([[[0, 64]]]))
