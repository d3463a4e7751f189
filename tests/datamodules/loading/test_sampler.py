"""Order, shares and skipping of samples."""
# ruff: noqa: NPY002  numpy's global generator is what must stay untouched

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import EpochLoader, EvalSampler, SyntheticDataModule, TrainSampler
from datamodules.loading.random import integers, kept_generators, sample_keys, seed_everything, uniforms


def indices(sampler):
    return [index for _, index in sampler]


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 60), world=st.integers(1, 5), epoch=st.integers(0, 3), drop=st.booleans())
def test_processes_partition_an_epoch(size, world, epoch, drop):
    if drop and size < world:
        with pytest.raises(ValueError, match="cannot be shared"):
            TrainSampler(size, 1, 0, world, drop)
        return
    shares = []
    for rank in range(world):
        sampler = TrainSampler(size, 1, rank, world, drop)
        sampler.set_epoch(epoch)
        shares.append(indices(sampler))
        assert len(shares[-1]) == len(sampler)
    assert len({len(share) for share in shares}) == 1
    flat = [index for share in shares for index in share]
    if drop:
        assert len(set(flat)) == len(flat) == size // world * world
    else:
        assert set(flat) == set(range(size))
        assert len(flat) == math.ceil(size / world) * world


def test_order_depends_on_seed_and_epoch_only():
    first = TrainSampler(50, seed=4)
    again = TrainSampler(50, seed=4)
    torch.manual_seed(99)
    torch.rand(7)
    assert list(first) == list(again)
    again.set_epoch(1)
    assert indices(first) != indices(again)
    assert indices(TrainSampler(50, seed=5)) != indices(first)
    assert sorted(indices(again)) == list(range(50))
    assert {epoch for epoch, _ in again} == {1}


def test_order_is_pinned():
    # a changed order would make checkpoints continue in the wrong place
    assert indices(TrainSampler(8, seed=0)) == [0, 6, 7, 4, 3, 1, 2, 5]


def test_starting_later_yields_the_tail():
    sampler = TrainSampler(30, seed=2, rank=1, world_size=2)
    whole = list(sampler)
    sampler.start = 7
    assert list(sampler) == whole[7:]
    assert len(sampler) == 15  # the length stays that of the epoch


@settings(deadline=None, max_examples=100)
@given(size=st.integers(1, 60), world=st.integers(1, 5), batch=st.integers(1, 9))
def test_evaluation_shares_have_equally_many_batches_and_hardly_any_repeats(size, world, batch):
    shares = [list(EvalSampler(size, batch, rank, world)) for rank in range(world)]
    assert len({math.ceil(len(share) / batch) for share in shares}) == 1
    flat = [index for share in shares for index in share]
    assert set(flat) == set(range(size))
    assert len(flat) - size < world
    remainder = math.ceil(size / world) != size // world
    if not remainder or (size // world) % batch:
        assert len(flat) == size


def test_keys_and_draws_are_independent_of_grouping():
    together = sample_keys(3, 5, np.arange(1000))
    alone = np.concatenate([sample_keys(3, 5, [i]) for i in range(1000)])
    np.testing.assert_array_equal(together, alone)
    assert len(np.unique(together)) == 1000
    assert len(np.intersect1d(together, sample_keys(3, 6, np.arange(1000)))) == 0
    assert len(np.intersect1d(together, sample_keys(4, 5, np.arange(1000)))) == 0


def test_draws_are_uniform_and_uncorrelated():
    keys = sample_keys(0, 0, np.arange(200_000))
    first, second = uniforms(keys, 0), uniforms(keys, 1)
    assert first.min() >= 0
    assert first.max() < 1
    # five standard errors of the mean of N uniform numbers
    assert abs(first.mean() - 0.5) < 5 / math.sqrt(12 * len(keys))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(len(keys))
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 5 / math.sqrt(len(keys))
    counts = np.bincount(integers(keys, 2, 9), minlength=9)
    assert len(counts) == 9
    assert abs(counts - len(keys) / 9).max() < 5 * math.sqrt(len(keys) / 9)


def test_generators_are_put_back():
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    with kept_generators():
        seed_everything(123456789012345)
        torch.rand(5)
        np.random.rand(5)
    assert (torch.rand(1).item(), np.random.rand()) == expected


def synthetic(**options):
    options = {"num_workers": 0, "seed": 7, "batch_size": 8, **options}
    data = SyntheticDataModule(
        num_classes=3, image_size=8, train_samples=42, crop_padding=2, flip=0.5, **options
    )
    data.setup()
    return data


def epochs(loader, count=2):
    out = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        out += [(x.clone(), y.clone()) for x, y in loader]
    return out


def test_workers_change_nothing():
    plain, workers = epochs(synthetic().train_dataloader()), None
    workers = epochs(synthetic(num_workers=2).train_dataloader())
    assert len(plain) == len(workers) == 10
    for (x, y), (x2, y2) in zip(plain, workers, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
    assert not torch.equal(plain[0][0], plain[5][0])  # the epoch changes order and augmentation


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_continues_in_the_middle_of_an_epoch(workers):
    loader = synthetic().train_dataloader()
    loader.sampler.set_epoch(3)
    whole = [x.clone() for x, _ in loader]
    passing = iter(loader)
    for _ in range(2):
        next(passing)
    state = loader.state_dict()
    assert state == {"epoch": 3, "batches": 2}
    fresh = synthetic(num_workers=workers).train_dataloader()
    fresh.load_state_dict(state)
    rest = [x.clone() for x, _ in fresh]
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[2:], strict=True))
    assert len(list(fresh)) == len(whole)  # only the first pass is shortened


def test_a_state_from_the_end_of_an_epoch_begins_the_next():
    loader = synthetic().train_dataloader()
    list(loader)
    fresh = synthetic().train_dataloader()
    fresh.load_state_dict(loader.state_dict())
    assert len(list(fresh)) == len(fresh)
    assert fresh.sampler.epoch == 1


def test_nothing_is_drawn_from_the_global_generators():
    data = synthetic(auto_augment="rand-m5-n1-mstd0.5", random_erasing=1.0)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    python = random.getstate()
    epochs(data.train_dataloader())
    list(data.val_dataloader())
    assert random.getstate() == python
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_augmentation_of_a_sample_does_not_depend_on_its_batch():
    data = synthetic(auto_augment="rand-m5-n1-mstd0.5", random_erasing=0.5, cutout=3)
    batch, _ = data.train_set.__getitems__([(2, i) for i in range(10)])
    for i in range(10):
        alone, _ = data.train_set[(2, i)]
        assert torch.equal(alone, batch[i])


def test_a_set_smaller_than_a_batch_is_kept():
    data = synthetic(batch_size=64)
    assert [len(y) for _, y in data.train_dataloader()] == [42]
    assert [len(y) for _, y in synthetic(batch_size=40).train_dataloader()] == [40]
    assert [len(y) for _, y in synthetic(batch_size=40, drop_last=False).train_dataloader()] == [
        40,
        2,
    ]


def test_loader_is_a_plain_dataloader_to_others():
    loader = synthetic().train_dataloader()
    assert isinstance(loader, torch.utils.data.DataLoader)
    assert isinstance(loader, EpochLoader)
    assert loader.batch_size == 8
    assert len(loader) == 5
