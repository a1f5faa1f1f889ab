"""The 1,797 handwritten digits that scikit-learn contains: real data on every machine, without a download."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from vq.core.errors import ConfigError, UserError
from vq.core.random import key_of, python_stream
from vq.core.specs import ImageSize, size_of
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.plan import shares
from vq.registries import VQDatasetRegistry

if TYPE_CHECKING:
    from vq.core.records import Batch  # imports torch, which vq data check does without

SIZES = {'train': 1437, 'validation': 180, 'test': 180}
SPLIT_SEED = 1797
KEPT_SIZE = 64  # enlarged pictures up to this size are cached: 7 MB for all 1,797


@functools.cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures (1797, 8, 8) uint8, from values 0..16, and their classes (1797,)."""
    rows = np.loadtxt(_table(), delimiter=',', dtype=np.int64)  # 64 values of the picture, then the class
    images: np.ndarray = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return images, rows[:, -1].copy()


@functools.lru_cache(maxsize=1797)
def enlarged(original: int, height: int, width: int) -> np.ndarray:
    """A grey picture (height, width) uint8. It is cached: do not write to it."""
    picture = Image.fromarray(load_digits()[0][original])
    same = picture.size == (width, height)
    return np.asarray(picture if same else picture.resize((width, height), Image.Resampling.BILINEAR))


@functools.lru_cache(maxsize=1797)
def named(original: int) -> tuple[str, int]:
    """The id of a picture and its key."""
    name = f'digits/{original:04d}'
    return name, key_of(name)


def _table() -> Path:
    """The path of scikit-learn's data file. Importing scikit-learn itself takes two seconds."""
    package = importlib.util.find_spec('sklearn')
    file = Path(package.origin).parent / 'datasets/data/digits.csv.gz' if package and package.origin else None
    if file is None or not file.is_file():
        raise UserError("scikit-learn's digits are missing", 'Install it: pip install scikit-learn.')
    return file


def split_indices(categories: np.ndarray) -> dict[str, np.ndarray]:
    """Sorted original indices of each split. Every class is split in proportion, always in the same way."""
    counts = np.bincount(categories)
    validation, test = shares(counts, SIZES['validation']), shares(counts, SIZES['test'])
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SIZES}
    for category in range(len(counts)):
        members = np.flatnonzero(categories == category)
        stream = python_stream('digits', SPLIT_SEED, category)
        members = members[np.argsort([stream.random() for _ in members], kind='stable')]
        cuts = [validation[category], validation[category] + test[category]]
        for name, part in zip(('validation', 'test', 'train'), np.split(members, cuts), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(part)) for name, part in parts.items()}


@VQDatasetRegistry.register_()
class DigitsDataset(ImageDataset):
    """Handwritten digits, 1,437 to train, 180 for validation, 180 for test; each class in proportion, the split fixed.

    The 8 x 8 picture is enlarged to ``image_size`` (bilinear) before the transform, if there is one. Ids, such as
    ``digits/0042``, follow scikit-learn's order.
    """

    def __init__(
        self, split: Literal['train', 'validation', 'test'] = 'train', image_size: ImageSize = 32, transform: Transform = None
    ) -> None:
        if split not in SIZES:
            raise ConfigError(f"the digits have no split '{split}'", f'Their splits are: {", ".join(SIZES)}.')
        super().__init__('digits', split, transform)
        self.image_size = image_size
        self.categories = tuple('0123456789')

    @functools.cached_property
    def indices(self) -> np.ndarray:
        return split_indices(load_digits()[1])[self.split]

    def __len__(self) -> int:
        return SIZES[self.split]

    def id_of(self, index: int) -> str:
        return named(int(self.indices[index]))[0]

    def category_of(self, index: int) -> int:
        return int(load_digits()[1][self.indices[index]])

    def read(self, index: int) -> np.ndarray:
        height, width = size_of(self.image_size)
        enlarge = enlarged if max(height, width) <= KEPT_SIZE else enlarged.__wrapped__
        return np.repeat(enlarge(int(self.indices[index]), height, width)[:, :, None], 3, axis=2)

    def load_batch(self, indices: Sequence[int], reading: Callable[[int], object] = lambda index: None) -> Batch | None:
        """Without a transform: the cached pictures are joined, in a fifth of the time of 16 samples."""
        import torch

        from vq.core.records import Batch

        height, width = size_of(self.image_size)
        if type(self) is not DigitsDataset or self.transform is not None or max(height, width) > KEPT_SIZE:
            return None
        originals = self.indices[list(indices)].tolist()
        grey = torch.from_numpy(np.stack([enlarged(original, height, width) for original in originals]))
        names = [named(original) for original in originals]
        return Batch(
            image=grey[:, None].repeat(1, 3, 1, 1),
            id=[name for name, _ in names],
            key=torch.tensor([key for _, key in names]),
            category=torch.from_numpy(load_digits()[1][originals]),
        )
