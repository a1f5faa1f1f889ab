"""The loader: contents, reproducibility, bad images, workers."""

from __future__ import annotations

import gc
import itertools
import logging
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import key_of, python_stream
from vq.core.records import Batch
from vq.data import loading
from vq.data.bad_images import FEW
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.folder import FolderDataset
from vq.data.decode import BadImage
from vq.data.loading import Loader, LoaderSettings, replacements
from vq.data.plan import evaluation_plan, training_plan
from vq.interfaces import Dataset, Sample
from vq.registries import VQTransformRegistry


class Noise(Dataset):
    """Each sample is noise from its stream, with its index in the corner; some are bad."""

    def __init__(self, count: int, bad: tuple[int, ...] = (), wide: tuple[int, ...] = (), action: str = '') -> None:
        self.count, self.bad, self.wide, self.action = count, set(bad), set(wide), action

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return f'noise/{index}'

    def load(self, index: int, stream: random.Random) -> Sample:
        if self.action == 'die' and index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == 'report':
            return Sample(image=np.zeros((2, 2, 3), np.uint8), id=self.id_of(index), extra={'pid': os.getpid()})
        if index in self.bad:
            raise BadImage(f'disk/{index}.png', 'is empty')
        image = np.frombuffer(stream.randbytes(4 * 5 * 3), np.uint8).reshape(4, 5, 3).copy()
        image[0, 0, 0] = index
        image = image[:, :4] if index in self.wide else image
        return Sample(
            image=image,
            id=self.id_of(index),
            category=index % 3,
            path=f'disk/{index}.png',
            text=f'picture {index}',
            extra={'number': index},
        )


class OwnCollate(Noise):
    def collate(self, samples: list[Sample]) -> Batch:
        image = torch.zeros(len(samples), 3, 1, 1, dtype=torch.uint8)
        return Batch(image=image, id=['own'] * len(samples), key=torch.zeros(1))


def train(
    dataset: Dataset, batch: int, steps: int, seed: int = 3, start: int = 0, **settings: object
) -> tuple[list[Batch], Loader]:
    plan = training_plan(len(dataset), batch, 0, 1, seed, start)
    with Loader(dataset, plan, LoaderSettings(batch, **settings), seed, training=True) as loader:
        return list(itertools.islice(loader, steps)), loader


def evaluate(dataset: Dataset, batch: int, **settings: object) -> tuple[list[Batch], Loader]:
    plan = evaluation_plan(len(dataset), batch, 0, 1)
    with Loader(dataset, plan, LoaderSettings(batch, **settings), 3, training=False) as loader:
        return list(loader), loader


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        one.id == two.id and torch.equal(one.image, two.image) and torch.equal(one.category, two.category)
        for one, two in zip(first, second, strict=True)
    )


# contents


def test_a_batch_holds_what_the_samples_hold():
    dataset = Noise(10)
    (batch,), _ = train(dataset, 4, 1)
    places = next(training_plan(10, 4, 0, 1, 3))
    assert batch.image.shape == (4, 3, 4, 5)
    assert batch.image.dtype == torch.uint8
    assert batch.to('cpu').image.is_contiguous()
    for row, (epoch, index) in enumerate(places):
        exact = dataset.load(index, python_stream('sample', 3, epoch, index))['image']
        np.testing.assert_array_equal(batch.image[row].permute(1, 2, 0).numpy(), exact)
    indices = [index for _, index in places]
    assert batch.id == [f'noise/{index}' for index in indices]
    assert batch.key.tolist() == [key_of(name) for name in batch.id]
    assert batch.key.dtype == batch.category.dtype == torch.int64
    assert batch.category.tolist() == [index % 3 for index in indices]
    assert batch.path == [f'disk/{index}.png' for index in indices]
    assert batch.text == [f'picture {index}' for index in indices]
    assert batch.extra == {'number': indices}
    assert batch.boxes is batch.mask is None


def test_what_samples_lack_the_batch_lacks():
    batches, _ = evaluate(DigitsDataset('test', image_size=8), 64)
    assert [len(batch) for batch in batches] == [64, 64, 52]
    assert batches[0].path is batches[0].text is None
    assert batches[0].extra == {}


def test_boxes_and_masks_are_stacked():
    class Boxed(Noise):
        def load(self, index, stream):
            return Sample(super().load(index, stream), boxes=np.full((2, 4), index, np.float32), mask=np.eye(3, dtype=bool))

    (batch,), _ = evaluate(Boxed(3), 3)
    assert batch.boxes.shape == (3, 2, 4)
    assert batch.boxes[2, 0, 0] == 2
    assert batch.mask.dtype == torch.bool
    assert batch.mask.shape == (3, 3, 3)


