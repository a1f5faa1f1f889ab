"""Small quantizers of every kind, by name, for property tests."""

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
    # spread-out codes: otherwise codes with the same anchor would be too close for fp32 to order their distances
    'cvq': vector(init='normal', update=dict(type='CVQUpdate')),
    'cvq_cosine': vector(distance='cosine', init='normal', update=dict(type='CVQUpdate')),
    'cvq_multinomial': vector(
        init='normal', update=dict(type='CVQUpdate', anchor='multinomial'), contrastive=dict(weight=0.1)
    ),
    'cvq_multinomial_cosine': vector(distance='cosine', init='normal', update=dict(type='CVQUpdate', anchor='multinomial')),
    'cvq_cached': vector(init='normal', update=dict(type='CVQUpdate', anchor='cached')),
    'ema_images': vector(update=dict(type='EMAUpdate', decay=0.8, smoothing='images')),
    'contrastive': vector(distance='cosine', init='normal', contrastive=dict(temperature=0.5)),
    'vqkd': vector(normalize=True, update=dict(type='VQKDUpdate')),
    'gumbel': dict(type='GumbelQuantizer', codebook_size=37, embedding_dim=5),
    'fsq': dict(type='FiniteScalarQuantizer', levels=[3, 4, 5, 8, 7]),
    'rotation': vector(gradient='rotation'),
    'entropy': vector(entropy=dict(weight=0.1)),
    'entropy_argmax': vector(normalize=True, entropy=dict(target='argmax', temperature=0.5)),
    'entropy_ema': vector(entropy=dict(floor='clamp'), update=dict(type='EMAUpdate', decay=0.8)),
    'lfq': dict(type='LookupFreeQuantizer', bits=5, entropy=dict(weight=0.1)),
    'lfq_highest': dict(type='LookupFreeQuantizer', bits=5, bit_order='first_highest'),
    'bsq': dict(type='BinarySphericalQuantizer', bits=5, entropy=dict(temperature=1.0)),
    'bsq_joint': dict(type='BinarySphericalQuantizer', bits=5, entropy=dict(floor='clamp'), entropy_group=None),
    'simvq': dict(type='SimVectorQuantizer', codebook_size=37, embedding_dim=5),
    'simvq_rotation': dict(
        type='SimVectorQuantizer', codebook_size=37, embedding_dim=5, frozen_dim=7, bias=False, gradient='rotation'
    ),
    'ibq': dict(type='IndexBackpropagationQuantizer', codebook_size=37, embedding_dim=5, entropy=dict(weight=0.05)),
    'fsq_outer': dict(type='FiniteScalarQuantizer', levels=[2, 4, 5, 8, 7], bound='outer'),
    'fsq_symmetric': dict(type='FiniteScalarQuantizer', levels=[2, 4, 5, 8, 7], bound='symmetric'),
    'residual': dict(type='ResidualQuantizer', quantizer=vector(init='normal'), stages=3),
    'residual_ema': dict(
        type='ResidualQuantizer', quantizer=vector(update=dict(type='EMAUpdate', decay=0.8, restart=RESTART)), stages=2
    ),
    'residual_shared': dict(
        type='ResidualQuantizer', quantizer=vector(update=dict(type='EMAUpdate', decay=0.8)), stages=3, shared=True
    ),
    'residual_list': dict(type='ResidualQuantizer', quantizer=[vector(init='normal'), vector(normalize=True)]),
    'residual_cvq': dict(
        type='ResidualQuantizer',
        quantizer=vector(init='normal', update=dict(type='CVQUpdate', anchor='multinomial')),
        stages=2,
    ),
    'grouped': dict(
        type='GroupedQuantizer',
        quantizer=[
            dict(type='VectorQuantizer', codebook_size=11, embedding_dim=2, update=dict(type='EMAUpdate', decay=0.8)),
            dict(type='FiniteScalarQuantizer', levels=[3, 4, 5]),
        ],
    ),
    'grouped_residual': dict(
        type='GroupedQuantizer',
        quantizer=dict(
            type='ResidualQuantizer',
            quantizer=dict(type='VectorQuantizer', codebook_size=7, embedding_dim=3, init='normal'),
            stages=2,
        ),
        groups=2,
    ),
}


def build(name: str) -> Quantizer:
    torch.manual_seed(0)
    return VQQuantizerRegistry.build(CONFIGS[name])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``name`` is parametrized over all quantizers, ``updated`` over those with a codebook update."""
    if 'name' in metafunc.fixturenames:
        metafunc.parametrize('name', CONFIGS)
    if 'updated' in metafunc.fixturenames:
        metafunc.parametrize('updated', [name for name in CONFIGS if 'update' in CONFIGS[name]])
    if 'moving' in metafunc.fixturenames:  # also those whose parts have one
        metafunc.parametrize('moving', [name for name in CONFIGS if "'update'" in str(CONFIGS[name])])


@pytest.fixture
def make() -> Callable[[str], Quantizer]:
    return build


class Forbidden:
    """A back end that forbids collectives."""

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
