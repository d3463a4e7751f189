"""The diffusion of UP-Diff and its sampling chains, beyond what the authors' numbers pin."""

from __future__ import annotations

import re

import pytest
import torch

import zoo
from zoo.models.up_diff import NoiseSchedule, denoise, latent_spread, sample

pytest.importorskip("diffusers")
SAMPLERS = ("plms", "ddim", "dpm")


@pytest.fixture
def tiny():
    """The tiny member with open gates, and two samples."""
    torch.manual_seed(0)
    model = zoo.create("up_diff_tiny").eval()
    for name, parameter in model.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):
            parameter.data.fill_(0.7)
    before = torch.rand(2, 3, 16, 16) * 2 - 1
    change = (torch.rand(2, 1, 16, 16) > 0.5).float() * 2 - 1
    return model, before, change


def test_noise_grows_with_time():
    schedule = NoiseSchedule()
    abar = schedule.alphas_cumprod
    assert (abar.diff() < 0).all()
    assert float(abar[0]) == pytest.approx(0.99915, abs=5e-6)
    roots = schedule.betas.double().sqrt()
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(999), rtol=1e-2, atol=0)
    x, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    t = torch.tensor([0, 999])
    a = abar[t].reshape(-1, 1, 1, 1)
    torch.testing.assert_close(schedule.add_noise(x, noise, t), a.sqrt() * x + (1 - a).sqrt() * noise)


def test_what_is_predicted():
    x, noise, t = torch.randn(3, 3, 4, 4), torch.randn(3, 3, 4, 4), torch.tensor([0, 400, 999])
    assert torch.equal(NoiseSchedule().target(x, noise, t), noise)
    schedule = NoiseSchedule("v_prediction")
    a = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
    noisy, v = schedule.add_noise(x, noise, t), schedule.target(x, noise, t)
    torch.testing.assert_close(a.sqrt() * noisy - (1 - a).sqrt() * v, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_are_those_of_min_snr(prediction):
    schedule, t = NoiseSchedule(prediction), torch.arange(1000)
    assert torch.equal(schedule.weights(t), torch.ones(1000))
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    weights = schedule.weights(t, 5.0)
    expected = torch.minimum(snr, torch.tensor(5.0)) / (snr + (prediction == "v_prediction"))
    torch.testing.assert_close(weights, expected)
    assert (weights <= 1).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_chains_end_where_a_perfect_network_points(sampler, prediction):
    torch.manual_seed(0)
    schedule = NoiseSchedule(prediction)
    x = torch.rand(2, 3, 4, 4) * 2 - 1

    def predict(noisy, t, conditional):
        a = schedule.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        return schedule.target(x, (noisy - a.sqrt() * x) / (1 - a).sqrt(), t)

    noise = torch.randn(x.shape)
    made = denoise(predict, noise, steps=20, guidance=1.0, sampler=sampler, prediction=prediction)
    first, last = schedule.alphas_cumprod[[951, 0]]
    kept = (noise - first.sqrt() * x) / (1 - first).sqrt()
    if sampler == "dpm":  # ends without noise, the others at t = 0, which keeps a little of it
        torch.testing.assert_close(made, x, rtol=1e-3, atol=1e-3)
    else:
        close = 0.1 if (sampler, prediction) == ("plms", "v_prediction") else 1e-3  # it averages v over steps
        torch.testing.assert_close(made, last.sqrt() * x + (1 - last).sqrt() * kept, rtol=1e-3, atol=close)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_of_one_is_the_conditional_chain(tiny, sampler):
    model, before, change = tiny
    noise = torch.randn(2, 3, 16, 16)
    asked = []

    def predict(latents, t, conditional):
        asked.append(conditional)
        return model(latents, t, before, change)

    expected = denoise(predict, noise, steps=4, guidance=1.0, sampler=sampler).clamp(-1, 1)
    assert all(asked)
    got = {
        g: sample(model, before, change, steps=4, guidance=g, sampler=sampler, noise=noise)
        for g in (1.0, 3.0)
    }
    torch.testing.assert_close(got[1.0], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got[3.0], expected, atol=1e-2)


@torch.no_grad()
def test_the_unconditional_call_keeps_the_input_branch(tiny):
    model, before, change = tiny
    noise = torch.randn(2, 3, 16, 16)
    seen = []

    def predict(latents, t, conditional):
        seen.append(conditional)
        return model(latents, t, before, change, layout=conditional, caption=conditional)

    expected = denoise(predict, noise, steps=3, guidance=5.0).clamp(-1, 1)
    assert seen == [True, False] * 4
    torch.testing.assert_close(
        sample(model, before, change, steps=3, noise=noise), expected, rtol=1e-3, atol=1e-4
    )


def test_progress_and_seeds(tiny):
    model, before, change = tiny
    steps = []
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    made = [
        sample(
            model, before, change, steps=2, sampler="ddim", generator=g, progress=lambda *n: steps.append(n)
        )
        for g in generators
    ]
    assert steps == [(1, 2), (2, 2)] * 3
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert all(m.abs().max() <= 1 for m in made)
    assert model.unet.conv_in.weight.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "euler"}, "sampler must be 'plms', 'ddim' or 'dpm', got 'euler'"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": 600}, "steps must be at most 500, got 600"),
        ({"noise": torch.zeros(1, 3, 16, 16)}, "expected noise (2, 3, 16, 16), got (1, 3, 16, 16)"),
    ],
)
def test_wrong_settings(tiny, change, message):
    model, *pair = tiny
    with pytest.raises(ValueError, match=re.escape(message)):
        sample(model, *pair, **change)


def test_without_captions_nothing_is_sampled(small, pair):
    model = small()
    assert sample(model, *pair, steps=1, guidance=2.0).shape == (2, 3, 32, 32)
    model.caption.embedded.zero_()
    with pytest.raises(RuntimeError, match="up_diff_levir knows no captions yet"):
        sample(model, *pair, steps=1)


def test_latents_are_looked_at_and_rescaled(small):
    model = small()
    torch.manual_seed(0)
    batches = [torch.rand(4, 3, 32, 32) * 2 - 1 for _ in range(3)]
    spread = latent_spread(model, batches)
    assert spread.images == 12
    assert not spread.sound  # a fresh autoencoder, with the scale of another one
    model.rescale_latents(spread.std)
    again = latent_spread(model, batches)
    assert again.sound
    assert again.std == pytest.approx(1.0, abs=0.1)
    noise = torch.randn(2, 4, 4, 4)
    torch.testing.assert_close(model.decode(noise), model.autoencoder.decode(noise / model.latent_scale))
    with pytest.raises(ValueError, match="at least one image"):
        latent_spread(model, [])
    with pytest.raises(ValueError, match="must be positive and finite, got 0"):
        model.rescale_latents(0.0)
