"""Shipped configs: which of them are entries that tests run, and the options to compose fragments with."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vq.assembly.compose import compose
from vq.core.config import PyConfig, packaged_configs
from vq.core.errors import ConfigError

FOLDER = packaged_configs()
SHARED = ('datasets', 'strategies', 'models', 'runners')  # folders of fragments that the families load
FRAGMENTS = ('interface.py', 'model.py', 'runner.py')  # and what a family keeps apart
AUGMENTATIONS = [{'augmentation': name} for name in ('none', 'default', 'weak', 'strong', 'square')]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    'ar/interface.py': [
        {'sampler': {'type': 'Greedy'}, 'guidance': {'type': 'IntervalGuidance', 'scale': 2.0, 'last': 128}},
        {'guidance': {'type': 'PowerGuidance', 'scale': 4.0, 'exponent': 2.75}},
    ],  # fragments that are tried with options
    'datasets/folder.py': [{'data_root': 'data/mine', **options} for options in AUGMENTATIONS],
    'datasets/imagenet.py': AUGMENTATIONS,
    'datasets/digits.py': [{}, *AUGMENTATIONS],
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
