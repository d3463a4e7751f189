"""Weights of UP-Diff: the authors' files, Stable Diffusion as the start, and our own folders."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

import zoo
from cli.main import main
from tests.oracles import latent_diffusion_names as theirs
from tests.zoo.hub.conftest import client, hub
from zoo.models.up_diff import KLAutoencoder, sample
from zoo.models.up_diff.official import filter_checkpoint
from zoo.registry import get_entry

__all__ = ["client", "hub"]  # fixtures


def written(model, path, **changes):
    """A file as the authors' training writes it."""
    kept = {k: v for k, v in model.state_dict().items() if k != "caption.embedded"}
    attention = ["CrossAttn" in kind for kind in model.unet.config.down_block_types]
    content = theirs.checkpoint(kept, model.unet.config.layers_per_block, attention, 4)
    content |= {
        "diffusion": {"betas": torch.zeros(3)},
        "opt": {"state": {0: {"step": torch.tensor(1.0)}}},
        "iters": 7,
    }
    torch.save({**content, **changes}, path)
    return content


def same(first, second, *left_out):
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a if k not in left_out)


# -- the authors' files --------------------------------------------------------------------------------


def test_names_of_the_published_size():
    """All names and shapes of the large network, its ConvNeXt included, on the meta device."""
    pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = zoo.create("up_diff_sysu")
        own = model.state_dict()
        attention = [True, True, True, False]
        found = theirs.checkpoint(own, 2, attention, 4)
        unused = {
            f"position_net.convnext_tiny_backbone.{k}.weight": torch.empty(768) for k in ("norm", "head")
        }
    state = {**found["model"], **unused, **{f"autoencoder.{k}": v for k, v in found["autoencoder"].items()}}
    assert "input_blocks.11.0.out_layers.3.weight" in state
    assert "output_blocks.2.1.conv.weight" in state  # without attention the upsampling comes second
    assert "output_blocks.8.2.conv.weight" in state
    mapped = filter_checkpoint(state, model)
    assert {k: v.shape for k, v in mapped.items()} == {k: v.shape for k, v in own.items()}


def test_names_of_the_backbone_are_those_that_timm_maps():
    import timm
    from timm.models.convnext import checkpoint_filter_fn

    with torch.device("meta"):
        network = timm.create_model("convnext_tiny", num_classes=0)
    own = {k: v for k, v in network.state_dict().items() if not k.startswith("head.")}
    official = {theirs.backbone_name(k): v for k, v in own.items()}
    assert set(checkpoint_filter_fn(official, network)) == set(own)


def test_the_authors_file_is_recognised_and_loaded_whole(small, small_arguments, tmp_path):
    model, path = small(), tmp_path / "checkpoint.pth"
    model.latent_scale.fill_(0.18215)
    written(model, path)
    loaded = zoo.load("up_diff_levir", weights=path, **small_arguments)
    assert same(loaded, model, "caption.embedded")
    with pytest.raises(
        RuntimeError, match=r"up_diff_levir knows no captions yet.*model.embed_captions\(PATH\)"
    ):
        loaded.require_ready()
    fits = zoo.recognize(zoo.read_checkpoint(path), small_arguments)
    assert [one.name for one in fits if not one.faults] == ["up_diff_levir", "up_diff_sysu"]
    folder = zoo.import_checkpoint(path, tmp_path / "out", "up_diff_levir", **small_arguments)
    assert same(zoo.load(f"local-dir:{folder}"), model, "caption.embedded")
    assert json.loads((folder / "config.json").read_text())["fulgurite"]["origin"]["name"] == "checkpoint.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("autoencoder"), "UNet of UP-Diff without an autoencoder"),
        (
            lambda c: c["autoencoder"].update(extra=torch.zeros(1)),
            "1 of the .* tensors of the autoencoder are unknown",
        ),
        (lambda c: c["model"].update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (lambda c: c["model"].pop("position_net.null_feature"), "1 missing: layout_encoder.null_feature"),
        (
            lambda c: c["model"].update({"out.2.bias": torch.zeros(5)}),
            r"unet.conv_out.bias: expected 4, got 5",
        ),
    ],
)
def test_a_file_of_another_layout_changes_nothing(small, small_arguments, tmp_path, change, message):
    path = tmp_path / "checkpoint.pth"
    content = written(small(), path)
    change(content)
    torch.save(content, path)
    with pytest.raises(zoo.CheckpointError, match=message):
        zoo.load("up_diff_levir", weights=path, **small_arguments)
    with pytest.raises(zoo.CheckpointError):
        zoo.import_checkpoint(path, tmp_path / "out", "up_diff_levir", **small_arguments)
    assert not (tmp_path / "out").exists()


