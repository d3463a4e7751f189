"""Gaussians are added and taken away as the settings say, and the optimiser goes on with the new ones."""

from __future__ import annotations

import pytest
import torch

from zoo.models.usp_gaussian import Densification, Densifier, Gaussians
from zoo.models.usp_gaussian.densify import SHRINK, NoGaussiansError, rearrange
from zoo.models.usp_gaussian.rasterizer import Rendering

SMALL, LARGE, FAINT = 0.001, 0.4, -8.0


def scene(count=6):
    """Gaussians told apart by their colour, with an optimiser that has moments."""
    torch.manual_seed(0)
    gaussians = Gaussians(count, degree=1)
    with torch.no_grad():
        gaussians.base[:, 0] = torch.arange(float(count))
        gaussians.log_scales.fill_(SMALL).log_()
    optimizer = torch.optim.Adam(
        [{"params": [p], "name": n, "lr": 0.0} for n, p in gaussians.named_parameters()]
    )
    sum((p * torch.arange(1.0, p.numel() + 1).view_as(p)).sum() for p in gaussians.parameters()).backward()
    optimizer.step()
    return gaussians, optimizer


def densifier(count=6, wanted=(), **settings):
    found = Densifier(Densification(start=10, every=10, reset_every=10, stop=1000, **settings), count)
    found.seen += 2
    found.gradients[list(wanted)] = 1.0
    return found


def numbers(gaussians):
    return gaussians.base[:, 0].tolist()


def first_moments(gaussians, optimizer):
    return optimizer.state[gaussians.base]["exp_avg"][:, 0].tolist()


def check_optimizer(gaussians, optimizer):
    """It knows exactly the parameters of the scene, with moments of their shape."""
    own = dict(gaussians.named_parameters())
    assert [g["params"] for g in optimizer.param_groups] == [[own[g["name"]]] for g in optimizer.param_groups]
    assert {id(p) for p in optimizer.state} == {id(p) for p in own.values()}
    for parameter in own.values():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
        assert optimizer.state[parameter]["exp_avg_sq"].shape == parameter.shape
        assert float(optimizer.state[parameter]["step"]) == 1
    for parameter in own.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_small_ones_are_cloned():
    gaussians, optimizer = scene()
    moments, means = first_moments(gaussians, optimizer), gaussians.means.detach().clone()
    found = densifier(wanted=(1, 4))
    assert found.refine(gaussians, optimizer, step=50, views=3) == (2, 0, 0)
    assert numbers(gaussians) == [0, 1, 2, 3, 4, 5, 1, 4]
    assert torch.equal(gaussians.means, torch.cat([means, means[[1, 4]]]))
    assert first_moments(gaussians, optimizer) == [*moments, 0, 0]
    assert len(found.seen) == 8
    assert not found.seen.any()
    check_optimizer(gaussians, optimizer)


def test_large_ones_are_split():
    gaussians, optimizer = scene()
    with torch.no_grad():
        gaussians.log_scales[2] = torch.tensor([LARGE, 1e-4, 1e-4]).log()
        gaussians.quaternions[2] = torch.tensor([1.0, 0, 0, 1.0])  # its long axis is the world's y
    moments, mean = first_moments(gaussians, optimizer), gaussians.means[2].detach().clone()
    assert densifier(wanted=(2,)).refine(gaussians, optimizer, step=50, views=3) == (0, 1, 0)
    assert numbers(gaussians) == [0, 1, 3, 4, 5, 2, 2]
    assert first_moments(gaussians, optimizer) == [*moments[:2], *moments[3:], 0, 0]
    torch.testing.assert_close(gaussians.scales[5:, 0], torch.full((2,), LARGE / SHRINK))
    away = gaussians.means[5:] - mean
    assert (away[:, [0, 2]].abs() < 2e-3).all()
    assert (away[:, 1].abs() > 1e-3).all()
    assert away[0, 1] != away[1, 1]
    check_optimizer(gaussians, optimizer)


def test_what_is_large_on_the_screen_is_split_for_a_while():
    for step, split in ((50, 1), (450, 0)):
        gaussians, optimizer = scene()
        found = densifier(wanted=(3,), screen_stop=400)
        found.screen[3] = 0.06
        count = found.refine(gaussians, optimizer, step=step, views=3)
        assert (count.split, count.cloned) == (split, 1)


