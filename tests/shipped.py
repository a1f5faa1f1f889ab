"""Shipped configs: which of them are entries that tests run, and the options to compose fragments with."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from vq.assembly.compose import compose
from vq.core.config import PyConfig, packaged_configs
from vq.core.errors import ConfigError
from vq.data.datasets import digits_canvas
from vq.recipes.teachers import TEACHERS

FOLDER = packaged_configs()
FEW_DIGITS = {'train': 400, 'validation': 12, 'test': 12}  # in the place of all, for what runs whatever their number
SHARED = ('datasets', 'strategies', 'models', 'runners')  # folders of fragments that the families load
FRAGMENTS = ('interface.py', 'model.py', 'runner.py')  # and what a family keeps apart
MAPS = ('Reshape', 'AppendClassToken', 'DropClassToken', 'SpaceToDepth', 'DepthToSpace', 'Affine')
AUGMENTATIONS = [{'augmentation': name} for name in ('none', 'default', 'weak', 'strong', 'square', 'layout')]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    'ar/interface.py': [
        {'sampler': {'type': 'Greedy'}, 'guidance': {'type': 'IntervalGuidance', 'scale': 2.0, 'last': 128}},
        {'guidance': {'type': 'PowerGuidance', 'scale': 4.0, 'exponent': 2.75}},
    ],  # fragments that are tried with options
    'datasets/folder.py': [{'data_root': 'data/mine', **options} for options in AUGMENTATIONS],
    'datasets/imagenet.py': AUGMENTATIONS,
    'datasets/digits.py': [{}, *AUGMENTATIONS],
    'models/teacher.py': [{'teacher': name} for name in ('digits', *TEACHERS)],
    'models/alignment.py': [{'place': 'generator.network.blocks.7', 'channels': 1024}],
    'diffusion/interface.py': [
        {'path': 'beta', 'times': 'loss_second_moment', 'learned_variance': True, 'sampler': 'Ancestral', 'bits_steps': 250},
        {'path': 'beta', 'noise_schedule': 'cosine', 'min_snr': 5.0, 'sampler': {'type': 'PLMS', 'spacing': 'leading'}},
        {'path': 'cosine', 'prediction': 'v', 'sampler': 'SDE', 'guidance': {'type': 'WindowGuidance', 'scale': 1.5}},
        {'guide_config': 'configs/diffusion/digits.py', 'align_block': 3, 'form': 'wide_head', 'patch': 1},
        {'connector': {'type': 'Chain', 'maps': [{'type': kind} for kind in MAPS]}},
        {'denoiser': {'type': 'UNet', 'sequence_dim': 768, 'attn_block_type': {'type': 'SpatialTransformer'}}},
    ],
    'energy/interface.py': [
        {
            'learn_step': True,
            'contrastive': True,
            'inner_loop': True,
            'langevin': True,
            'accept': 'metropolis',
            'align_block': 3,
        },
        {'energy': False},
    ],
    'decoder/interface.py': [{}, {'decoder': 'vqkd'}, {'decoder': 'vqkd_large'}],
}


def all_configs() -> list[str]:
    return sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob('*.py'))


def entries() -> list[str]:
    """The configs that describe a whole experiment."""
    return [name for name in all_configs() if name.split('/')[0] not in SHARED and name.split('/')[-1] not in FRAGMENTS]


def composed(entry: str, tiny: bool = True) -> PyConfig:
    """A copy of a composed shipped config (``digits/vq_ema.py``, with or without ``configs/``), composed once per process."""
    return PyConfig(_composed(entry.removeprefix('configs/'), tiny))


@functools.cache
def _composed(entry: str, tiny: bool) -> PyConfig:
    return compose(str(FOLDER / entry), {}, {}, tiny=tiny)


def first_alike(entry: str) -> str:
    """The first entry whose tiny form is that of ``entry``: some differ only in what a tiny form replaces."""
    return _first_alike()[composed(entry).dumps()]


@functools.cache
def _first_alike() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries():
        found.setdefault(composed(entry).dumps(), entry)
    return found


def fragments() -> Iterator[tuple[str, PyConfig]]:
    """All other configs, composed alone, except fragments with required options, which entries of their family compose."""
    for name in all_configs():
        if name in entries():
            continue
        for options in OPTIONS.get(name, [{}]):
            try:
                yield name, PyConfig.load(FOLDER / name, **options)
            except ConfigError as error:
                if not re.search('needs the option', error.message):
                    raise


def types_in(value: Any) -> Iterator[str]:
    """Every ``type`` in a config, at any depth."""
    if isinstance(value, Mapping):
        if isinstance(value.get('type'), str):
            yield value['type']
        for item in value.values():
            yield from types_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from types_in(item)


def use_few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the end of the test. Pictures of canvases are kept for each split: others are kept meanwhile."""
    monkeypatch.setattr('vq.data.datasets.digits.SIZES', FEW_DIGITS)
    monkeypatch.setattr(digits_canvas, 'digits_of', functools.cache(digits_canvas.digits_of.__wrapped__))
