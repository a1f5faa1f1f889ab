"""Datasets made of others: some of their images again and again, and several of them mixed."""

from __future__ import annotations

from typing import Annotated, Any

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, recipe
from vq.recipes.data import datasets


def bare(dataset: Part, image_size: Any) -> tuple[Part, Part]:
    """A dataset without its transform, and the transform: centre crops of ``image_size`` if it has none."""
    own = {key: value for key, value in dataset.items() if key not in ('transform', 'split')}
    return own, dataset.get('transform') or dict(
        type='VQTransformRegistry.none', image_size=dataset.get('image_size', image_size)
    )


def joined(parts: dict[str, Config], **settings: Any) -> Config:
    """Several datasets as one, in both splits, with the transforms of the first one that has any."""
    found = {}
    for role, split in (('trainer', 'train'), ('validator', 'validation')):
        sets = [part[role]['dataset'] for part in parts.values()]
        first = next((dataset for dataset in sets if dataset.get('transform')), sets[0])
        common: Part = dict(type='ConcatDataset', split=split, transform=bare(first, 256)[1], **settings)
        common['datasets'] = {key: bare(dataset, 256)[0] for key, dataset in zip(parts, sets, strict=True)}
        found[role] = dict(dataset=common)
    return found


@recipe(datasets, hides=('dataset',))
def few_images(
    given: Given,
    *,
    of: Annotated[str, 'the dataset they are taken from: a name in configs/datasets, or a config'] = 'digits',
    count: Annotated[int, 'how many: the first ones of its training split'] = 16,
    times: Annotated[int, 'how often each comes in an epoch'] = 64,
) -> Config:
    """A model that learns at all can learn these by heart: they are validated on too, without augmentation."""
    whole = datasets(given, dataset=of)
    found = {}
    for role in ('trainer', 'validator'):
        dataset, _ = bare(whole['trainer']['dataset'], 256)
        subset: Part = dict(type='SubsetDataset', dataset=dataset, stop=count, split='train')
        if role == 'trainer':
            subset = dict(type='RepeatDataset', dataset=subset, times=times, split='train')
        found[role] = dict(dataset=dict(subset, transform=bare(whole[role]['dataset'], 256)[1]))
    return found


@recipe(datasets, hides=('dataset', 'data_root'))
def mixture(
    given: Given,
    *,
    weights: Annotated[dict[str, float], 'name or config of a dataset -> its weight'] = {'digits': 1.0},
    mixture_count: Annotated[int | None, 'images in an epoch; None: as many as the datasets have'] = None,
    mixture_classes: Annotated[str, 'same, joined or none: see ConcatDataset'] = 'none',
) -> Config:
    """Trains on several datasets in proportion to their weights, and validates on all images of their validation splits."""
    parts = {name.rpartition('/')[2]: datasets(given, dataset=name) for name in weights}
    if len(parts) < len(weights):
        raise ConfigError(f'two of the datasets {", ".join(weights)} have one name', 'Rename the config of one of them.')
    found = joined(parts, classes=mixture_classes)
    named = dict(zip(parts, weights.values(), strict=True))
    found['trainer']['dataset'].update(type='MixedDataset', weights=named, count=mixture_count)
    return found


@recipe(datasets, hides=('dataset', 'data_root', 'classes', 'held_out'))
def hq_faces(
    given: Given, *, faces: Annotated[tuple[str, ...], 'the datasets, names in configs/datasets'] = ('celeba_hq', 'ffhq')
) -> Config:
    """The faces of several datasets, one after the other."""
    return joined({name: datasets(given, dataset=name) for name in faces}, name='hq_faces')
