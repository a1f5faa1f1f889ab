"""Orders of samplers on a mixture of Gaussians, whose denoiser is a closed form; moments of samplers with noise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.sources import ROOT


@pytest.fixture(scope='module')
def study() -> Iterator[Any]:
    """``benchmarks/samplers.py``."""
    sys.path.insert(0, str(ROOT / 'benchmarks'))
    yield importlib.import_module('samplers')
    sys.path.remove(str(ROOT / 'benchmarks'))


def test_the_closed_form_is_that_of_the_mixture(study: Any) -> None:
    """score = gradient of the log density = -eps / sigma;  z = alpha x0 + sigma eps."""
    for path in study.PATHS.values():
        mixture, z = study.Mixture(path), study.starts(7).requires_grad_()
        level = path.level_at(0.3)
        density = mixture.log_parts(z, level.alpha, level.sigma)[0].logsumexp(1)
        (score,) = torch.autograd.grad(density.sum(), z)
        x0, eps = mixture.data_and_noise(z.detach(), level.alpha, level.sigma)
        torch.testing.assert_close(-eps / level.sigma, score)
        torch.testing.assert_close(level.alpha * x0 + level.sigma * eps, z.detach())


ORDERS = {'Euler': (0.75, 1.15), 'DDIM': (0.75, 1.15), 'Heun': (1.8, 2.2), 'DPMSolver': (1.5, 2.5), 'PLMS': (1.85, 4.5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('path', 'spacing', 'counts'),
    [('FlowPath', 'uniform', (100, 200)), ('CosinePath', 'uniform', (120, 240)), ('BetaPath', 'quadratic', (20, 40))],
)
def test_orders(study: Any, path: str, spacing: str, counts: tuple[int, ...]) -> None:
    found = study.errors(study.PATHS[path], counts, points=32, true_steps=200, spacing=spacing)
    orders = {name: study.order(rows) for name, rows in found.items()}
    for name, (low, high) in ORDERS.items():
        assert low < orders[name] < high, orders
    # of one cost, the higher order has the smaller error
    assert max(found['PLMS'][-1][1], found['DPMSolver'][-1][1], found['Heun'][-2][1]) < found['Euler'][-1][1] / 4


@pytest.mark.slow
@pytest.mark.parametrize('path', ['FlowPath', 'BetaPath'])
@pytest.mark.parametrize(
    ('sampler', 'settings'),
    [
        ('Ancestral', {}),
        ('Ancestral', dict(variance='large')),
        ('DDIM', dict(eta=1.0)),
        ('SDE', {}),
        ('SDE', dict(noise_scale=2.0)),
    ],
)
def test_moments_of_samplers_with_noise(study: Any, path: str, sampler: str, settings: dict[str, Any]) -> None:
    mixture = study.Mixture(study.PATHS[path])
    end, evaluations = study.last(mixture, study.starts(3000), sampler, 80, **settings)
    mean, covariance = mixture.moments()
    assert evaluations == 80
    torch.testing.assert_close(end.mean(0), mean, rtol=0, atol=0.07)  # 4 deviations of a mean of 3000
    torch.testing.assert_close(end.T.cov(), covariance, rtol=0.08, atol=0.07)
