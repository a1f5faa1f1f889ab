"""The k-means baseline against brute force, and on data with known centres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vq.report.baseline import PatchKMeans, cut, fit, join, nearest


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_cutting_and_joining_are_inverse(count, rows, columns, patch, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, rows * patch, columns * patch, 3), dtype=np.uint8)
    patches = cut(images, patch)
    assert patches.shape == (count * rows * columns, patch * patch * 3)
    n, y, x = count - 1, rows - 1, columns - 1
    square = images[n, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
    np.testing.assert_array_equal(patches[(n * rows + y) * columns + x], square.reshape(-1))
    np.testing.assert_array_equal(join(patches.astype(np.uint8), (count, rows, columns), patch), images)


def test_images_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match='30 x 32'):
        cut(np.zeros((1, 30, 32, 3), np.uint8), 8)


def test_nearest_is_what_brute_force_finds():
    rng = np.random.default_rng(0)
    rows, centres = rng.normal(size=(57, 12)).astype(np.float32), rng.normal(size=(9, 12)).astype(np.float32)
    expected = ((rows[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest(rows, centres), expected)


def test_as_many_codes_as_different_patches_reproduce_the_images():
    rng = np.random.default_rng(1)
    patches = rng.integers(0, 256, (6, 4 * 4 * 3), dtype=np.uint8)
    tokens = rng.integers(0, 6, (10, 2, 3))
    images = join(patches[tokens.reshape(-1)], tokens.shape, 4)
    found = fit(images, codes=6, patch=4, seed=0)
    written = found.tokenize(images)
    assert written.shape == tokens.shape
    np.testing.assert_array_equal(found.detokenize(written), images)
    assert {patch.tobytes() for patch in found.patches.reshape(6, -1)} == {patch.tobytes() for patch in patches}


def test_the_seed_fixes_the_fit():
    images = np.random.default_rng(2).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    first, again, other = (fit(images, codes=5, patch=4, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.centres, again.centres)
    assert not np.array_equal(first.centres, other.centres)


def test_many_images_are_tokenised_in_parts():
    rng = np.random.default_rng(3)
    kmeans = PatchKMeans(rng.uniform(0, 255, (4, 2 * 2 * 3)).astype(np.float32), 2, 0.0)
    images = rng.integers(0, 256, (700, 6, 6, 3), dtype=np.uint8)  # 6,300 patches
    together = kmeans.tokenize(images)
    np.testing.assert_array_equal(together[650:651], kmeans.tokenize(images[650:651]))