def test_a_datasets_own_collate_is_used():
    (batch,), _ = evaluate(OwnCollate(3), 3)
    assert batch.id == ['own'] * 3


@pytest.mark.parametrize('workers', [0, 1])
def test_images_of_different_sizes_are_named(workers):
    with pytest.raises(UserError, match='noise/0 is 5 x 4, noise/2 is 4 x 4') as raised:
        evaluate(Noise(4, wide=(2,)), 4, num_workers=workers)
    assert 'Add a transform' in raised.value.hint


@pytest.mark.parametrize('image', [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), torch.zeros(4, 4, 3)])
def test_images_of_another_kind_are_refused(image):
    class Odd(Noise):
        def load(self, index, stream):
            return Sample(image=image, id='odd/1')

    with pytest.raises(UserError, match=r'the image of odd/1 is .* and a uint8 array'):
        evaluate(Odd(1), 1)


# purity


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:This DataLoader will create 3')
@pytest.mark.parametrize('workers', [1, 3])
def test_workers_change_nothing(workers):
    dataset = Noise(23, bad=(4, 11))
    settings = {'bad_images': 'skip', 'bad_image_cap': 0.5}
    alone, first = train(dataset, 5, 12, **settings)
    shared, second = train(dataset, 5, 12, num_workers=workers, **settings)
    assert same(alone, shared)
    assert first.skipped == second.skipped == {'disk/4.png': 'is empty', 'disk/11.png': 'is empty'}
    assert same(evaluate(dataset, 5, **settings)[0], evaluate(dataset, 5, num_workers=workers, **settings)[0])


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_the_generators_of_this_process_are_left_alone(workers):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    def run():
        transform = VQTransformRegistry.build({'type': 'strong', 'image_size': 8})
        train(DigitsDataset(image_size=8, transform=transform), 4, 3, num_workers=workers)

    run()  # a first import may draw random numbers, as rich does
    before = state()
    run()
    assert state() == before


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    def views(batch, steps, seed=3):
        batches, _ = train(Noise(12), batch, steps, seed)
        places = itertools.chain.from_iterable(itertools.islice(training_plan(12, batch, 0, 1, seed), steps))
        return dict(zip(places, (image.numpy().tobytes() for one in batches for image in one.image), strict=True))

    small, large = views(3, 8), views(8, 3)
    assert small == large
    assert len(set(small.values())) == 24  # two epochs: another view each time
    assert not set(small.values()) & set(views(3, 8, seed=4).values())


@pytest.mark.parametrize('start', [4, 7, 30])
def test_a_loader_from_start_goes_on_where_another_stopped(start):
    whole, _ = train(Noise(11), 1, 50)
    rest, _ = train(Noise(11), 1, 50 - start, start=start)
    assert same(whole[start:], rest)


# bad images


@pytest.mark.parametrize('workers', [0, 2])
def test_raise_names_the_file_the_reason_and_the_way_out(workers):
    with pytest.raises(UserError) as raised:
        evaluate(Noise(6, bad=(4,)), 2, num_workers=workers)
    assert raised.value.exit_code == 2
    assert raised.value.message == 'bad image disk/4.png: is empty'
    assert 'set bad_images to skip' in raised.value.hint


def test_training_replaces_a_bad_sample_by_another(caplog):
    dataset = Noise(40, bad=(5, 6))
    with caplog.at_level(logging.WARNING, 'vq'):
        batches, loader = train(dataset, 8, 20, bad_images='skip', bad_image_cap=0.1)
    assert all(len(batch) == 8 for batch in batches)
    places = list(itertools.islice(itertools.chain.from_iterable(training_plan(40, 8, 0, 1, 3)), 160))
    taken = [int(name.split('/')[1]) for batch in batches for name in batch.id]
    in_place_of_5 = {epoch: other for (epoch, index), other in zip(places, taken, strict=True) if index == 5}
    assert all(other == index for (_, index), other in zip(places, taken, strict=True) if index not in (5, 6))
    assert not {5, 6} & set(taken)
    assert len(set(in_place_of_5.values())) > 1  # not the same neighbour in every epoch
    for epoch, other in in_place_of_5.items():
        assert other == next(index for index in replacements(40, 3, epoch, 5) if index not in dataset.bad)
    assert loader.skipped == {'disk/5.png': 'is empty', 'disk/6.png': 'is empty'}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # one for each file, however often it comes
    assert 'disk/5.png: is empty' in ' '.join(lines)


