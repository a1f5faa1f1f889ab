"""Files of features of single images as references: of any name, with the statistics of NumPy; what is no such file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vq.core.errors import UserError
from vq.metrics.features.raw import name_of_features
from vq.metrics.features.reference import read_reference

ROWS = np.random.default_rng(0).standard_normal((37, 6)).astype(np.float32) + 3


@pytest.mark.parametrize('name', ['features', 'arr_0', 'act', 'any name'])
@pytest.mark.parametrize('dtype', ['float32', 'float64', '>f4', 'float16'])
def test_an_array_of_any_name_is_a_reference(tmp_path: Path, name: str, dtype: str) -> None:
    rows = ROWS.astype(dtype)
    (np.savez if name != 'act' else np.savez_compressed)(tmp_path / 'f.npz', **{name: rows})
    found = read_reference(tmp_path / 'f.npz')
    exact = rows.astype(np.float64)
    np.testing.assert_allclose(found.moments['pooled'].mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.moments['pooled'].covariance, np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-12)
    assert found.moments['pooled'].count == 37
    np.testing.assert_array_equal(found.rows['pooled'].numpy().astype(np.float64), exact)
    assert found.check({'network': 'FIDInception'}) == [
        'network',
        'preprocessing',
        'precision',
        'network_hash',
        'image_size',
    ]


def test_of_several_arrays_it_is_that_of_inception(tmp_path: Path) -> None:
    wide = np.zeros((3, 2048), np.float32)
    np.savez(tmp_path / 'two.npz', pool=wide, logits=np.zeros((3, 1008), np.float32), labels=np.arange(3))
    assert name_of_features(tmp_path / 'two.npz') == 'pool'
    np.savez(tmp_path / 'named.npz', other=wide, features=ROWS)
    assert name_of_features(tmp_path / 'named.npz') == 'features'
    np.savez(tmp_path / 'unclear.npz', a=ROWS, b=ROWS)
    with pytest.raises(UserError, match=r"'a' \(37, 6\)") as caught:
        name_of_features(tmp_path / 'unclear.npz')
    assert 'features' in str(caught.value.hint)


def test_other_files_are_not_taken_for_features(tmp_path: Path) -> None:
    np.savez(tmp_path / 'statistics.npz', mu=ROWS.mean(0), sigma=np.cov(ROWS, rowvar=False), extra=ROWS)
    np.savez(tmp_path / 'images.npz', np.zeros((4, 8, 8, 3), np.uint8))
    np.savez(tmp_path / 'whole.npz', labels=np.zeros((4, 2), np.int64))
    for name in ('statistics', 'images', 'whole'):
        assert name_of_features(tmp_path / f'{name}.npz') is None
    for rows, words in ((ROWS * np.nan, 'not finite'), (ROWS[:1], 'needs 2 samples')):
        np.savez(tmp_path / 'bad.npz', rows)
        with pytest.raises(UserError, match=words):
            read_reference(tmp_path / 'bad.npz')


def test_a_count_that_is_not_that_of_the_rows_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / 'f.npz', features=ROWS, vq='{"format": "vq.features", "format_version": 1, "count": 36}')
    with pytest.raises(UserError, match='says that it has 36 images'):
        read_reference(tmp_path / 'f.npz')
