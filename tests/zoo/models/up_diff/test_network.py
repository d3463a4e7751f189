"""What holds of the network of UP-Diff whatever its weights are."""

from __future__ import annotations

import re

import pytest
import torch

import zoo

MILLION = 1e6
GROUPS = {  # what UP-Diff trains, as its paper's code lists it
    "fusers": r"^unet\..*\.fuser\.",
    "layout map": r"^unet\..*\.proj_sem\.",
    "layout encoder": r"^layout_encoder\.",
    "input branch": r"^input_branch\.",
    "first convolution": r"^unet\.conv_in\.weight$",
}


def count(model, pattern):
    return sum(p.numel() for name, p in model.named_parameters() if re.search(pattern, name))


def trained(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "total", "learnt"), [("up_diff_levir", 1090.9, 231.4), ("up_diff_sysu", 1090.8, 231.3)]
)
def test_sizes(name, total, learnt):
    pytest.importorskip("diffusers")
    with torch.device("meta"):
        model = zoo.create(name)
    autoencoder = count(model, r"^autoencoder\.")
    assert sum(p.numel() for p in model.parameters()) == zoo.describe(name).parameters
    assert (count(model, "") - autoencoder) / MILLION == pytest.approx(total, abs=0.05)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) / MILLION == pytest.approx(
        learnt, abs=0.05
    )
    sizes = {label: count(model, pattern) / MILLION for label, pattern in GROUPS.items()}
    expected = {"fusers": 192.8, "layout map": 9.6, "layout encoder": 28.9}
    assert {label: sizes[label] for label in expected} == pytest.approx(expected, abs=0.05)
    assert sizes["first convolution"] == pytest.approx(0.0346, abs=1e-3)
    assert len([n for n, _ in model.named_parameters() if n.endswith("fuser.alpha_attn")]) == 16
    assert len([n for n, _ in model.named_parameters() if n.endswith("proj_sem.weight")]) == 16


def test_the_tiny_one_knows_its_size():
    pytest.importorskip("diffusers")
    assert (
        sum(p.numel() for p in zoo.create("up_diff_tiny").parameters())
        == zoo.describe("up_diff_tiny").parameters
    )


def test_only_the_conditioning_is_trained(small, pair, latent):
    model = small().train()
    listed = {n for n, _ in model.named_parameters() if any(re.search(p, n) for p in GROUPS.values())}
    assert trained(model) == listed
    assert "unet.conv_in.bias" not in listed
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1
    )
    for _ in range(2):  # the gates open in the first step
        optimizer.zero_grad()
        model(*latent, *pair).square().mean().backward()
        optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == listed - {"layout_encoder.null_feature"}  # no sample was masked


def test_everything_but_the_autoencoder_can_be_trained(small):
    model = small(trained="all")
    assert {n.partition(".")[0] for n in set(dict(model.named_parameters())) - trained(model)} == {
        "autoencoder"
    }
    assert trained(zoo.create("up_diff_tiny")) == set(dict(zoo.create("up_diff_tiny").named_parameters()))


@torch.no_grad()
def test_without_gates_and_map_it_is_the_plain_unet(small, pair, latent):
    from diffusers import UNet2DConditionModel

    model = small(layout_init="zero")
    told = {k: v for k, v in model.unet.config.items() if not k.startswith("_") and k != "attention_type"}
    plain = UNet2DConditionModel(**told).eval()
    own = model.unet.state_dict()
    plain.load_state_dict({k: own[k.replace(".proj_out.", ".proj_out.proj.")] for k in plain.state_dict()})
    condition = model.condition(*pair)
    seen = torch.cat([latent[0], condition.channels], 1)
    expected = plain(seen, latent[1], condition.caption).sample
    torch.testing.assert_close(model(*latent, *pair), expected)
    assert not torch.allclose(small(layout_init="random")(*latent, *pair), expected, atol=1e-2)


@torch.no_grad()
def test_closed_channels_hide_the_input_branch(small, pair, latent):
    model = small()
    image, change = pair
    other = model(*latent, -image, change, layout=False)
    assert not torch.allclose(model(*latent, image, change, layout=False), other, atol=1e-4)
    model.unet.conv_in.weight[:, 4:] = 0
    assert torch.equal(
        model(*latent, image, change, layout=False), model(*latent, -image, change, layout=False)
    )


