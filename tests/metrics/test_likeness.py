"""Distances and shared tokens: closed forms, and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vq.metrics.likeness import CHUNK, nearest_by_tokens, within_class_distance


def flat(*levels: int) -> torch.Tensor:
    """Images of 3 x 2 x 2 of one level each."""
    return torch.stack([torch.full((3, 2, 2), level, dtype=torch.uint8) for level in levels])


def test_distance_of_flat_images():
    """|a - b| / 255 at each of 12 positions; the mean of the three pairs of class 0, then of both classes."""
    images, category = flat(0, 51, 255, 10, 10), torch.tensor([4, 4, 4, 7, 7])
    pairs = [0.2, 1.0, 0.8]
    assert within_class_distance(images, category) == pytest.approx(math.sqrt(12) * (sum(pairs) / 3 + 0) / 2)


def test_images_of_other_classes_do_not_count():
    images = flat(0, 102, 200, 201)
    near, far = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert within_class_distance(images, near) == pytest.approx(math.sqrt(12) * (102 + 1) / 255 / 2)
    assert within_class_distance(images, far) == pytest.approx(math.sqrt(12) * (200 + 99) / 255 / 2)


def test_a_class_of_one_is_left_out():
    assert within_class_distance(flat(0, 255, 9), torch.tensor([0, 0, 1])) == pytest.approx(math.sqrt(12))
    assert math.isnan(within_class_distance(flat(0, 255), torch.tensor([0, 1])))


def test_shares_of_known_grids():
    others = torch.tensor([[[1, 2], [3, 4]], [[1, 2], [0, 0]], [[2, 1], [4, 3]]])
    tokens = torch.tensor([[[1, 2], [3, 9]], [[2, 1], [4, 3]], [[7, 7], [7, 7]]])
    shares, rows = nearest_by_tokens(tokens, others, 2)
    assert shares.tolist() == [[0.75, 0.5], [1.0, 0.0], [0.0, 0.0]], 'places count: the same codes elsewhere share nothing'
    assert rows.tolist() == [[0, 1], [2, 0], [0, 1]], 'of equal shares the first row'


@pytest.mark.parametrize('number', [1, CHUNK, CHUNK + 3])
def test_shares_are_those_of_brute_force(number):
    rng = np.random.default_rng(number)
    tokens, others = rng.integers(0, 3, (number, 3, 5)), rng.integers(0, 3, (41, 3, 5))
    shares, rows = nearest_by_tokens(torch.from_numpy(tokens), torch.from_numpy(others))
    for index, grid in enumerate(tokens):
        same = [float((grid == other).mean()) for other in others]
        assert shares[index].tolist() == [max(same)] and rows[index].tolist() == [int(np.argmax(same))]


def test_nothing_is_near_to_nothing():
    shares, rows = nearest_by_tokens(torch.zeros(0, 2, 2, dtype=torch.int64), torch.zeros(3, 2, 2, dtype=torch.int64))
    assert shares.shape == rows.shape == (0, 1)
