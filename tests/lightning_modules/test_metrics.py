"""Accuracy at every T against a naive loop."""

import pytest
import torch

from lightning_modules import AccuracyOverTime


@pytest.mark.parametrize("top_k", [1, 2])
def test_prefix_accuracy_equals_the_naive_loop(top_k):
    generator = torch.Generator().manual_seed(1)
    metric, hits, total = AccuracyOverTime(top_k), [0, 0, 0], 0
    for size in (5, 2):
        logits = torch.randn(3, size, 4, generator=generator)
        target = torch.randint(0, 4, (size,), generator=generator)
        metric.update(logits, target)
        total += size
        for t in range(3):
            mean = logits[: t + 1].mean(0)
            for b in range(size):
                hits[t] += int(target[b] in mean[b].topk(top_k).indices)
    torch.testing.assert_close(metric.compute(), torch.tensor(hits) / total)
    metric.reset()
    assert metric.compute().numel() == 0


def test_sequences_of_unequal_length_keep_their_last_verdict():
    metric = AccuracyOverTime()
    right = torch.tensor([[[1.0, 0.0]]])
    metric.update(right, torch.tensor([0]))
    metric.update(right.expand(3, 1, 2), torch.tensor([0]))
    assert metric.compute().tolist() == [1.0, 1.0, 1.0]
