"""Tokens and latents of anything but the model's own tokenizer are refused, each with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.runners.test_split_writer import tokenizer_of, writer_of
from vq.core.errors import UserError
from vq.data.datasets.combined import ConcatDataset
from vq.data.datasets.latents import LatentDataset
from vq.data.datasets.tokens import TokenDataset
from vq.data.loading import Loader, LoaderSettings
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Dataset, Task
from vq.runners.belonging import check_belongs
from vq.tokenizers.hashing import tokens_hash

SETTINGS: dict[str, Any] = dict(shard_size=90)


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokens/ and latents/ of the tokenizers of seed 0, and of/nobody/tokens, which name no tokenizer."""
    home = tmp_path_factory.mktemp('caches')
    for kind in ('tokens', 'latents'):
        for place, named in ((home, tokens_hash(tokenizer_of(kind))), (home / 'of/nobody', '')):
            writer = writer_of(place, kind, **SETTINGS)
            writer.context.meta['tokens_hash'] = named
            writer.run()
    return home


def task_of(kind: str, seed: int = 0, **settings: Any) -> Task:
    task = Task()
    task.tokenizer = FrozenTokenizer(tokenizer_of(kind, seed), **{'image_size': 16, **settings})
    return task


def with_statistics(deviation: float) -> Task:
    task = task_of('latents')
    task.tokenizer.tokenizer.statistics.put(torch.zeros(4), torch.full((4,), deviation))
    return task


OTHER = tokens_hash(tokenizer_of('latents', 1))
CASES = {
    'tokens of other weights': ('tokens', lambda: task_of('tokens', 1), ['made by another tokenizer', 'Give the tokenizer']),
    'tokens, continuous model': ('tokens', lambda: task_of('latents'), ['has no codes', 'Give the tokenizer that made them']),
    'tokens of nobody': ('of/nobody/tokens', lambda: task_of('tokens'), ['do not say whose', '--load-model-from TOKENIZER']),
    'latents of other weights': ('latents', lambda: task_of('latents', 1), ['another tokenizer', OTHER, 'vq data latents']),
    'latents of nobody': ('of/nobody/latents', lambda: task_of('latents'), ['its weights are unknown', 'vq data latents']),
    'latents of another size': ('latents', lambda: task_of('latents', image_size=32), ['images of 16 pixels', '--image-size']),
    'codes for features': ('latents', lambda: task_of('latents', gives='features'), ["gives 'features'", "to 'codes'"]),
    'other statistics': ('latents', lambda: with_statistics(1e-3), ['do not fit the latents', 'vq.tools.latents']),
    'no tokenizer': ('latents', Task, ['Task has no tokenizer', "type='FrozenTokenizer'"]),
    'inside of another': ('both', lambda: task_of('latents', 1), ['another tokenizer', OTHER]),
}


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_a_wrong_pairing_is_refused_with_what_to_do(home: Path, case: str) -> None:
    folder, task, words = CASES[case]
    with pytest.raises(UserError) as caught:
        check_belongs(dataset_of(home, folder), task())
    said = f'{caught.value.message} {caught.value.hint}'
    assert all(word in said for word in words), said
    if 'other weights' in case:  # both hashes
        kind = folder.rpartition('/')[2]
        assert all(tokens_hash(tokenizer_of(kind, seed)) in said for seed in (0, 1))


def dataset_of(home: Path, folder: str) -> Dataset:
    if folder == 'both':
        return ConcatDataset({'one': dataset_of(home, 'latents'), 'two': dataset_of(home, 'latents')}, split='train')
    kind = TokenDataset if folder.endswith('tokens') else LatentDataset
    return kind(folder=str(home / folder))


@pytest.mark.slow
def test_the_right_pairings_pass(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_belongs(dataset_of(home, 'tokens'), task_of('tokens'))
    check_belongs(TokenDataset(folder=str(home / 'of/nobody/tokens'), assume_tokenizer=True), task_of('tokens'))
    check_belongs(dataset_of(home, 'latents'), task_of('latents'))
    assert 'has no statistics of its latents, so they are not normalized' in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize('statistics', [[1], {'mean': [0.0] * 4}, {'mean': [0.0] * 3, 'deviation': [1.0] * 4}, {'mean': 'x'}])
def test_statistics_that_are_none_are_refused(home: Path, statistics: Any) -> None:
    dataset = LatentDataset(str(home))
    dataset.shards.manifest.notes['statistics'] = statistics
    with pytest.raises(UserError, match='a mean and a deviation for each of 4 channels'):
        check_belongs(dataset, with_statistics(0.3))


@pytest.mark.slow
def test_draws_depend_on_seed_epoch_and_sample_only(home: Path) -> None:
    task = with_statistics(1.0)
    statistics = task.tokenizer.tokenizer.statistics
    statistics.put(torch.tensor([0.1, 0.0, -0.2, 0.0]), torch.tensor([0.5, 0.3, 0.2, 0.3]))

    def batches(workers: int, **settings: Any) -> list[torch.Tensor]:
        dataset = LatentDataset(str(home), **settings)
        check_belongs(dataset, task)
        plan = [[(epoch, index) for index in (3, 50, 7)] for epoch in (0, 1, 2, 3)]
        with Loader(dataset, plan, LoaderSettings(3, workers), 11, training=True) as loader:
            return [batch.latent for batch in loader]

    drawn, again = batches(0, sample=True), batches(2, sample=True)
    assert all(torch.equal(one, two) for one, two in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[0], drawn[1])
    shards = LatentDataset(str(home)).shards
    means = torch.from_numpy(np.stack([shards[index]['mean'] for index in (3, 50, 7)]))  # (3, variants, C, h, w)
    found = batches(0)
    normal = [statistics.normalize(means[:, variant]) for variant in (0, 1)]
    for batch in found:
        assert all(any(torch.equal(z, option[row]) for option in normal) for row, z in enumerate(batch))
    assert len({tuple(torch.equal(z, normal[0][row]) for row, z in enumerate(batch)) for batch in found}) > 1
    deviation = torch.from_numpy(np.exp(0.5 * np.stack([shards[index]['logvar'][0] for index in (3, 50, 7)])))
    raw = torch.cat(batches(0, sample=True, random_variant=False, normalized=False))
    noise = ((raw.view(4, 3, *deviation.shape[1:]) - means[:, 0]) / deviation).flatten()
    assert abs(float(noise.mean())) < 0.1 and abs(float(noise.std()) - 1) < 0.1  # 3072 numbers
