"""The datasets of a config alone, without its model: for commands that look at data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vq.core.check import check_config
from vq.core.config import PyConfig
from vq.core.errors import ConfigError, listing
from vq.data.loading import LoaderSettings
from vq.interfaces import Dataset
from vq.registries import VQDatasetRegistry, VQTransformRegistry

RUNNERS = {'train': 'trainer', 'validation': 'validator'}  # split -> part of the config


@dataclasses.dataclass
class Split:
    """One dataset of a config. ``loading``: how its runner loads it; None if the config does not say."""

    name: str
    dataset: Dataset
    config: Mapping[str, Any]
    loading: LoaderSettings | None

    @property
    def training(self) -> bool:
        return self.name == 'train'


def open_splits(config: PyConfig, wanted: str | None = None) -> dict[str, Split]:
    """The datasets of trainer and validator, 'train' and 'validation'; ``wanted``: this one alone. No file is read."""
    found = {}
    for split, runner in RUNNERS.items():
        part = config.get(runner, {})
        if 'dataset' in part and wanted in (None, split):
            path = f'{runner}.dataset'
            check_config(VQDatasetRegistry, part['dataset'], path)
            loading = LoaderSettings(**part['dataloader']) if 'dataloader' in part else None
            found[split] = Split(split, VQDatasetRegistry.build(part['dataset'], path), part['dataset'], loading)
    if not found:
        missing = [RUNNERS[wanted]] if wanted is not None else list(RUNNERS.values())
        raise ConfigError(
            f'the config has no dataset of {listing(missing)}', f'Add {missing[0]}=dict(dataset=dict(type=...)).'
        )
    return found


def validation_transform(config: PyConfig) -> tuple[Any, Any]:
    """The transform of the validator's dataset, or of the first dataset inside it: its config, and built. None without one."""
    found = _transform_in(config.get('validator', {}).get('dataset', {}))
    return found, None if found is None else VQTransformRegistry.build(found, 'validator.dataset.transform')


def _transform_in(part: Any) -> Any:
    if isinstance(part, Mapping):
        if part.get('transform') is not None:
            return part['transform']
        part = [*part.values()]
    inside = map(_transform_in, part) if isinstance(part, list | tuple) else ()
    return next((found for found in inside if found is not None), None)
