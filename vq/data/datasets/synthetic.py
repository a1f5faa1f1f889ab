"""Images of noise that cost nothing to read: for measuring how fast a model trains, without data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vq.core.errors import ConfigError
from vq.core.random import derive_seed, key_of
from vq.core.specs import ImageSize, size_of
from vq.data.datasets.base import ImageDataset, Transform
from vq.registries import VQDatasetRegistry

if TYPE_CHECKING:
    from vq.core.records import Batch  # imports torch, which vq data check does without

DIFFERENT = 16  # images; the others repeat them


@VQDatasetRegistry.register_()
class SyntheticDataset(ImageDataset):
    """``count`` images of noise with classes in turn, in memory. Only ``DIFFERENT`` of them differ, so nothing is computed.

    With it a step takes as long as with the fastest loader there could be. The difference to a step with real data is what
    loading costs.
    """

    def __init__(
        self,
        split: str = 'train',
        image_size: ImageSize = 256,
        count: int = 10_000,
        classes: int = 1000,
        transform: Transform = None,
    ) -> None:
        if count < 1 or classes < 0:
            raise ConfigError(
                f'SyntheticDataset has count {count} and classes {classes}', 'Give 1 image or more, and 0 classes or more.'
            )
        super().__init__('synthetic', split, transform)
        self.image_size, self.count = image_size, count
        self.categories = tuple(map(str, range(classes))) or None

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(DIFFERENT, H, W, 3) uint8"""
        shape = (DIFFERENT, *size_of(self.image_size), 3)
        words = np.random.Philox(key=derive_seed('synthetic', self.split)).random_raw(-(-int(np.prod(shape)) // 8))
        return words.view(np.uint8)[: int(np.prod(shape))].reshape(shape)

    @functools.cached_property
    def planes(self) -> np.ndarray:
        """(DIFFERENT, 3, H, W) uint8"""
        return np.ascontiguousarray(self.images.transpose(0, 3, 1, 2))

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return f'synthetic/{self.split}/{index:07d}'

    def category_of(self, index: int) -> int | None:
        return None if self.categories is None else index % len(self.categories)

    def read(self, index: int) -> np.ndarray:
        image: np.ndarray = self.images[index % DIFFERENT]
        return image

    def load_batch(self, indices: Sequence[int], reading: Callable[[int], object] = lambda index: None) -> Batch | None:
        """Without a transform: images are joined as they are."""
        import torch

        from vq.core.records import Batch

        if self.transform is not None:
            return None
        names = [self.id_of(index) for index in indices]
        categories = [self.category_of(index) for index in indices]
        return Batch(
            image=torch.from_numpy(self.planes[[index % DIFFERENT for index in indices]]),
            id=names,
            key=torch.tensor([key_of(name) for name in names]),
            category=None if None in categories else torch.tensor(categories),
        )