@torch.no_grad()
def test_the_null_layout_hides_image_and_map_from_the_layout_only(small, pair, open_gates):
    model = open_gates(small())
    image, change = pair
    first, second = (model.condition(x, c, layout=False) for x, c in ((image, change), (-image, -change)))
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.features, second.features)
    assert not torch.allclose(first.channels, second.channels, atol=1e-3)
    shown = model.condition(image, change)
    assert not torch.allclose(shown.features, first.features, atol=1e-3)
    assert not torch.allclose(shown.tokens, first.tokens, atol=1e-3)
    assert torch.equal(shown.channels, first.channels)


@torch.no_grad()
def test_the_gate_weakens_the_layout_tokens(small, pair, latent, open_gates):
    closed, model = small(), open_gates(small())
    assert not torch.allclose(model(*latent, *pair), closed(*latent, *pair), atol=1e-4)
    model.set_gate(0.0)
    assert torch.equal(model(*latent, *pair), closed(*latent, *pair))


def test_checkpointing_gives_the_same_gradients_and_keeps_less(small, pair, latent, open_gates):
    found = []
    for enable in (False, True):
        model = open_gates(small()).train()
        model.set_grad_checkpointing(enable)
        kept = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, kept=kept: (kept.append(t.numel()), t)[1], lambda t: t
        )
        with hooks:
            loss = model(*latent, *pair).square().mean()
        loss.backward()
        found.append((sum(kept), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (much, expected), (little, got) = found
    assert little < 0.6 * much
    unused = {"layout_encoder.null_feature"}
    assert all(torch.equal(got[n], expected[n]) for n in expected)
    assert {n for n, g in got.items() if not g.any()} == unused


def test_two_calls_before_a_backward_pass_do_not_mix_their_layouts(small, pair, latent, open_gates):
    model = open_gates(small()).train()
    model.set_grad_checkpointing()
    image, change = pair

    def gradient(calls):
        model.zero_grad()
        sum(model(*latent, image, c).square().mean() for c in calls).backward()
        return model.layout_encoder.in_conv.weight.grad.clone()

    alone = gradient([change]) + gradient([-change])
    torch.testing.assert_close(gradient([change, -change]), alone, rtol=1e-4, atol=1e-6)


# -- wrong input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branch_size": 64}, "branch_size must be 4 times the latent's 4 pixels, got 64"),
        ({"image_size": 30}, "height and width must be multiples of 8, got 30 x 30"),
        ({"layout_size": 30}, "the layout size must be a multiple of 4, got 30"),
        ({"prediction": "noise"}, "prediction must be 'epsilon' or 'v_prediction', got 'noise'"),
        ({"layout_init": "ones"}, "layout_init must be 'random' or 'zero', got 'ones'"),
        ({"trained": "some"}, "trained must be 'conditioning' or 'all', got 'some'"),
        ({"autoencoder": "vq"}, "autoencoder must be 'kl' or 'identity', got 'vq'"),
        ({"attention": (True,)}, "channels has 2 resolutions, attention 1"),
        ({"heads": 3}, "channels must be multiples of the 3 heads, got 32"),
        ({"groups": 7}, "channels must be multiples of the 7 groups, got 32"),
    ],
)
def test_wrong_arguments(small, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(**change)


def test_wrong_images(small, pair, latent):
    model = small()
    image, change = pair
    for args, message in (
        ((image[:, :1], change), r"expected images N, C = 3, H, W, got \(2, 1, 32, 32\)"),
        ((image, change[:1]), r"expected change maps \(2, 1, 32, 32\), got \(1, 1, 32, 32\)"),
        ((image[..., :16], change[..., :16]), "expected images of 32 x 32 pixels, got 32 x 16"),
    ):
        with pytest.raises(ValueError, match=message):
            model(*latent, *args)
    with pytest.raises(ValueError, match="expected a latent of 4 x 4, got 8 x 8"):
        model(torch.zeros(2, 4, 8, 8), latent[1], *pair)
    with pytest.raises(ValueError, match="must be multiples of 8, got 30 x 32"):
        model.encode(torch.zeros(1, 3, 30, 32))
