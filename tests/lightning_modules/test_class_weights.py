"""Weights of classes: as torch weighs a cross-entropy, and as scikit-learn balances."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from lightning_modules import mean_logit_loss, tet_loss
from lightning_modules.class_weights import check_class_weights, class_weight_tensor

Data = SimpleNamespace(train_set=SimpleNamespace(targets=torch.tensor([0] * 6 + [1] * 3 + [2])))


def test_balanced_is_scikit_learns():
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=Data.train_set.targets.numpy())
    np.testing.assert_allclose(class_weight_tensor("balanced", Data, 3).numpy(), theirs, rtol=1e-6)


def test_losses_weigh_every_sample_by_its_class():
    torch.manual_seed(0)
    logits, y, weights = torch.randn(4, 8, 3), torch.randint(0, 3, (8,)), torch.tensor([1.0, 2.0, 5.0])
    each = -logits.mean(0).log_softmax(1)[torch.arange(8), y]
    expected = (each * weights[y]).sum() / weights[y].sum()
    torch.testing.assert_close(mean_logit_loss(logits, y, class_weights=weights), expected)
    steps = -logits.log_softmax(2)[:, torch.arange(8), y]
    expected = (steps * weights[y]).sum() / (4 * weights[y].sum())
    torch.testing.assert_close(tet_loss(logits, y, 0.0, class_weights=weights), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], "2 values for K = 3"),
        ([1.0, -2.0, 1.0], "positive"),
        ([1.0, float("nan"), 1.0], "positive and finite"),
        ("rare", "'balanced' or 3 numbers"),
    ],
)
def test_what_is_wrong_is_named(weights, message):
    with pytest.raises(ValueError, match=message):
        check_class_weights(weights, 3)


def test_balanced_needs_labels_of_every_class():
    with pytest.raises(ValueError, match="no training sample is of class 3"):
        class_weight_tensor("balanced", Data, 4)
    with pytest.raises(ValueError, match="give K numbers"):
        class_weight_tensor("balanced", None, 3)


def test_a_task_trains_with_them(tiny_task, tiny_data, trainer):
    task = tiny_task(class_weights="balanced")
    trainer().fit(task, datamodule=tiny_data())
    assert task.loss_weights.shape == (6,)