def test_faint_and_huge_ones_go():
    gaussians, optimizer = scene()
    with torch.no_grad():
        gaussians.opacity_logits[0] = FAINT
        gaussians.log_scales[5] = 0.0  # standard deviation 1
    found = densifier()
    found.screen[2] = 0.5
    assert found.refine(gaussians, optimizer, step=50, views=3) == (0, 0, 1)
    assert numbers(gaussians) == [1, 2, 3, 4, 5]  # sizes count once opacities have been reset
    found.screen[1] = 0.5
    assert found.refine(gaussians, optimizer, step=150, views=3) == (0, 0, 2)
    assert numbers(gaussians) == [1, 3, 4]
    check_optimizer(gaussians, optimizer)


def test_opacities_are_reset_and_nothing_is_added_right_after():
    gaussians, optimizer = scene()
    with torch.no_grad():
        gaussians.opacity_logits.copy_(torch.tensor([5.0, 1.0, 0.0, -5.0, -6.0, -7.0]))
    found = densifier(wanted=(1,))
    assert found.refine(gaussians, optimizer, step=110, views=3) == (0, 0, 0)  # 110 % 100 == every
    torch.testing.assert_close(gaussians.opacities[:3], torch.full((3,), 0.01))
    assert (gaussians.opacities[3:] < 0.01).all()
    assert not optimizer.state[gaussians.opacity_logits]["exp_avg"].any()
    assert optimizer.state[gaussians.means]["exp_avg"].all()
    assert found.refine(gaussians, optimizer, step=113, views=3) is None
    found.gradients[1] = found.seen[1] = 1.0
    assert found.refine(gaussians, optimizer, step=120, views=30) == (0, 0, 0)  # 30 views have not been seen
    assert len(gaussians) == 6


@pytest.mark.parametrize("step", [0, 5, 10, 55, 1000, 1010])
def test_other_steps_change_nothing(step):
    gaussians, optimizer = scene()
    assert densifier(wanted=(0, 1)).refine(gaussians, optimizer, step=step, views=3) is None
    assert len(gaussians) == 6


def test_no_gaussians_left_is_said_and_nothing_is_lost():
    gaussians, optimizer = scene()
    with torch.no_grad():
        gaussians.opacity_logits.fill_(FAINT)
    message = r"no Gaussians are left at step 50: all 6 were pruned .* lower densification.min_opacity"
    with pytest.raises(NoGaussiansError, match=message):
        densifier().refine(gaussians, optimizer, step=50, views=3)
    assert len(gaussians) == 6


def test_gradients_are_averaged_over_the_views_that_show_a_gaussian():
    found = Densifier(Densification(), 3)
    means = torch.zeros(2, 3, 2, requires_grad=True)
    means.grad = torch.tensor([[[3.0, 4], [0, 1], [5, 5]], [[0, 0], [0, 3], [5, 5]]])
    radii = torch.tensor([[2.0, 1, 0], [0, 8, 0]])
    image = torch.zeros(2, 10, 20, 3)
    found.watch(Rendering(image=image, alpha=image, means=means, radii=radii), step=0)
    assert found.seen.tolist() == [1, 2, 0]
    assert (found.gradients / found.seen.clamp_min(1)).tolist() == [50, 20, 0]  # half of 20 pixels
    torch.testing.assert_close(found.screen, torch.tensor([0.1, 0.4, 0.0]))
    found.watch(Rendering(image=image, alpha=image, means=means, radii=radii), step=20_000)
    assert found.seen.tolist() == [1, 2, 0]


def test_any_order_can_be_asked_for():
    gaussians, optimizer = scene()
    before = {name: p.detach().clone() for name, p in gaussians.named_parameters()}
    source = torch.tensor([5, 0, 0])
    rearrange(gaussians, optimizer, source, torch.tensor([False, False, True]))
    for name, parameter in gaussians.named_parameters():
        assert torch.equal(parameter, before[name][source])
    check_optimizer(gaussians, optimizer)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Densification(every=0)
    with pytest.raises(ValueError, match=r"min_opacity must be in \[0, 0.5\), got 0.7"):
        Densification(min_opacity=0.7)
