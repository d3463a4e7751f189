"""Modules, UNet, schedule and sampling chains of UP-Diff against the authors' code."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import zoo
from tests.parity.goldens import over_files
from zoo.models import up_diff
from zoo.models.up_diff.layout import LayoutMap
from zoo.models.up_diff.official import our_name
from zoo.models.up_diff.unet import add_layout

pytest.importorskip("diffusers")
pytestmark = pytest.mark.golden

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # module outputs
CHAIN = {"rtol": 0.0, "atol": 1e-4}  # guided chains of samplers


def filled(golden, shapes, names):
    """Values for parameters of these names by the sidecar's rule, in its order."""
    assert set(names) == set(shapes)
    made = {}
    for k, name in enumerate(names):
        shape = shapes[name]
        index = torch.arange(math.prod(shape), dtype=torch.float64)
        values = torch.sin(0.7 * index + 1.3 * k + golden.sidecar["salt"])
        values = values / math.sqrt(len(index) / shape[0]) if len(shape) >= 2 else 0.1 * values
        values = values + float(len(shape) < 2 and name.endswith("weight"))
        made[name] = values.reshape(shape).float()
    return made


def shapes_of(module, rename=lambda name: name):
    return {rename(k): tuple(p.shape) for k, p in module.named_parameters()}


def stub(encoder):
    """One convolution of stride 32 in the place of ConvNeXt, as the sidecar says."""
    encoder.backbone = nn.Conv2d(3, 768, 32, stride=32)
    return encoder


def layout_encoder(size, tokens):
    encoder = up_diff.LayoutEncoder(nn.Identity(), size=size, channels=768, stride=32, token_channels=tokens)
    return stub(encoder)


def gated(state, sentence):
    """With the two gates that a sentence of the sidecar names, in this order, after its rule."""
    values = [float(v) for v in re.findall(r"\d\.\d+", sentence)[:2]]
    gates = dict(zip(("alpha_attn", "alpha_dense"), values, strict=True))
    return {
        k: torch.tensor(gates[name]) if (name := k.rpartition(".")[2]) in gates else v
        for k, v in state.items()
    }


def number(text, label):
    """``label=NUMBER`` or ``label NUMBER`` in a sentence of the sidecar."""
    return int(re.search(rf"{label}[= ](\d+)", text)[1])


@over_files("gca.x", "gca.objs", "gca.out", "gca.param.*")
def test_gated_cross_attention(golden):
    told = golden.sidecar
    fuser = up_diff.GatedCrossAttention(told["query_dim"], told["context_dim"], told["heads"])
    x, tokens = golden["gca.x"], golden["gca.objs"]
    fuser.load_state_dict(golden.under("gca.param."))
    golden.close("gca.out", fuser(x, tokens), **CLOSE)
    fuser.gate = 0.0
    assert torch.equal(fuser(x, tokens), x)
    fuser.gate = 1.0
    for gate in (fuser.alpha_attn, fuser.alpha_dense):
        nn.init.zeros_(gate)
    golden.close("gca.out_alpha0", fuser(x, tokens), **CLOSE)
    assert torch.equal(fuser(x, tokens), x)


def spatial_transformer(golden):
    """That of diffusers with what UP-Diff changes, and the holder of its layout map."""
    from diffusers import Transformer2DModel

    told, shared = golden.sidecar, LayoutMap()
    transformer = Transformer2DModel(
        told["heads"],
        told["dim_head"],
        in_channels=golden["st.x"].shape[1],
        cross_attention_dim=told["context_dim"],
        attention_type="gated",
    )
    features = golden["st.sem_feature"]
    add_layout(transformer, golden["gca.objs"].shape[2], told["heads"], features.shape[1], shared)
    shared.features = features
    return transformer


def call(golden, module, x):
    seen = {"gligen": {"objs": golden["gca.objs"]}}
    return module(x, encoder_hidden_states=golden["block.context"], cross_attention_kwargs=seen)


@over_files("block.out", "block.context", "gca.x", "st.x")
def test_transformer_block(golden):
    block = spatial_transformer(golden).transformer_blocks[0]
    names = golden.sidecar["block_param_names"]
    block.load_state_dict(gated(filled(golden, shapes_of(block), names), golden.sidecar["block"]))
    golden.close("block.out", call(golden, block, golden["gca.x"]), **CLOSE)


@over_files("st.out", "st.x", "st.sem_feature")
def test_spatial_transformer(golden):
    transformer = spatial_transformer(golden)
    ours = {"proj_out.": "proj_out.proj.", "proj_sem.": "proj_out.proj_sem."}
    names = {name: name for name in golden.sidecar["st_param_names"]}
    for theirs, own in ours.items():
        names = {k: own + v.removeprefix(theirs) if v.startswith(theirs) else v for k, v in names.items()}
    theirs = {v: k for k, v in names.items()}
    values = filled(golden, shapes_of(transformer, theirs.__getitem__), list(names))
    values = gated(values, golden.sidecar["st"])
    transformer.load_state_dict({names[name]: value for name, value in values.items()})
    golden.close("st.out", call(golden, transformer, golden["st.x"]).sample, **CLOSE)


@over_files("down.in", "down.out")
def test_input_branch(golden):
    branch = up_diff.InputBranch(number(golden.sidecar["down"], "resize_input"))
    branch.load_state_dict(filled(golden, shapes_of(branch), golden.sidecar["down_param_names"]))
    both = golden["down.in"]
    golden.close("down.out", branch(both[:, :3], both[:, 3:]), **CLOSE)


