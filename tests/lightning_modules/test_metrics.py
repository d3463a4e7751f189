"""Accuracy at every T against a naive loop."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from datamodules import EvalSampler
from lightning_modules import AccuracyOverTime
from lightning_modules.metrics import repeated_samples


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


def test_samples_that_a_process_repeats_are_counted_once():
    """Whatever the size, processes and batch size: all shares together are the set."""
    for size in (3, 5, 8, 9):
        for world in (2, 3, 4):
            for batch_size in (1, 2, 3):
                seen = []
                for rank in range(world):
                    sampler = EvalSampler(size, batch_size, rank, world)
                    loader = DataLoader(range(size), batch_size=batch_size, sampler=sampler)
                    run = SimpleNamespace(test_dataloaders=loader)
                    for i, batch in enumerate(loader):
                        seen += batch[: len(batch) - repeated_samples(run, "test", i)].tolist()
                assert sorted(seen) == list(range(size))
