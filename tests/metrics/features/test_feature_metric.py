"""The feature metric of a pass against the functions it uses, for any batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ranks import GlooPool
from vq.core.errors import ConfigError, UserError
from vq.core.random import key_of
from vq.core.records import Batch, Outputs, to_float
from vq.interfaces import FeatureNetwork, Features
from vq.metrics.features.frechet import frechet_distance
from vq.metrics.features.kernels import cmmd
from vq.metrics.features.metric import FeatureMetric
from vq.metrics.features.neighbours import density_coverage, precision_recall
from vq.metrics.features.reference import Reference, read_reference, write_reference
from vq.metrics.features.statistics import FeatureStatistics

COUNT, WIDTH = 60, 6


class Projection(FeatureNetwork):
    """A random linear map of the pixels."""

    dimension = WIDTH

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.map = nn.Parameter(torch.randn(3 * 8 * 8, WIDTH, generator=draw) / 20, requires_grad=False)

    @property
    def description(self) -> dict[str, str]:
        return {'network': 'Projection', 'preprocessing': 'none', 'precision': 'fp32'}

    def pretrained_files(self) -> list[Path]:
        return []

    def forward(self, image: Tensor) -> Features:
        pooled = (image.flatten(1).double() / 255 @ self.map.double()).float()  # what remains of rounding does not matter
        return Features(pooled, pooled[:, :4] * 3, pooled[:, 1:])


def images(seed: int) -> Tensor:
    return torch.randint(0, 256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


ORIGINAL, MADE = images(1), images(2)


def batch_of(places: list[int]) -> Batch:
    ids = [f'image/{place}' for place in places]
    return Batch(ORIGINAL[places], ids, torch.tensor([key_of(name) for name in ids]))


def feed(metric: FeatureMetric, places: list[int], size: int) -> None:
    for start in range(0, len(places), size):
        part = places[start : start + size]
        metric.update(batch_of(part), Outputs(to_float(MADE[part])))


def measure(places: list[int], size: int, **settings: Any) -> dict[str, float]:
    metric = FeatureMetric(Projection(), **settings)
    metric.reset()
    feed(metric, places, size)
    return metric.compute()


def last(network: Projection, images: Tensor) -> Features:
    """Features of the last block, which is padded."""
    found = network(torch.cat([images, images.new_zeros(32 - len(images), 3, 8, 8)]))
    return Features(*(value[: len(images)] for value in found))


def moments(rows: Tensor) -> Any:
    statistics = FeatureStatistics(rows.shape[1])
    statistics.update(rows)
    return statistics.compute()


EVERYTHING = ('fid', 'sfid', 'inception_score', 'precision_recall', 'density_coverage', 'cmmd')


def test_figures_are_those_of_the_functions() -> None:
    found = measure([*range(COUNT)], 7, figures=EVERYTHING)
    network = Projection()
    real, made = (
        Features(*(torch.cat(parts) for parts in zip(network(x[:32]), last(network, x[32:]), strict=True)))
        for x in (ORIGINAL, MADE)
    )
    expected = {
        'fid': frechet_distance(moments(made.pooled), moments(real.pooled)).value,
        'sfid': frechet_distance(moments(made.spatial), moments(real.spatial)).value,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    order = torch.argsort(batch_of([*range(COUNT)]).key)
    a, b = made.pooled[order], real.pooled[order]
    assert found['cmmd'] == pytest.approx(cmmd(a, b), rel=1e-9)
    sharp, wide = precision_recall(b, a), density_coverage(b, a)
    assert (found['precision'], found['recall']) == (sharp.precision, sharp.recall)
    assert (found['density'], found['coverage']) == (wide.density, wide.coverage)
    assert 1 <= found['inception_score'] <= 4 and found['inception_score_std'] >= 0
    assert set(found) == {*expected, 'inception_score', 'inception_score_std', 'cmmd'} | {
        *('precision', 'recall', 'density', 'coverage')
    }


@pytest.mark.parametrize('size', [1, 7, 64])
def test_neither_batches_nor_order_nor_repeats_matter(size: int) -> None:
    plain = measure([*range(COUNT)], 20, figures=EVERYTHING)
    shuffled = [*torch.randperm(COUNT, generator=torch.Generator().manual_seed(size)).tolist(), 3, 3, 59]
    assert measure(shuffled, size, figures=EVERYTHING) == pytest.approx(plain, rel=1e-9)


def measure_on_a_rank() -> dict[str, float]:
    from vq.core import collectives

    rank = collectives.rank()
    places = [*range(35), 2] if rank == 0 else [*range(33, COUNT)]  # 33 and 34 come to both
    return measure(places, 8, figures=EVERYTHING)


def test_ranks_share_a_pass(gloo_pool: GlooPool) -> None:
    first, second = gloo_pool.run(measure_on_a_rank)
    assert first == second
    assert first == pytest.approx(measure([*range(COUNT)], 8, figures=EVERYTHING), rel=1e-9)


def reference_of(rows: Tensor, **about: Any) -> Reference:
    said = {'network': 'Projection', 'preprocessing': 'none', 'precision': 'fp32', 'image_size': [8, 8], **about}
    return Reference('set', {'pooled': moments(rows)}, said)


def test_a_cached_reference_gives_the_same_figure_and_is_named(tmp_path: Path) -> None:
    write_reference(tmp_path / 'set.npz', reference_of(Projection()(ORIGINAL).pooled, dataset='d', fingerprint='f'))
    metric = FeatureMetric(Projection(), reference=str(tmp_path / 'set.npz'))
    metric.reset()
    feed(metric, [*range(COUNT)], 16)
    assert metric.compute() == pytest.approx(measure([*range(COUNT)], 16), rel=1e-9)
    said = metric.describe()
    assert said['reference']['name'] == 'set' and said['reference']['count'] == COUNT and len(said['reference']['hash']) == 16
    assert said['count'] == COUNT and said['image_size'] == [8, 8] and said['network'] == 'Projection'
    json.dumps(said)


@pytest.mark.parametrize(('field', 'value'), [('preprocessing', 'other'), ('image_size', [16, 16]), ('network_hash', 'abc')])
def test_another_measurement_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    write_reference(tmp_path / 'set.npz', reference_of(Projection()(ORIGINAL).pooled, **{field: value}))
    metric = FeatureMetric(Projection(), reference=str(tmp_path / 'set.npz'))
    metric.reset()
    feed(metric, [*range(COUNT)], 16)
    with pytest.raises(UserError, match=f'has {field}'):
        metric.compute()


def test_foreign_files_are_read_and_what_they_hide_is_said(tmp_path: Path) -> None:
    found = moments(Projection()(ORIGINAL).pooled)
    np.savez(tmp_path / 'adm.npz', mu=found.mean.numpy(), sigma=found.covariance.numpy(), arr_0=np.zeros((2, 8, 8, 3)))
    torch.save({'mu': found.mean, 'sigma': found.covariance}, tmp_path / 'fidelity.pt')
    for name in ('adm.npz', 'fidelity.pt'):
        metric = FeatureMetric(Projection(), reference=str(tmp_path / name))
        metric.reset()
        feed(metric, [*range(COUNT)], 16)
        assert metric.compute() == pytest.approx(measure([*range(COUNT)], 16), rel=1e-9)
        assert any('does not record network' in note for note in metric.describe()['notes'])


def test_ours_are_read_by_others(tmp_path: Path) -> None:
    write_reference(tmp_path / 'set.npz', reference_of(Projection()(ORIGINAL).pooled))
    with np.load(tmp_path / 'set.npz') as file:  # as pytorch-fid does it
        mean, covariance = file['mu'][:], file['sigma'][:]
    rows = Projection()(ORIGINAL).pooled.double().numpy()
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-12)


def test_missing_things_are_said_before_the_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('VQ_PRETRAINED', str(tmp_path))
    with pytest.raises(UserError, match=r'no statistics of a reference set at .*nowhere\.npz') as caught:
        FeatureMetric(Projection(), reference='nowhere').reset()
    assert 'vq.fid' in str(caught.value.hint)
    (tmp_path / 'fid').mkdir()
    write_reference(tmp_path / 'fid' / 'set.npz', reference_of(Projection()(ORIGINAL).pooled))
    with pytest.raises(UserError, match='statistics alone') as caught:
        FeatureMetric(Projection(), figures=('kid',), reference='set').reset()
    assert '--features' in str(caught.value.hint)
    (tmp_path / 'fid' / 'page.npz').write_text('<html>')
    with pytest.raises(UserError, match=r'not a readable \.npz'):
        read_reference('page')
    np.savez(tmp_path / 'fid' / 'samples.npz', arr_0=np.zeros((2, 8, 8, 3)))
    with pytest.raises(UserError, match='but no statistics'):
        read_reference('samples')


def test_kid_says_how_many_it_drew() -> None:
    metric = FeatureMetric(Projection(), figures=('kid',), subsets=5)
    metric.reset()
    feed(metric, [*range(COUNT)], 16)
    found = metric.compute()
    assert set(found) == {'kid', 'kid_std'}
    assert any(f'subsets of {COUNT} in place of 1000' in note for note in metric.describe()['notes'])


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match='figures'):
        FeatureMetric(Projection(), figures=('fidd',))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match='with themselves'):
        FeatureMetric(Projection(), images='input')
    metric = FeatureMetric(Projection())
    metric.reset()
    with pytest.raises(ConfigError, match='needs reconstructions'):
        metric.update(batch_of([0, 1]), Outputs())
