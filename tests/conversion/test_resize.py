"""A converted network for another resolution: the source is exported again, thresholds and weights stay."""

import pytest
import timm
import torch

import conversion
import zoo
from conversion import ConversionError, convert
from conversion.network.site import sites


def noise(n, size, seed=0):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


SMALL = {"embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 10}


def vit(size):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=size, **SMALL).eval()


@pytest.mark.parametrize("method", ["ecmt", "dcgs"])
@torch.no_grad()
def test_thresholds_and_weights_stay(method):
    source = timm.create_model("test_resnet", num_classes=10).eval()
    small = convert(source, method, 4, noise(8, 32), progress=False)
    large = conversion.resize(small, source, (3, 64, 64))
    assert large.recipe["input_size"] == [3, 64, 64]
    assert large.time_steps == 4
    assert large.report.self_test < 1e-3
    for name, site in sites(small).items():
        assert torch.equal(sites(large)[name].v_threshold, site.v_threshold)
    x = noise(2, 64, seed=1)
    assert large(x, steps=True).shape == (4, 2, 10)
    large.time_steps = 64
    assert (large(x) - source(x)).abs().mean() < 0.1 * source(x).abs().mean()
    assert small(noise(2, 32)).shape == (2, 10), "the first one is as it was"
    with pytest.raises(ValueError, match=r"expected C, H, W = \(3, 32, 32\)"):
        small(x)


@torch.no_grad()
def test_position_embeddings_are_resampled_and_saved(tmp_path):
    source = vit(32)
    origin = {"architecture": "timm/vit_tiny_patch16_224", "model_args": {**SMALL, "img_size": 32}}
    small = convert(source, "dcgs", 4, noise(8, 32), progress=False, source=origin)
    small.get_parameter("head.bias").add_(1.0)  # as fine-tuning would
    large = zoo.resize(small, (3, 64, 64))
    assert source.pos_embed.shape[1] == 5
    expected = vit(32)
    expected.load_state_dict(small.state_dict(), strict=False)
    expected.set_input_size(img_size=(64, 64))
    x = noise(2, 64, seed=1)
    large.time_steps = 64
    torch.testing.assert_close(large(x), expected(x), rtol=0, atol=0.02 * expected(x).abs().max().item())
    zoo.save(large, tmp_path)
    again = zoo.load(str(tmp_path))
    assert torch.equal(again(x), large(x))


def test_thresholds_of_tokens_ask_for_images():
    source = vit(32)
    small = convert(source, "dcgs", 4, noise(8, 32), progress=False, level="neuron")
    with pytest.raises(ConversionError, match="give calibration images of the new size"):
        conversion.resize(small, source, (3, 64, 64))
    large = conversion.resize(small, source, (3, 64, 64), noise(8, 64), progress=False)
    assert large.report.images == 8


def test_what_cannot_be_resized(relu_net, images):
    snn = convert(relu_net, "dcgs", 2, images(6), progress=False)
    with pytest.raises(ValueError, match="does not know its source"):
        zoo.resize(snn, (3, 64, 64))
    with pytest.raises(ConversionError, match="not the source that the network was converted from"):
        conversion.resize(
            convert(vit(32), "dcgs", 2, noise(8, 32), progress=False),
            timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10),
            (3, 64, 64),
        )
    with pytest.raises(ValueError, match="C = 3"):
        conversion.resize(snn, relu_net, (1, 64, 64))
    source = timm.create_model("test_resnet", num_classes=10).eval()
    folded = convert(source, "dcgs", 2, noise(8, 32), progress=False, fold_batch_norm=True)
    with pytest.raises(ValueError, match="batch norms folded"):
        zoo.resize(folded, (3, 64, 64))
    assert conversion.resize(folded, source, (3, 64, 64)).report.self_test < 1e-3
