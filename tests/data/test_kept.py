"""Shrunken images in memory: read once, the same whether they were kept, in a bounded number of bytes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vq.core.errors import ConfigError
from vq.data.datasets.folder import FolderDataset
from vq.data.geometry import Geometry
from vq.data.kept import Kept
from vq.data.transforms import none


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def test_an_image_is_read_once_and_shrunk_by_its_short_side() -> None:
    large, small, reads = noise(90, 61), noise(20, 33), []
    kept = Kept(30)

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return (large, small)[index]

    for _ in range(3):
        assert np.array_equal(kept.get(0, read), Geometry.of(large).cover(30, 30).move(large)) and np.array_equal(
            kept.get(1, read), small
        )
    assert reads == [0, 1] and kept.get(0, read).shape == (44, 30, 3)


def test_what_does_not_fit_is_read_again_and_is_the_same() -> None:
    images, reads = [noise(40, 40), noise(41, 40)], []
    kept = Kept(20, limit=20 * 20 * 3)

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return images[index]

    found = [kept.get(index, read).copy() for index in (0, 1, 0, 1)]
    assert reads == [0, 1, 1] and np.array_equal(found[1], found[3]) and np.array_equal(found[0], found[2])


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    """A file that is repaired is read: a mistake of the moment must not last."""
    (tmp_path / 'a.png').write_bytes(b'')
    dataset = FolderDataset(tmp_path, shrink_to=8)
    with pytest.raises(Exception, match='zero bytes'):
        dataset.read(0)
    Image.fromarray(noise(16, 24)).save(tmp_path / 'a.png')
    assert dataset.read(0).shape == (8, 12, 3)


def test_images_that_are_small_already_are_those_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(noise(40, 31)).save(tmp_path / 'a.png')
    plain, shrunk = FolderDataset(tmp_path), FolderDataset(tmp_path, shrink_to=31)
    assert np.array_equal(plain.read(0), shrunk.read(0)) and plain.fingerprint() == shrunk.fingerprint()
    transform = random.Random(0)
    assert np.array_equal(none(plain.read(0), transform, image_size=16), none(shrunk.read(0), transform, image_size=16))
    with pytest.raises(ConfigError, match='shrink_to is 0'):
        FolderDataset(tmp_path, shrink_to=0)
