"""Random numbers by keys, against the published generator in Python integers."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import kstest

from tests.sampling.test_masked import splitmix
from vq.core.random import derive_seed
from vq.sampling.keyed import keyed_normals, keyed_uniforms

WORD = (1 << 64) - 1
KEYS = torch.tensor([0, 1, -1, 2**62 + 5, 7])
PURPOSE = (3, 40, 'time')


def words(key: int, count: int) -> list[int]:
    first = splitmix((key + derive_seed('keyed', *PURPOSE)) & WORD)
    return [splitmix((first + place * 0x9E3779B97F4A7C15) & WORD) for place in range(1, count + 1)]


def test_they_are_those_of_the_published_generator() -> None:
    uniform, normal = keyed_uniforms(KEYS, 5, purpose=PURPOSE), keyed_normals(KEYS, 5, purpose=PURPOSE)
    assert uniform.dtype == normal.dtype == torch.float32 and uniform.shape == normal.shape == (5, 5)
    for row, key in enumerate(KEYS.tolist()):
        assert uniform[row].tolist() == [(word >> 40) / 2**24 for word in words(key, 5)]
        radii = [math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32)) for word in words(key, 3)]
        angles = [2 * math.pi * (word & 0xFFFFFFFF) / 2**32 for word in words(key, 3)]
        first = [radius * math.cos(angle) for radius, angle in zip(radii, angles, strict=True)]
        second = [radius * math.sin(angle) for radius, angle in zip(radii, angles, strict=True)]
        np.testing.assert_allclose(normal[row].numpy(), [*first, *second][:5], atol=2e-6)


def test_their_distributions_and_that_neighbours_are_independent() -> None:
    keys = torch.arange(400)
    uniform, normal = keyed_uniforms(keys, 16, purpose=PURPOSE), keyed_normals(keys, 3, 5, 7, purpose=PURPOSE)
    assert uniform.min() >= 0 and uniform.max() < 1 and normal.shape == (400, 3, 5, 7)
    assert kstest(uniform.flatten().numpy(), 'uniform').pvalue > 0.01
    assert kstest(normal.flatten().numpy(), 'norm').pvalue > 0.01
    later = keyed_normals(keys, 3, 5, 7, purpose=(3, 41, 'time'))
    pairs = (normal[:-1], normal[1:]), (normal[..., :-1], normal[..., 1:]), (normal, later)
    pairs += ((normal.flatten(1)[:, :52], normal.flatten(1)[:, 53:]),)  # the two numbers of a word, nearly
    for one, other in pairs:
        found = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(float(found)) < 5 / math.sqrt(one.numel())


def test_a_row_is_of_its_key_alone() -> None:
    whole = keyed_normals(KEYS, 2, 3, purpose=PURPOSE)
    assert torch.equal(keyed_normals(KEYS[[3, 1]], 2, 3, purpose=PURPOSE), whole[[3, 1]])
    assert (keyed_normals(KEYS, 2, 3, purpose=(3, 40, 'noise')) != whole).all()
