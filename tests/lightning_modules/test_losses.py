"""The losses against their formulas."""

import pytest
import torch
from torch.nn import functional as F

from lightning_modules import mean_logit_loss, tet_loss


@pytest.fixture
def logits():
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


TARGET = torch.tensor([0, 3, 1, 2, 2])


def test_mean_logit_loss_is_the_cross_entropy_of_the_mean(logits):
    log_p = logits.mean(0).log_softmax(1)
    naive = -sum(log_p[b, y] for b, y in enumerate(TARGET)) / 5
    torch.testing.assert_close(mean_logit_loss(logits, TARGET), naive)


def test_tet_is_the_mean_over_steps_and_a_pull(logits):
    ce = sum(F.cross_entropy(z, TARGET) for z in logits) / 3
    pull = ((logits - 0.7) ** 2).mean()
    torch.testing.assert_close(tet_loss(logits, TARGET, 0.05, 0.7), 0.95 * ce + 0.05 * pull)


def test_tet_without_pull_on_constant_logits_equals_the_mean_logit_loss():
    z = torch.randn(5, 4).expand(3, 5, 4).clone().requires_grad_()
    w = z.detach().clone().requires_grad_()
    a, b = tet_loss(z, TARGET, tet_lambda=0.0), mean_logit_loss(w, TARGET)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(z.grad, w.grad)


@pytest.mark.parametrize("loss", [mean_logit_loss, tet_loss])
def test_soft_targets_of_one_class_equal_that_class(loss, logits):
    soft = F.one_hot(TARGET, 4).float()
    torch.testing.assert_close(loss(logits, soft), loss(logits, TARGET))
    smooth = soft * 0.9 + 0.1 / 4
    torch.testing.assert_close(loss(logits, smooth), loss(logits, TARGET, label_smoothing=0.1))
