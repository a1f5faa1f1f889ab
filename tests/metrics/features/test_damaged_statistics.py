"""Statistics that are none: a covariance that is not symmetric or not positive, imaginary parts, NaN, whole numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vq.core.errors import UserError
from vq.io.published import statistics
from vq.metrics.features.reference import read_reference

WIDTH = 9


def sound(rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    features = np.random.default_rng(0).standard_normal((rows, WIDTH)) * 10.0 ** -np.arange(WIDTH)
    return features.mean(0), np.cov(features, rowvar=False)


def damaged(what: str) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = sound()
    match what:
        case 'not symmetric':
            covariance[1, 0] *= 1.01
        case 'not positive':
            covariance[0, 1] = covariance[1, 0] = 2 * covariance[0, 0]
        case 'not positive ':
            covariance[3, 3] *= -1
        case 'complex':
            covariance = covariance + 1j
        case 'complex ':
            mean = mean + 1j
        case 'whole numbers':
            mean = mean.astype(np.int64)
        case 'not finite':
            covariance[2, 2] = np.nan
        case 'not finite ':
            mean[0] = np.inf
    return mean, covariance


FAULTS = [
    'not symmetric',
    'not positive',
    'not positive ',
    'complex',
    'complex ',
    'whole numbers',
    'not finite',
    'not finite ',
]


def write(path: Path, mean: np.ndarray, covariance: np.ndarray) -> Path:
    if path.suffix == '.npz':
        np.savez(path, mu=mean, sigma=covariance)
    else:
        torch.save({'mu': torch.from_numpy(mean), 'sigma': torch.from_numpy(covariance)}, path)
    return path


@pytest.mark.parametrize('suffix', ['npz', 'pt'])
@pytest.mark.parametrize('what', FAULTS)
def test_damaged_statistics_are_named(tmp_path: Path, what: str, suffix: str) -> None:
    path = write(tmp_path / f'x.{suffix}', *damaged(what))
    with pytest.raises(UserError, match=rf'x\.{suffix} has, for pooled features, .*{what.strip()}') as caught:
        read_reference(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize('what', [*FAULTS[:3], *FAULTS[6:]])
def test_damaged_statistics_are_not_converted(tmp_path: Path, what: str) -> None:
    mean, covariance = map(torch.from_numpy, damaged(what))
    torch.save([mean, covariance, torch.tensor(40)], tmp_path / 'x.pth')
    with pytest.raises(UserError, match=rf'x\.pth has a .*{what.strip()}'):
        statistics.convert(tmp_path / 'x.pth')


@pytest.mark.parametrize('kind', [np.float64, np.float32, np.float16, '>f8'])
@pytest.mark.parametrize('rows', [40, 3])
def test_sound_statistics_of_any_precision_and_rank_are_read(tmp_path: Path, kind: Any, rows: int) -> None:
    mean, covariance = sound(rows)
    found = read_reference(write(tmp_path / 'x.npz', mean.astype(kind), covariance.astype(kind))).moments['pooled']
    assert found.mean.dtype == found.covariance.dtype == torch.float64
    np.testing.assert_allclose(found.covariance.numpy(), covariance, atol=1e-3 if kind == np.float16 else 1e-6)


@pytest.mark.parametrize(
    'rows', [np.full((4, WIDTH), np.nan), np.ones((4, WIDTH), np.complex64), np.ones((4, WIDTH), np.int32)]
)
def test_rows_that_are_no_features_are_named(tmp_path: Path, rows: np.ndarray) -> None:
    mean, covariance = sound()
    np.savez(tmp_path / 'x.npz', mu=mean, sigma=covariance, features_pooled=rows)
    with pytest.raises(UserError, match=r"x\.npz: 'features_pooled' is .* rows of features are needed"):
        read_reference(tmp_path / 'x.npz')