@over_files("pos.img_A", "pos.label", "pos.mask", "pos.objs", "pos.sem_feature")
def test_layout_encoder(golden):
    size, tokens = number(golden.sidecar["pos"], "resize_input"), golden["pos.objs"].shape[2]
    encoder = layout_encoder(size, tokens)
    names = [n.replace("convnext_tiny_backbone", "backbone") for n in golden.sidecar["pos_param_names"]]
    encoder.load_state_dict(filled(golden, shapes_of(encoder), names))
    made, features = encoder(golden["pos.img_A"], golden["pos.label"], golden["pos.mask"])
    golden.close("pos.objs", made, **CLOSE)
    golden.close("pos.sem_feature", features, **CLOSE)


def small_network(golden):
    """The network of the sidecar's sizes, filled through the names of the authors' checkpoint."""
    told, config = golden.sidecar, golden.sidecar["config"]
    side = golden["img_A"].shape[-1]
    halvings = int(math.log2(side // config["image_size"]))
    model = up_diff.UpDiff(
        image_size=side,
        branch_size=told["grounding_downsampler"]["resize_input"],
        layout_size=told["position_net"]["resize_input"],
        channels=[config["model_channels"] * m for m in config["channel_mult"]],
        attention=[2**i in config["attention_resolutions"] for i in range(len(config["channel_mult"]))],
        blocks=config["num_res_blocks"],
        heads=config["num_heads"],
        context=config["context_dim"],
        caption_length=golden["context"].shape[1],
        autoencoder_channels=[8] * (halvings + 1),
    )
    stub(model.layout_encoder)
    own = model.state_dict()
    rename = {name: our_name(name, config["num_res_blocks"]) for name in told["param_names"]}
    assert len(set(rename.values())) == len(rename)
    kept = ("autoencoder.", "latent_scale", "caption.")
    assert set(rename.values()) == {k for k in own if not k.startswith(kept)}
    shapes = {name: tuple(own[ours].shape) for name, ours in rename.items()}
    values = gated(filled(golden, shapes, told["param_names"]), told["after_fill"])
    factors = [float(v) for v in re.findall(r"by (\d+)", told["after_fill"])]
    scaled = (r"position_net.convnext_tiny_backbone.weight", r"position_net.linears.\d.weight")
    for pattern, factor in zip(scaled, factors, strict=True):
        for name in values:
            values[name] = values[name] * (factor if re.fullmatch(pattern, name) else 1)
    model.load_state_dict({**own, **{rename[name]: value for name, value in values.items()}})
    return model.eval()


@over_files("img_A", "label", "x", "timesteps", "context", "out_cond", "out_null")
@torch.no_grad()
def test_small_network(golden):
    model = small_network(golden)
    x, t, before, change = (golden[key] for key in ("x", "timesteps", "img_A", "label"))
    for key, layout in (("out_cond", True), ("out_null", False)):
        condition = replace(model.condition(before, change, layout=layout), caption=golden["context"])
        golden.close(key, model.predict(x, t, condition), **CLOSE)


@over_files("betas", "alphas_cumprod", "q.*", "temb", "ddim_timesteps_50", "ddim_timesteps_S")
def test_schedule(golden):
    from diffusers.models.embeddings import Timesteps

    schedule = up_diff.NoiseSchedule()
    golden.close("betas", schedule.betas, **CLOSE)
    golden.close("alphas_cumprod", schedule.alphas_cumprod, **CLOSE)
    noised = schedule.add_noise(golden["q.x0"], golden["q.noise"], golden["q.t"])
    golden.close("q.out", noised, **CLOSE)
    for key, steps in (("ddim_timesteps_50", 50), ("ddim_timesteps_S", golden.sidecar["S"])):
        golden.equal(key, up_diff.build_sampler("ddim", steps).timesteps.flip(0))
        assert sorted(set(up_diff.build_sampler("plms", steps).timesteps.tolist())) == golden[key].tolist()
    embedded = golden["temb"]  # the slowest pair of cosine and sine tells t
    half = embedded.shape[1] // 2
    slowest = math.exp(-math.log(10000) * (half - 1) / half)
    t = (torch.atan2(embedded[:, -1], embedded[:, half - 1]) / slowest).round()
    built = zoo.create("up_diff_tiny").unet.time_proj
    assert (built.flip_sin_to_cos, built.downscale_freq_shift) == (True, 0)
    golden.close("temb", Timesteps(embedded.shape[1], True, 0)(t), **CLOSE)


@over_files("xT", "context", "uc", "plms.*", "ddim.*")
def test_chains(golden):
    """The toy noise model of the sidecar, with and without guidance."""

    def predict(x, t, conditional):
        seen = golden["context"] if conditional else golden["uc"]
        angle = (t.float() / 1000).cos().reshape(-1, 1, 1, 1)
        return 0.6 * x * angle + 0.1 * seen.mean() + (0.2 * torch.sin(3 * x) if conditional else 0)

    told = golden.sidecar
    for sampler in ("plms", "ddim"):
        for key, guidance in (("out", 1.0), ("out_guided", float(told["guidance_scale"]))):
            steps = []
            made = up_diff.denoise(
                predict,
                golden["xT"],
                steps=told["S"],
                guidance=guidance,
                sampler=sampler,
                progress=lambda done, total, steps=steps: steps.append((done, total)),
            )
            golden.close(f"{sampler}.{key}", made, **CHAIN)
            total = told["S"] + (sampler == "plms")  # PLMS evaluates its first step twice
            assert steps == [(n, total) for n in range(1, total + 1)]