def test_a_replacement_is_another_view_than_the_sample_itself():
    batches, _ = train(Noise(3, bad=(0, 1)), 3, 1, bad_images='skip', bad_image_cap=1)
    assert batches[0].id == ['noise/2'] * 3
    assert len({image.numpy().tobytes() for image in batches[0].image}) == 3


def test_evaluation_drops_bad_samples_and_empty_batches():
    batches, loader = evaluate(Noise(9, bad=(1, 3, 4, 5)), 3, bad_images='skip', bad_image_cap=0.5)
    assert [batch.id for batch in batches] == [['noise/0', 'noise/2'], ['noise/6', 'noise/7', 'noise/8']]
    assert len(loader.skipped) == 4


@pytest.mark.parametrize(
    ('cap', 'count', 'allowed'), [(0.001, 50, FEW), (0.2, 50, 10), (0.2, 9, FEW), (0.0, 50, 0), (1, 8, 8)]
)
def test_the_cap_is_a_share_of_the_dataset(cap, count, allowed):
    settings = {'bad_images': 'skip', 'bad_image_cap': cap}
    _, loader = evaluate(Noise(count, bad=tuple(range(allowed))), 4, **settings)
    assert len(loader.skipped) == allowed
    if allowed < count:
        with pytest.raises(RunFailure, match=f'{allowed + 1} bad images of {count}, .* allows {allowed}'):
            evaluate(Noise(count, bad=tuple(range(allowed + 1))), 1, **settings)


@pytest.mark.parametrize('workers', [0, 2])
def test_over_the_cap_the_first_files_are_listed(workers):
    with pytest.raises(RunFailure) as raised:
        evaluate(Noise(100, bad=tuple(range(20, 40))), 16, bad_images='skip', bad_image_cap=0.02, num_workers=workers)
    assert raised.value.exit_code == 1
    assert '12 bad images of 100' in raised.value.message  # all of the batch that went over
    assert 'disk/20.png: is empty' in raised.value.message
    assert '... and 7 more' in raised.value.message
    assert 'bad_image_cap' in raised.value.hint


def test_a_dataset_without_a_good_image_ends():
    with pytest.raises(RunFailure, match='no sample found in place of a bad image: 33 could not be decoded'):
        train(Noise(500, bad=tuple(range(500))), 2, 1, bad_images='skip', bad_image_cap=1)
    with pytest.raises(RunFailure, match='1 could not be decoded'):
        train(Noise(1, bad=(0,)), 1, 1, bad_images='skip', bad_image_cap=1)


def test_replacements_are_different_pure_and_never_the_sample():
    for count in (1, 2, 5, 33, 34, 10_000):
        drawn = list(replacements(count, 0, 1, 0))
        assert len(drawn) == len(set(drawn)) == min(32, count - 1)
        assert 0 not in drawn
        assert all(0 <= index < count for index in drawn)
        assert drawn == list(replacements(count, 0, 1, 0))
    assert list(replacements(10_000, 0, 1, 0)) != list(replacements(10_000, 0, 2, 0))


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_every_kind_of_bad_file_under_both_policies(bad_file, tmp_path, make_picture):
    path, word = bad_file
    for number in range(3):
        Image.fromarray(make_picture(8, 8, seed=number)).save(tmp_path / f'good{number}.png')
    dataset = FolderDataset(tmp_path)
    assert len(dataset) == 4
    with pytest.raises(UserError, match=word) as raised:
        evaluate(dataset, 4)
    assert str(path) in raised.value.message
    batches, loader = evaluate(dataset, 4, bad_images='skip')
    assert batches[0].id == ['good0.png', 'good1.png', 'good2.png']
    assert list(loader.skipped) == [str(path)]
    batches, _ = train(dataset, 4, 2, bad_images='skip')
    assert all(len(batch) == 4 and path.name not in batch.id for batch in batches)


# settings


def test_batch_size_per_rank():
    assert LoaderSettings(12).per_rank(5) == 12
    assert LoaderSettings(12, batch_size_in_total=True).per_rank(4) == 3
    with pytest.raises(ConfigError, match='12 in total does not divide among 5 ranks'):
        LoaderSettings(12, batch_size_in_total=True).per_rank(5)


