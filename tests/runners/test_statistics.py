"""Statistics of a dataset: NumPy's, for any batch size and number of ranks, and after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.features import ProjectionOfTests
from tests.ranks import GlooPool
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.digits import DigitsDataset
from vq.data.loading import LoaderSettings
from vq.interfaces import Features
from vq.metrics.features.reference import Reference, read_reference
from vq.runners.context import RunContext
from vq.runners.statistics import StatisticsWriter
from vq.strategies.base import BaseStrategy
from vq.strategies.ddp import DDPStrategy


class Stops(ProjectionOfTests):
    """Ends the run at its n-th block."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last, self.calls = last, 0

    def forward(self, image: torch.Tensor) -> Features:
        self.calls += 1
        if self.calls == self.last:
            raise KeyboardInterrupt
        return super().forward(image)


def writer_of(folder: Path, batch: int = 16, network: Any = None, strategy: Any = None, **settings: Any) -> StatisticsWriter:
    dataset = DigitsDataset('validation', image_size=16)
    network = network or ProjectionOfTests()
    writer = StatisticsWriter(network, dataset, LoaderSettings(batch, 0), strategy or BaseStrategy(device='cpu'), **settings)
    writer.bind(RunContext('fid/digits', folder / 'run', random_weights=True))
    return writer


def expected_rows() -> np.ndarray:
    dataset = DigitsDataset('validation', image_size=16)
    images = torch.stack([torch.from_numpy(dataset.read(index)).permute(2, 0, 1) for index in range(len(dataset))])
    return ProjectionOfTests()(images).pooled.double().numpy()


def check(found: Reference) -> None:
    rows = expected_rows()
    np.testing.assert_allclose(found.moments['pooled'].mean, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.moments['pooled'].covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-12)
    assert found.moments['pooled'].count == len(rows) == 180


@pytest.mark.parametrize('batch', [1, 7, 64])
def test_they_are_those_of_numpy_for_any_batch(tmp_path: Path, batch: int) -> None:
    writer = writer_of(tmp_path, batch)
    writer.run()
    found = read_reference(writer.file)
    check(found)
    assert (
        found.about['dataset'] == 'digits' and found.about['split'] == 'validation' and found.about['image_size'] == [16, 16]
    )
    assert found.about['fingerprint'] == writer.dataset.fingerprint()


def measure_on_a_rank(folder: str) -> None:
    file = str(Path(folder) / 'features.npz')
    writer_of(Path(folder), 13, strategy=DDPStrategy(device='cpu'), features_file=file).run()


def test_two_ranks_write_the_same(tmp_path: Path, gloo_pool: GlooPool) -> None:
    gloo_pool.run(measure_on_a_rank, str(tmp_path))
    check(read_reference(next((tmp_path / 'run').glob('*.npz'))))
    check(read_reference(tmp_path / 'features.npz'))


def test_a_stopped_call_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        writer_of(tmp_path, 16, Stops(5), save_every=32).run()  # one call determines the features, then blocks of 32
    assert not list((tmp_path / 'run').glob('*.npz')), 'a half is no result'
    rest = Stops(100)
    again = writer_of(tmp_path, 16, rest, save_every=32)
    again.run()
    check(read_reference(again.file))
    assert rest.calls <= 1 + 4, 'what was measured is not measured again'
    assert not list((tmp_path / 'run').glob('partial_*')), 'nothing is left behind'


def test_another_measurement_starts_over(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        writer_of(tmp_path, 16, Stops(5), save_every=32).run()
    writer = writer_of(tmp_path, 20, save_every=32)
    writer.run()
    check(read_reference(writer.file))


def test_rows_are_kept_on_demand(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, features=True)
    writer.run()
    found = read_reference(writer.file)
    assert found.rows['pooled'].shape == (180, 5) and found.rows['pooled'].dtype == torch.float16
    assert found.rows['logits'].shape == (180, 5)


def test_a_file_of_features_has_them_in_fp32_with_ids_and_is_a_reference(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, features_file=str(tmp_path / 'sub/features.npz'))
    written = writer.run()
    with np.load(tmp_path / 'sub/features.npz', allow_pickle=False) as file:
        features, ids = file['features'], file['ids']
    assert features.dtype == np.float32 and features.shape == (180, 5)
    dataset = DigitsDataset('validation', image_size=16)
    place = {dataset.id_of(index): index for index in range(len(dataset))}
    order = [place[name] for name in ids.tolist()]
    assert sorted(order) == list(range(180))
    np.testing.assert_allclose(features, expected_rows()[order], rtol=1e-6)
    found = read_reference(tmp_path / 'sub/features.npz')
    check(found)
    assert torch.equal(found.rows['pooled'], torch.from_numpy(features))
    assert found.check(written.about) == []  # it records all that figures depend on, the same as the statistics
    with pytest.raises(UserError, match='network_hash'):
        found.check({**written.about, 'network_hash': 'another'})
    assert not read_reference(writer.file).rows


def test_features_are_kept_once() -> None:
    with pytest.raises(ConfigError, match='kept twice'):
        writer_of(Path(), features=True, features_file='features.npz')
