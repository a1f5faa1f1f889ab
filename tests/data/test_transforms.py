"""Transforms against torchvision on PIL images, and the distributions of their random choices."""

from __future__ import annotations

import collections
import hashlib
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from scipy.stats import ks_2samp
from torchvision import transforms as peer
from torchvision.transforms import functional as peer_functions

from vq.data import pixels, transforms
from vq.data.decode import BadImage
from vq.registries import VQTransformRegistry

BICUBIC = peer.InterpolationMode.BICUBIC
SIZES = [(32, 32), (33, 47), (47, 33), (200, 151), (7, 90), (90, 7), (5, 9), (31, 32), (64, 32), (1, 1)]


@pytest.fixture(params=SIZES, ids=lambda size: f'{size[0]}x{size[1]}')
def image(request, make_picture):
    return make_picture(*request.param)


@pytest.mark.parametrize(
    ('size', 'target', 'digest'),
    [
        ((500, 333), (224, 224), 'fe95e0b346cd37e1'),
        ((37, 91), (64, 64), 'bb171c8fb004538a'),
        ((91, 37), (16, 16), 'f19f849a758cd13c'),
        ((256, 300), (256, 256), 'b5b86b870776c23a'),
    ],
)
def test_pixels_are_those_of_pillow_12_with_any_pillow(size, target, digest):
    """Digests of ``Image.resize`` of Pillow 12.3. Pillow 13 gives other bytes for the first and the third."""
    picture = (np.arange(size[0] * size[1] * 3, dtype=np.uint64) ** 2 % 251).astype(np.uint8).reshape(*size, 3)
    assert hashlib.sha256(pixels.resize(picture, *target).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize('size', [1, 16, 32, 33])
def test_none_is_torchvisions_resize_and_centre_crop(image, size):
    expected = peer.Compose([peer.Resize(size, BICUBIC), peer.CenterCrop(size)])(Image.fromarray(image))
    stream = random.Random(0)
    before = stream.getstate()
    result = transforms.none(image, stream, image_size=size)
    assert result.dtype == np.uint8
    assert result.shape == (size, size, 3)
    np.testing.assert_array_equal(result, np.asarray(expected))
    assert stream.getstate() == before  # nothing is random


def test_weak_takes_every_place_and_both_mirrors_equally_often(make_picture):
    picture = make_picture(20, 25)
    resized = peer.Resize(16, BICUBIC)(Image.fromarray(picture))
    assert resized.size == (20, 16)
    views = {}
    for left in range(5):
        crop = peer_functions.crop(resized, 0, left, 16, 16)
        views[np.asarray(crop).tobytes()] = (left, False)
        views[np.asarray(peer_functions.hflip(crop)).tobytes()] = (left, True)
    assert len(views) == 10
    stream = random.Random(1)
    counts = collections.Counter(views[transforms.weak(picture, stream, image_size=16).tobytes()] for _ in range(2000))
    assert len(counts) == 10
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 27.9  # chi-square, 9 degrees: one chance in a thousand


@pytest.mark.parametrize('name', ['strong', 'default'])
@pytest.mark.parametrize('box', [(0, 0, 40, 50), (3, 7, 21, 30), (39, 0, 1, 50), (10, 11, 2, 3)])
def test_resized_crops_are_torchvisions_for_the_same_box(name, box, make_picture, monkeypatch):
    picture = make_picture(40, 50)
    monkeypatch.setattr(transforms, 'random_resized_box', lambda *_: box)
    expected = peer_functions.resized_crop(Image.fromarray(picture), *box, (24, 24), BICUBIC)
    mirrored = peer_functions.hflip(expected)
    seen = set()
    for seed in range(16):
        result = getattr(transforms, name)(picture, random.Random(seed), image_size=24)
        match = [np.array_equal(result, np.asarray(view)) for view in (expected, mirrored)]
        assert any(match)
        seen.add(tuple(match))
    assert len(seen) == 2  # both occur


@pytest.mark.parametrize(('name', 'scale'), [('strong', (0.8, 1.0)), ('default', (0.08, 1.0))])
def test_each_name_has_its_scale(name, scale, make_picture, monkeypatch):
    asked = []
    monkeypatch.setattr(transforms, 'random_resized_box', lambda *given: asked.append(given) or (0, 0, 9, 9))
    getattr(transforms, name)(make_picture(20, 30), random.Random(0), image_size=8)
    assert asked[0][:4] == (20, 30, scale, (3 / 4, 4 / 3))


def test_square_is_torchvisions_crop_of_the_centred_square(make_picture, monkeypatch):
    picture = make_picture(41, 60)
    asked = []
    monkeypatch.setattr(transforms, 'random_resized_box', lambda *given: asked.append(given) or (3, 5, 30, 30))
    centre = peer_functions.center_crop(Image.fromarray(picture), [41, 41])
    expected = peer_functions.resized_crop(centre, 3, 5, 30, 30, (24, 24), BICUBIC)
    views = [np.asarray(view) for view in (expected, peer_functions.hflip(expected))]
    found = [transforms.square(picture, random.Random(seed), image_size=24) for seed in range(8)]
    assert asked[0][:4] == (41, 41, (0.7, 1.0), (1.0, 1.0))
    matches = [[np.array_equal(result, view) for view in views] for result in found]
    assert all(map(any, matches))
    assert {tuple(match) for match in matches} == {(True, False), (False, True)}


def test_square_boxes_are_square_and_large():
    stream = random.Random(6)
    boxes = np.array([transforms.random_resized_box(500, 500, (0.7, 1.0), (1.0, 1.0), stream) for _ in range(1000)])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    areas = boxes[:, 2] * boxes[:, 3] / 500**2
    assert ks_2samp(areas, 0.7 + 0.3 * (np.arange(1000) + 0.5) / 1000).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('scale', [(0.08, 1.0), (0.8, 1.0), (0.25, 0.25)])
@pytest.mark.parametrize(('height', 'width'), [(300, 300), (200, 500), (375, 250)])
def test_boxes_follow_torchvisions_law(height, width, scale):
    stream = random.Random(3)
    boxes = np.array([transforms.random_resized_box(height, width, scale, transforms.RATIO, stream) for _ in range(1500)])
    torch.manual_seed(4)
    blank = Image.new('RGB', (width, height))
    peers = np.array([peer.RandomResizedCrop.get_params(blank, list(scale), list(transforms.RATIO)) for _ in range(1500)])
    for column in range(4):
        assert ks_2samp(boxes[:, column], peers[:, column]).pvalue > 1e-3
    assert ks_2samp(boxes[:, 2] * boxes[:, 3], peers[:, 2] * peers[:, 3]).pvalue > 1e-3
    assert ks_2samp(boxes[:, 3] / boxes[:, 2], peers[:, 3] / peers[:, 2]).pvalue > 1e-3


@settings(max_examples=200, deadline=None)
@given(height=some.integers(1, 300), width=some.integers(1, 300), low=some.floats(0.01, 1), seed=some.integers(0, 2**32))
def test_boxes_lie_inside(height, width, low, seed):
    box = transforms.random_resized_box(height, width, (low, 1.0), (3 / 4, 4 / 3), random.Random(seed))
    top, left, box_height, box_width = box
    assert top >= 0
    assert left >= 0
    assert 0 < box_height <= height - top
    assert 0 < box_width <= width - left


@pytest.mark.parametrize(('height', 'width'), [(10, 1000), (1000, 10), (9, 101)])
def test_a_box_that_never_fits_falls_back_to_torchvisions_centre(height, width):
    expected = peer.RandomResizedCrop.get_params(Image.new('RGB', (width, height)), [0.8, 1.0], [3 / 4, 4 / 3])
    assert transforms.random_resized_box(height, width, (0.8, 1.0), (3 / 4, 4 / 3), random.Random(0)) == tuple(expected)


def test_area_is_uniform_and_ratio_log_uniform_where_all_fits():
    stream = random.Random(5)
    boxes = [transforms.random_resized_box(1000, 1000, (0.1, 0.5), (0.5, 2.0), stream) for _ in range(3000)]
    areas = np.array([box[2] * box[3] / 1e6 for box in boxes])
    ratios = np.array([math.log(box[3] / box[2]) for box in boxes])
    uniform = (np.arange(3000) + 0.5) / 3000
    assert ks_2samp(areas, 0.1 + 0.4 * uniform).pvalue > 1e-3
    assert ks_2samp(ratios, math.log(2) * (2 * uniform - 1)).pvalue > 1e-3


@pytest.mark.parametrize('name', ['none', 'weak', 'strong', 'default', 'square'])
def test_only_the_stream_decides(name, image):
    built = VQTransformRegistry.build({'type': name, 'image_size': 16})
    state = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    source = image.copy()
    source.flags.writeable = False
    first, again = built(source, random.Random(9)), built(source, random.Random(9))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (16, 16, 3)
    torch.from_numpy(first.copy())
    assert min(first.strides) > 0  # a mirrored view would not become a tensor
    assert random.getstate() == state[0]
    assert (np.random.get_state()[1] == state[1]).all()
    assert torch.equal(torch.get_rng_state(), state[2])


def test_helpers_keep_their_sequence():
    """Pinned values: a change here changes every resumed run."""
    stream = random.Random(7)
    assert [transforms.below(stream, 10) for _ in range(8)] == [3, 1, 6, 0, 5, 3, 0, 5]
    assert transforms.random_resized_box(100, 120, (0.08, 1.0), (3 / 4, 4 / 3), random.Random(7)) == (17, 4, 74, 61)


@pytest.mark.parametrize('name', ['none', 'weak'])
def test_a_strip_that_would_fill_the_memory_is_a_bad_image(name):
    with pytest.raises(BadImage, match='50000 x 1, too long and narrow for 256 x 256'):
        getattr(transforms, name)(np.zeros((1, 50_000, 3), np.uint8), random.Random(0), image_size=256)
