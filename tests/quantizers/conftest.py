"""Every quantizer, small, by name: what property tests run over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from vq.core import collectives
from vq.interfaces import Quantizer
from vq.registries import VQQuantizerRegistry

RESTART = dict(threshold=0.5, candidates=8)


def vector(**options: Any) -> dict[str, Any]:
    return dict(type='VectorQuantizer', codebook_size=37, embedding_dim=5, **options)


CONFIGS = {
    'plain': vector(),
    'cosine': vector(distance='cosine', init='normal'),
    'normalized': vector(normalize=True),
    'ema': vector(update=dict(type='EMAUpdate', decay=0.8)),
    'ema_restart': vector(update=dict(type='EMAUpdate', decay=0.8, restart=RESTART)),
    'ema_normalized': vector(normalize=True, update=dict(type='EMAUpdate', decay=0.8, restart=RESTART)),
    'restart': vector(update=dict(type='RestartUnused', decay=0.8, **RESTART)),
    # spread-out codes: those that share an anchor would else be too close for fp32 to agree on which is nearer
    'cvq': vector(init='normal', update=dict(type='CVQUpdate')),
    'cvq_cosine': vector(distance='cosine', init='normal', update=dict(type='CVQUpdate')),
    'vqkd': vector(normalize=True, update=dict(type='VQKDUpdate')),
    'gumbel': dict(type='GumbelQuantizer', codebook_size=37, embedding_dim=5),
    'fsq': dict(type='FiniteScalarQuantizer', levels=[3, 4, 5, 8, 7]),
    'fsq_outer': dict(type='FiniteScalarQuantizer', levels=[2, 4, 5, 8, 7], bound='outer'),
}


def build(name: str) -> Quantizer:
    torch.manual_seed(0)
    return VQQuantizerRegistry.build(CONFIGS[name])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``name`` runs over all quantizers, ``updated`` over those with a codebook update."""
    if 'name' in metafunc.fixturenames:
        metafunc.parametrize('name', CONFIGS)
    if 'updated' in metafunc.fixturenames:
        metafunc.parametrize('updated', [name for name in CONFIGS if 'update' in CONFIGS[name]])


@pytest.fixture
def make() -> Callable[[str], Quantizer]:
    return build


class Forbidden:
    """A collectives back end that allows none."""

    rank = 0
    size = 2

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f'{name} was called')


@pytest.fixture
def no_collectives() -> Iterator[None]:
    collectives.install(Forbidden())
    yield
    collectives.install(None)


@pytest.fixture
def configs() -> dict[str, dict[str, Any]]:
    return CONFIGS