# -- Stable Diffusion ------------------------------------------------------------------------------------


@pytest.fixture
def pipeline(small, tmp_path):
    """A folder in the layout of diffusers: UNet and autoencoder of the small member's sizes."""
    from diffusers import UNet2DConditionModel

    model = small()
    told = {k: v for k, v in model.unet.config.items() if not k.startswith("_") and k != "attention_type"}
    torch.manual_seed(5)
    unet = UNet2DConditionModel(**{**told, "in_channels": 4})
    autoencoder = KLAutoencoder((8, 8, 8, 8), groups=8).network
    unet.save_pretrained(tmp_path / "sd" / "unet")
    autoencoder.save_pretrained(tmp_path / "sd" / "vae")
    return tmp_path / "sd", unet.eval(), autoencoder


@torch.no_grad()
def test_stable_diffusion_is_the_start(pipeline, small, pair, latent):
    folder, unet, autoencoder = pipeline
    model = small(layout_init="zero")
    kept = model.layout_encoder.in_conv.weight.clone()
    model.start_from(folder)
    first = model.unet.conv_in.weight
    assert torch.equal(first[:, :4], unet.conv_in.weight)
    assert not first[:, 4:].any()
    assert torch.equal(kept, model.layout_encoder.in_conv.weight)
    expected = unet(*latent, model.caption(2)).sample
    torch.testing.assert_close(model(*latent, *pair), expected)
    model.load_autoencoder(folder / "vae")
    images = pair[0]
    mean = autoencoder.encode(images).latent_dist
    drawn = [
        model.encode(images, generator=torch.Generator().manual_seed(s)) / model.latent_scale
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert ((drawn[0] - mean.mean) / mean.std).abs().max() < 6
    torch.testing.assert_close(
        model.decode(model.latent_scale * mean.mean), autoencoder.decode(mean.mean).sample
    )


def test_half_of_a_start_is_none(pipeline, small, small_arguments, tmp_path):
    folder, *_ = pipeline
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wider = zoo.create("up_diff_levir", **{**small_arguments, "channels": (64, 64)})
    with pytest.raises(
        zoo.CheckpointError,
        match=r"no UNet of Stable Diffusion of this size.*expected .*\(64, 4, 3, 3\), got \(32, 4",
    ):
        wider.start_from(folder)
    with pytest.raises(zoo.CheckpointError, match=r"no UNet of Stable Diffusion of this size"):
        model.start_from(folder / "vae")
    with pytest.raises(zoo.CheckpointError, match="does not fit AutoencoderKL, nothing was loaded"):
        model.load_autoencoder(folder / "unet")
    with pytest.raises(
        FileNotFoundError, match=r"holds no diffusion_pytorch_model.safetensors, nor does a folder unet"
    ):
        model.start_from(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder of a text encoder"):
        model.embed_captions(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no text encoder of CLIP"):
        model.embed_captions(folder)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    tiny = zoo.create("up_diff_tiny")
    with pytest.raises(ValueError, match="up_diff_tiny works on images, without an autoencoder"):
        tiny.load_autoencoder(folder)
    with pytest.raises(ValueError, match="up_diff_tiny learns its caption"):
        tiny.embed_captions(folder)


def test_captions_are_embedded_once(small, tmp_path):
    """By a text encoder of CLIP with a vocabulary of bytes, in the layout of diffusers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = [
        "<|startoftext|>",
        "<|endoftext|>",
        *"aremotsnighp.",
        *[f"{c}</w>" for c in "aremotsnighp."],
    ]
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tmp_path / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    names = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": words[0],
        "eos_token": words[1],
        "pad_token": words[1],
        "unk_token": words[1],
    }
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(names))
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    CLIPTextModel(
        CLIPTextConfig(**sizes, max_position_embeddings=5, bos_token_id=0, eos_token_id=1)
    ).save_pretrained(tmp_path / "text_encoder")
    model = small()
    model.caption.embedded.zero_()
    model.embed_captions(tmp_path)
    model.require_ready()
    caption, empty = model.caption(1), model.caption(1, empty=True)
    assert caption.isfinite().all()
    assert not torch.allclose(caption, empty)
    assert torch.allclose(caption[:, 0], empty[:, 0])  # the start token sees nothing behind it
    with pytest.raises(ValueError, match=r"embeds captions as \(5, 16\), expected \(5, 32\)"):
        small(context=32).embed_captions(tmp_path)


# -- our folders -------------------------------------------------------------------------------------------


@pytest.fixture
def tiny():
    pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return zoo.create("up_diff_tiny", prediction="v_prediction").eval()


FACTS = {
    "metrics": {"test/psnr": 17.5},
    "dataset": "synthetic cities",
    "method": "latent diffusion",
    "seed": 0,
}


def test_a_folder_of_ours(tiny, tmp_path):
    sheet = tmp_path / "samples.png"
    from PIL import Image

    Image.new("RGB", (8, 8)).save(sheet)
    folder = zoo.save(tiny, tmp_path / "out", figures=[sheet], licence="mit", **FACTS)
    again = zoo.load(f"local-dir:{folder}")
    assert same(again, tiny)
    assert again.schedule.prediction == "v_prediction"
    image = torch.zeros(1, 3, 16, 16)
    made = [
        sample(m, image, image[:, :1] + 1, steps=2, generator=torch.Generator().manual_seed(0))
        for m in (tiny, again)
    ]
    assert torch.equal(*made)
    card = (folder / "README.md").read_text()
    for text in (
        "An image-to-image network (up_diff_tiny), trained on synthetic cities.",
        "after = sample(model, before, change_map)",
        "| Change map | (1, 16, 16) |",
        "| Values | image in [-1, 1], change map -1 or 1 |",
        "![samples](figures/samples.png)",
        "PSNR | 17.5 dB",
        "2407.11578",
    ):
        assert text in card, text
    assert (folder / "figures" / "samples.png").is_file()
    assert not [word for word in ("classes", "accuracy", "timm", "K =") if word in card]


def test_it_is_published_and_comes_back(tiny, hub, client):
    zoo.push(tiny, "me/cities", **FACTS)
    assert same(zoo.load("hf-hub:me/cities"), tiny)


def test_it_is_told_without_the_libraries(tiny, tmp_path, monkeypatch, capsys):
    folder = zoo.save(tiny, tmp_path / "out")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "diffusers" else found(name, *a)
    )
    assert {"up_diff_levir", "up_diff_sysu", "up_diff_tiny"} <= set(zoo.list_models(task="image-to-image"))
    assert "692,096" in str(zoo.describe("up-diff-tiny"))
    main(["models", "up_diff*"])
    assert "1,174,526,706" in capsys.readouterr().out
    for call in (lambda: zoo.create("up_diff_tiny"), lambda: zoo.load(f"local-dir:{folder}")):
        with pytest.raises(
            ModuleNotFoundError,
            match=r"latent diffusion needs diffusers: pip install 'fulgurite\[diffusion\]'",
        ):
            call()
    assert get_entry("up_diff_tiny").parameters == 692_096
