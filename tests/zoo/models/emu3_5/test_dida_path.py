"""Noise takes an image apart and jumps put it together again, with the probabilities that were promised."""

from __future__ import annotations

import pytest
import torch

from zoo.models.emu3_5.dida import (
    Denoising,
    MetricPath,
    MixturePath,
    denoise,
    jump,
    jump_probability,
    time_grid,
    training_times,
)

K = 9
LEVELS = torch.linspace(-1, 1, K)[:, None] * 2
PATHS = [MetricPath(LEVELS, normalize=False), MixturePath(K)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("path", PATHS, ids=["metric", "mixture"])
def test_from_pure_noise_to_certainty(path):
    clean = torch.full((9000,), 3)
    counts = path.corrupt(clean, torch.tensor(0.0), generator()).bincount(minlength=K)
    chi_square = float((counts - 1000).square().sum() / 1000)
    assert chi_square < 26.1  # 8 degrees of freedom: exceeded once in a thousand seeds
    assert torch.equal(path.corrupt(clean, torch.tensor(1 - 1e-6), generator()), clean)
    for t in (0.0, 0.3, 0.7, 0.999):
        total = path.probabilities(clean[:4], torch.tensor(t)).sum(-1)
        torch.testing.assert_close(total, torch.ones(4))


def test_codes_that_look_alike_are_confused_first():
    path = PATHS[0]
    for t in (0.1, 0.5, 0.8):
        p = path.probabilities(torch.tensor([2]), torch.tensor(t))[0]
        order = path.distances(torch.tensor([2]))[0].argsort(stable=True)
        assert (p[order].diff() <= 1e-7).all()
        assert p[2] > p[3] > p[6]


@pytest.mark.parametrize("path", PATHS, ids=["metric", "mixture"])
def test_jumps_lead_towards_the_image(path):
    g = generator()
    clean = torch.randint(K, (500,), generator=g)
    for t, ahead in zip(time_grid(8)[:-1].float(), time_grid(8)[1:].float(), strict=True):
        current = torch.randint(K, (500,), generator=g)
        velocity = path.velocity(current, clean, t)
        assert (velocity >= 0).all()
        to_clean = path.distances(clean) if isinstance(path, MetricPath) else None
        if to_clean is not None:
            farther = to_clean > to_clean.gather(1, current[:, None])
            assert (velocity[farther] == 0).all()
        p = jump_probability(velocity, ahead - t)
        assert ((p >= 0) & (p <= 1)).all()
        after = jump(path, current, clean, t, ahead - t, g)
        moved = after != current
        if to_clean is not None:
            assert (to_clean.gather(1, after[:, None]) <= to_clean.gather(1, current[:, None]) + 1e-6).all()
            assert moved.any() == (t > 0)  # the first step of this path moves nothing
        else:
            assert torch.equal(after[moved], clean[moved])


def test_jumps_follow_the_probabilities_of_the_path():
    """Many small steps from noise bring the codes to the path's own distribution at a later time."""
    # the mixture path's rates are exact; the metric path's stand without the 1/p of a true generator
    path, t_end, n = PATHS[1], 0.6, 300
    clean = torch.full((20000,), 5)
    g = generator(3)
    codes = path.corrupt(clean, torch.tensor(0.0), g)
    for step in range(n):
        codes = jump(path, codes, clean, torch.tensor(step * t_end / n), torch.tensor(t_end / n), g)
    share = float((codes == 5).float().mean())
    assert share == pytest.approx(float(path.probabilities(clean[:1], torch.tensor(t_end))[0, 5]), abs=0.015)


@pytest.mark.parametrize("form", ["jump", "renoise"])
@pytest.mark.parametrize("path", PATHS, ids=["metric", "mixture"])
def test_a_network_that_knows_the_image_draws_it(path, form):
    wanted = torch.arange(12)[None] % K
    calls = []

    def predict(codes, t):
        calls.append(t)
        assert codes.shape == (1, 12)
        return torch.nn.functional.one_hot(wanted, K) * 100.0

    seen = []
    settings = Denoising(passes=5, form=form)
    made = denoise(predict, path, (1, 12), settings, generator(), progress=lambda n, of: seen.append((n, of)))
    assert torch.equal(made, wanted)
    assert calls == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert seen == [(n, 5) for n in range(1, 6)]


def test_times():
    assert time_grid(4).tolist() == [0.0, 0.25, 0.5, 0.75]
    assert (time_grid(8, 3.0)[1:] < time_grid(8)[1:]).all()
    t = training_times(torch.linspace(0, 1 - 1e-6, 1000), 3.0)
    assert (t >= 0).all()
    assert (t < 1).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Denoising(passes=0), "number of passes must be at least 1, got 0"),
        (lambda: Denoising(form="leap"), "form must be 'jump' or 'renoise', got 'leap'"),
        (lambda: Denoising(temperature=0.0), "temperature must be positive"),
        (lambda: Denoising(shift=-1.0), "shift must be positive, got -1"),
        (lambda: MetricPath(torch.zeros(3)), r"embeddings must be \[K, D\], got \(3,\)"),
        (lambda: MetricPath(LEVELS, c=0.0), "c of the metric path must be positive, got 0"),
    ],
)
def test_wrong_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
