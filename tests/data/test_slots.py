"""Memory of workers that is used again: batches keep their pixels for as long as anybody holds them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from vq.core.records import Batch
from vq.data import loading, slots
from vq.data.collate import image_rows
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan, training_plan
from vq.interfaces import Dataset, Sample

PREFETCH = 2


class Pictures(Dataset):
    """Noise that depends on the index; ``tall``: every third batch of four is larger. ``at_once``: by ``load_batch``, which
    gives up after taking memory if ``None``."""

    draws = False

    def __init__(self, count: int, tall: bool = False, at_once: bool | None = False) -> None:
        self.count, self.tall, self.at_once = count, tall, at_once

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return str(index)

    def pixels(self, index: int) -> np.ndarray:
        height = 12 if self.tall and index // 4 % 3 == 1 else 5
        return np.random.default_rng(index).integers(0, 256, (height, 7, 3), np.uint8)

    def load(self, index: int, stream: random.Random) -> Sample:
        return Sample(image=self.pixels(index), id=str(index), category=index, extra={'square': index**2})

    def load_batch(self, indices: Sequence[int], reading: Callable[[int], object] = lambda index: None) -> Batch | None:
        if self.at_once is False:
            return None
        rows = image_rows(len(indices), *self.pixels(indices[0]).shape[:2])
        for row, index in zip(rows, indices, strict=True):
            row.copy_(torch.from_numpy(self.pixels(index)).permute(2, 0, 1))
        ids = [str(index) for index in indices]
        return Batch(image=rows, id=ids, key=torch.tensor(indices)) if self.at_once else None

    def right(self, batch: Batch) -> bool:
        expected = torch.stack([torch.from_numpy(self.pixels(int(name))).permute(2, 0, 1) for name in batch.id])
        assert batch.image is not None
        return torch.equal(batch.image, expected)


def loader_of(dataset: Pictures, workers: int = 1, batch: int = 4) -> Loader:
    plan = evaluation_plan(len(dataset), batch, 0, 1)
    return Loader(dataset, plan, LoaderSettings(batch, workers, PREFETCH), 0, training=False)


@pytest.mark.slow
@pytest.mark.parametrize('at_once', [False, True, None])
@pytest.mark.parametrize('tall', [False, True])
def test_kept_batches_keep_their_pixels(tall, at_once):
    dataset = Pictures(50, tall, at_once)
    with loader_of(dataset, workers=2) as loader:
        batches = list(loader)
    assert len(batches) == 13 and len(batches[-1]) == 2  # all alive at once, the last one smaller
    assert [name for batch in batches for name in batch.id] == [str(index) for index in range(50)]
    assert all(map(dataset.right, batches))
    places = {batch.image.data_ptr() for batch in batches if batch.image is not None}
    assert len(places) == len(batches)


def test_memory_is_used_again_once_nobody_holds_it():
    dataset, places = Pictures(160), set()
    with loader_of(dataset) as loader:
        for batch in loader:
            assert dataset.right(batch)
            places.add(batch.image.data_ptr())
    assert 1 < len(places) <= PREFETCH + 2  # of 40 batches


def test_a_view_or_an_array_of_a_batch_holds_its_memory():
    dataset = Pictures(160)
    with loader_of(dataset) as loader:
        first = next(loader).image[1]  # the tensor of the batch is gone
        second = next(loader).image[2].numpy()
        assert all(map(dataset.right, loader))
    assert torch.equal(first, torch.from_numpy(dataset.pixels(1)).permute(2, 0, 1))
    assert np.array_equal(second, dataset.pixels(6).transpose(2, 0, 1))


def test_batches_outlive_their_loader():
    dataset = Pictures(24)
    loader = loader_of(dataset)
    batches = [next(loader), next(loader)]
    loader.close()
    del loader
    with loader_of(dataset) as other:
        assert all(map(dataset.right, other))
    assert all(map(dataset.right, batches))


def test_other_fields_arrive_as_they_were():
    with loader_of(Pictures(8)) as loader, loader_of(Pictures(8), workers=0) as alone:
        for ours, theirs in zip(loader, alone, strict=True):
            assert torch.equal(ours.category, theirs.category) and ours.category.dtype == torch.int64
            assert torch.equal(ours.key, theirs.key)
            assert ours.extra == theirs.extra and ours.extra['square'][3] == int(ours.id[3]) ** 2
            ours.category += 1  # it is the receiver's own


def test_tensors_of_every_kind_are_sent():
    tensors = {
        'half': torch.ones(3, dtype=torch.bfloat16),
        'large': torch.arange(slots.SMALL),
        'turned': torch.arange(6).view(2, 3).t(),
        'one': torch.tensor(2.5),
        'none': torch.zeros(0, 4),
    }
    batch = Batch(image=None, id=['a'], key=torch.zeros(1, dtype=torch.int64), extra=dict(tensors))
    sent, where = slots.Loan(slots.Slots(1, PREFETCH), 0).sent(batch)
    assert where is None and isinstance(sent.key, slots.Message)
    assert [type(value) for value in sent.extra.values()] == [Tensor, Tensor, *[slots.Message] * 3]
    back = slots.received(sent, where)
    assert torch.equal(back.key, batch.key)
    for name, tensor in tensors.items():
        assert torch.equal(back.extra[name], tensor) and back.extra[name].dtype == tensor.dtype


def test_pinned_batches_are_copies_and_their_slots_are_free(monkeypatch):
    """What torch's thread does with a packet, on a machine without CUDA."""
    monkeypatch.setattr(Batch, '_tensors', lambda batch, change: {'image': batch.image.clone(), 'key': batch.key.clone()})
    dataset = Pictures(80)
    with loader_of(dataset) as loader:
        copies = [next(loader)]
        loader._packets = map(loading.Packet.pin_memory, loader._packets)
        copies += loader
        places = {memory.data_ptr() for memory in loader._slots.memory.values()}
    assert len(copies) == 20 and all(map(dataset.right, copies))
    assert len(places) <= PREFETCH + 2
    assert not places & {batch.image.data_ptr() for batch in copies[1:]}


def test_without_torchs_count_of_references_all_memory_is_new(monkeypatch):
    monkeypatch.setattr(slots, 'CAN_COUNT', False)
    dataset = Pictures(50)
    with loader_of(dataset) as loader:
        assert all(map(dataset.right, loader)) and not loader._slots.memory


@pytest.mark.slow
def test_an_endless_plan_with_several_workers_stays_right():
    dataset, held = Pictures(30, tall=False), []
    plan = training_plan(30, 4, 0, 1, 5)
    with Loader(dataset, plan, LoaderSettings(4, 2, PREFETCH), 5, training=True) as loader:
        stream = random.Random(0)
        for batch in itertools.islice(loader, 200):
            held.append(batch)
            if stream.random() < 0.6:
                held.pop(stream.randrange(len(held)))
            assert dataset.right(stream.choice(held or [batch]))
        assert all(map(dataset.right, held)) and len(held) > 20