@pytest.mark.parametrize(
    'wrong', [{'batch_size': 0}, {'num_workers': -1}, {'prefetch': 0}, {'bad_images': 'ignore'}, {'bad_image_cap': 1.5}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        LoaderSettings(**{'batch_size': 4, **wrong})


def test_pinning_is_for_cuda_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    batches, _ = evaluate(Noise(2), 2, pin_memory=True)
    assert not batches[0].image.is_pinned()


# workers


@pytest.fixture
def children():
    """The processes started since the test began; other tests may have processes too."""
    before = {process.pid for process in multiprocessing.active_children()}
    return lambda: [process for process in multiprocessing.active_children() if process.pid not in before]


def endless(workers: int, dataset: Dataset | None = None) -> Loader:
    dataset = dataset or Noise(50)
    return Loader(dataset, training_plan(len(dataset), 2, 0, 1, 0), LoaderSettings(2, num_workers=workers), 0, training=True)


@pytest.mark.parametrize('way', ['close', 'with', 'collected', 'error'])
def test_no_worker_outlives_its_loader(way, children):
    loader = endless(2, Noise(50, bad=(20,)) if way == 'error' else None)
    next(loader)
    assert len(children()) == 2
    if way == 'close':
        loader.close()
    elif way == 'with':
        with loader:
            next(loader)
    elif way == 'error':
        with pytest.raises(UserError, match=r'disk/20\.png'):
            list(loader)
    else:
        del loader
        gc.collect()
    assert not children()
    if way != 'collected':
        assert list(loader) == []  # closed for good
        loader.close()


@pytest.mark.slow
def test_workers_work_on_when_the_run_is_told_to_stop(children):
    loader = endless(2)
    next(loader)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        for worker in children():
            os.kill(worker.pid, number)
        time.sleep(0.05)
        for _ in range(10):
            assert len(next(loader)) == 2
    assert len(children()) == 2
    loader.close()
    assert not children()


def test_a_worker_that_only_starts_is_not_ended_either(children, monkeypatch):
    prepare = loading.prepare_worker

    def late(number: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        prepare(number)

    monkeypatch.setattr(loading, 'prepare_worker', late)
    with endless(2) as loader:
        assert len(next(loader)) == 2
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_worker_that_is_killed_ends_the_run_with_advice(children):
    with endless(1, Noise(9, action='die')) as loader, pytest.raises(RunFailure, match='died') as raised:
        list(loader)
    assert 'died while it was reading noise/7: ' in raised.value.message
    assert 'num_workers' in raised.value.hint
    assert not children()


@pytest.mark.parametrize(
    'error', [ConnectionResetError(104, 'reset'), EOFError(), RuntimeError('DataLoader worker (pid 1) is')]
)
def test_a_pipe_that_breaks_first_tells_the_same(error, monkeypatch):
    loader = endless(1)
    monkeypatch.setattr(loader, '_next_packet', lambda: raising(error))
    with pytest.raises(RunFailure, match='a worker that loads images died'):
        next(loader)
    alone = endless(0)
    monkeypatch.setattr(alone, '_next_packet', lambda: raising(error))
    with pytest.raises(type(error)):
        next(alone)


@pytest.mark.slow
def test_a_death_that_is_told_during_the_clean_up_does_not_hide_the_advice(monkeypatch):
    loader = endless(1)
    next(loader)
    packets = loader._packets
    clean_up = packets._shutdown_workers

    def interrupted():
        clean_up()
        raise RuntimeError('DataLoader worker (pid 1) is killed by signal: Killed.')

    monkeypatch.setattr(packets, '_shutdown_workers', interrupted)
    monkeypatch.setattr(loader, '_next_packet', lambda: raising(ConnectionResetError(104, 'reset')))
    with pytest.raises(RunFailure, match='a worker that loads images died'):
        next(loader)


def raising(error: Exception) -> None:
    raise error


def test_errors_of_the_datasets_own_code_stay_what_they_are():
    class Remote(Noise):
        def load(self, index, stream):
            raise ConnectionError('server gone')

    for workers in (0, 1):
        with pytest.raises(ConnectionError, match='server gone'):
            evaluate(Remote(2), 2, num_workers=workers)


def test_a_bad_image_without_a_path_goes_by_its_id():
    class Nowhere(Noise):
        def load(self, index, stream):
            if index == 1:
                raise BadImage('', 'is too narrow')
            return super().load(index, stream)

    assert evaluate(Nowhere(3), 3, bad_images='skip')[1].skipped == {'noise/1': 'is too narrow'}


def test_samples_come_from_the_workers():
    batches, _ = evaluate(Noise(8, action='report'), 2, num_workers=2)
    pids = {pid for batch in batches for pid in batch.extra['pid']}
    assert len(pids) == 2
    assert os.getpid() not in pids
