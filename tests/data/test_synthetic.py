"""Images of noise for measuring without data."""

from __future__ import annotations

import random

import pytest
import torch

from vq.assembly.compose import checked, compose
from vq.core.errors import ConfigError
from vq.data.collate import collate
from vq.data.datasets.synthetic import DIFFERENT, SyntheticDataset
from vq.registries import VQRunnerRegistry


def test_samples_are_those_of_a_batch() -> None:
    dataset = SyntheticDataset('train', image_size=(8, 12), count=40, classes=3)
    samples = [dataset.load(index, random.Random(0)) for index in (0, 5, 39)]
    found, expected = dataset.load_batch([0, 5, 39]), collate(samples)
    assert found is not None and torch.equal(found.image, expected.image) and found.image.shape == (3, 3, 8, 12)
    assert found.id == expected.id and torch.equal(found.key, expected.key)
    assert found.category.tolist() == expected.category.tolist() == [0, 2, 0]  # type: ignore[union-attr]
    assert len({dataset.id_of(index) for index in range(40)}) == len(dataset) == 40


def test_noise_is_even_and_the_same_everywhere() -> None:
    first, again, other = (SyntheticDataset(split, 32).images for split in ('train', 'train', 'validation'))
    assert (first == again).all() and (first != other).mean() > 0.9
    assert len({image.tobytes() for image in first}) == DIFFERENT and abs(first.mean() - 127.5) < 1


def test_without_classes() -> None:
    dataset = SyntheticDataset(classes=0, image_size=4)
    assert dataset.categories is None and dataset.load_batch([0]).category is None  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match='count 0'):
        SyntheticDataset(count=0)


def test_a_config_of_imagenet_takes_it_in_place_of_imagenet() -> None:
    config = compose('diffusion/interface.py', dict(dataset='synthetic', pixels=True, image_size=64), {}, tiny=False)
    assert config.trainer.dataset.type.endswith('SyntheticDataset') and config.trainer.dataset.image_size == 64
    with torch.device('meta'):
        trainer = VQRunnerRegistry.build(checked(config, 'trainer'), 'trainer')
    assert trainer.dataset.load(3, random.Random(0))['image'].shape == (64, 64, 3) and trainer.model.classes == 1000
