"""Digits on a canvas: exact boxes and labels, samples by seed and number, and splits that share no picture."""

from __future__ import annotations

import numpy as np
import pytest

from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.data.collate import collate
from vq.data.datasets.digits import DigitsDataset, load_digits
from vq.data.datasets.digits_canvas import DigitsCanvasDataset, digits_of


def samples(dataset: DigitsCanvasDataset, count: int = 200) -> list:
    return [dataset.load(index, python_stream('test', index)) for index in range(count)]


def test_boxes_are_the_pixels_of_their_labels() -> None:
    """No digit is partly outside, and no box touches another one."""
    dataset, counts = DigitsCanvasDataset(most=5), []
    for sample in samples(dataset):
        mask, boxes, seen = sample['mask'], sample['boxes'], np.zeros((64, 64), bool)
        counts.append(len(boxes))
        for (left, top, right, bottom), category in zip(boxes.astype(int), sample['box_categories'], strict=True):
            inside = mask[top:bottom, left:right]
            label = inside != 255
            assert (inside[label] == category).all()
            assert all(label[line].any() for line in ((0,), (-1,), (slice(None), 0), (slice(None), -1)))
            around = np.zeros_like(seen)
            around[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
            assert not (around & seen).any()
            seen[top:bottom, left:right] = True
        assert not (mask[~seen] != 255).any() and not sample['image'][~seen].any()
        grey = sample['image'][:, :, 0]
        assert np.array_equal(grey >= 64, mask != 255) and (sample['image'] == grey[:, :, None]).all()
    assert set(counts) == {1, 2, 3, 4, 5}


def test_a_sample_is_a_function_of_seed_split_and_number() -> None:
    one, same, other = DigitsCanvasDataset(), DigitsCanvasDataset(), DigitsCanvasDataset(seed=1)
    same.read(4)
    assert np.array_equal(one.read(3), same.read(3)) and not np.array_equal(one.read(3), one.read(4))
    assert not np.array_equal(one.read(3), other.read(3))
    assert not np.array_equal(one.read(3), DigitsCanvasDataset('validation').read(3))
    assert one.fingerprint() == same.fingerprint()
    assert (
        len({dataset.fingerprint() for dataset in (one, other, DigitsCanvasDataset(most=2), DigitsCanvasDataset('test'))}) == 4
    )
    assert len({one.id_of(index) for index in range(100)}) == 100 and len(one) == 20_000


def test_splits_share_no_picture() -> None:
    """They are those of the digits themselves."""
    categories = load_digits()[1]
    for split in ('train', 'validation', 'test'):
        expected = categories[DigitsDataset(split).indices].tolist()
        assert list(digits_of(split)[1]) == expected and len(digits_of(split)[0]) == len(expected)


def test_samples_of_different_counts_make_a_batch() -> None:
    batch = collate([DigitsCanvasDataset().load(index, python_stream(index)) for index in range(8)])
    counts = [len(DigitsCanvasDataset().canvas(index).boxes) for index in range(8)]
    assert batch.boxes_mask.sum(1).tolist() == counts and batch.boxes.shape == (8, max(counts), 4)
    assert batch.mask.shape == (8, 64, 64) and batch.image.shape == (8, 3, 64, 64)
    assert set(batch.mask.unique().tolist()) <= {*range(10), 255}


def test_other_canvases_and_what_does_not_fit() -> None:
    wide = DigitsCanvasDataset(image_size=(32, 96), smallest=8, largest=32, most=9)
    assert wide.read(0).shape == (32, 96, 3)
    assert max(len(wide.canvas(index).boxes) for index in range(50)) > 4
    for settings in (dict(most=0), dict(smallest=3), dict(largest=65), dict(count=0)):
        with pytest.raises(ConfigError, match='on a canvas of 64 x 64'):
            DigitsCanvasDataset(**settings)
    with pytest.raises(ConfigError, match="no split 'val'"):
        DigitsCanvasDataset('val')
