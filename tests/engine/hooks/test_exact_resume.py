"""Every draw of a training loader has random numbers of its own."""

import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from lungdet_mmdet.engine.hooks.training import seed_draws


class Noise(Dataset):
    """Index and three random numbers."""

    def __init__(self, size=6):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert type(index) is int
        return index, random.random(), float(np.random.random()), float(torch.rand(()))


class Skips(InfiniteSampler):
    """As mmengine's from 0.10.8: it can begin behind what was trained."""

    def __init__(self, dataset, seed):
        super().__init__(dataset, seed=seed)
        self.behind = 0

    def skip(self, samples):
        self.behind = samples

    def __iter__(self):
        return itertools.islice(super().__iter__(), self.behind, None)


def loader(sampler, *, dataset=None, workers=0):
    dataset = dataset or Noise()
    made = DataLoader(
        dataset,
        batch_size=2,
        sampler=sampler(dataset, seed=5),
        num_workers=workers,
        collate_fn=list,
    )
    return made, seed_draws(made, seed=1)


def take(batches, count):
    iterator = iter(batches)
    return [sample for _ in range(count) for sample in next(iterator)]


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_gives_the_draws_that_would_have_come(workers):
    whole, _ = loader(Skips)
    expected = take(whole, 5)
    assert len({sample[1] for sample in expected}) == 10
    resumed, sampler = loader(Skips, workers=workers)
    assert resumed.sampler is sampler
    resumed.sampler.skip(6)
    assert take(resumed, 2) == expected[6:]


def test_a_sampler_that_cannot_skip_does_not_say_it_can():
    made, _ = loader(DefaultSampler)
    assert not hasattr(made.sampler, "skip")
    made.sampler.set_epoch(3)  # mmengine's hook asks the loader's sampler
    assert made.batch_sampler.sampler.epoch == 3


def test_epochs_differ_and_repeat():
    made, sampler = loader(lambda data, seed: DefaultSampler(data, shuffle=False, seed=seed))
    found = []
    for epoch in (0, 1, 0):
        sampler.begin_epoch(epoch)
        found.append(take(made, 3))
    assert found[0] == found[2]
    assert (
        [sample[0] for sample in found[0]] == [sample[0] for sample in found[1]] == list(range(6))
    )
    assert not {sample[1] for sample in found[0]} & {sample[1] for sample in found[1]}


def test_a_join_of_datasets_is_seeded_as_well():
    joined = [loader(InfiniteSampler, dataset=ConcatDataset([Noise(4), Noise(2)]))[0] for _ in "ab"]
    first, second = (take(made, 4) for made in joined)
    assert first == second
