"""Boxes, masks and points move with the image: against torchvision's transforms of its own boxes and masks, and each other."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as peer

from vq.core.errors import ConfigError, UserError
from vq.data import transforms
from vq.data.datasets.base import ImageDataset
from vq.data.geometry import Geometry
from vq.data.transforming import transformed
from vq.data.transforms import RATIO, random_resized_box
from vq.interfaces import Field, Sample

NAMES = ('none', 'weak', 'strong', 'default', 'square')
COUNT = 500


def random_sample(stream: random.Random) -> Sample:
    """An image of random colours and size; a mask that labels the pixels of each box; boxes with whole corners."""
    height, width = stream.randint(9, 70), stream.randint(9, 70)
    generator = np.random.default_rng(stream.randrange(2**32))
    boxes = []
    mask = np.zeros((height, width), np.uint8)
    for number in range(stream.randint(0, 4)):
        left, right = sorted(stream.sample(range(width + 1), 2))
        top, bottom = sorted(stream.sample(range(height + 1), 2))
        boxes.append((left, top, right, bottom))
        mask[top:bottom, left:right] |= 1 << number  # a bit for each box, so that boxes can overlap
    return Sample(
        image=generator.integers(0, 256, (height, width, 3), dtype=np.uint8),
        id='sample',
        mask=mask,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_categories=np.arange(len(boxes)),
        points=generator.uniform(-5, 75, (3, 2)).astype(np.float32),
    )


def random_samples() -> Iterator[tuple[Sample, str, int, int]]:
    """500 samples, each with a transform, an image size and a seed."""
    stream = random.Random(11)
    for number in range(COUNT):
        yield random_sample(stream), NAMES[number % len(NAMES)], stream.randint(8, 48), stream.randrange(2**32)


def whole(sample: Sample, name: str, size: int, seed: int, **settings: float) -> Sample:
    return getattr(transforms, name)(sample, random.Random(seed), image_size=size, **settings)


class Peer:
    """The same places chosen with torchvision: a PIL image, its tv_tensors boxes, and the mask as a PIL image of labels."""

    def __init__(self, sample: Sample) -> None:
        height, width = sample.size
        self.image, self.mask = Image.fromarray(sample['image']), Image.fromarray(sample['mask'])
        self.ties = Image.new('L', self.image.size)  # where a centre is between two pixels, and Pillow's sums round to either
        boxes = torch.from_numpy(sample['boxes'])
        self.boxes = tv_tensors.BoundingBoxes(boxes, format='XYXY', canvas_size=(height, width))  # type: ignore[call-arg]

    def apply(self, function: object, *arguments: object) -> None:
        parts = (self.image, self.mask, self.boxes, self.ties)
        self.image, self.mask, self.boxes, self.ties = (function(each, *arguments) for each in parts)

    def resize(self, size: list[int]) -> None:
        before = self.image.size
        self.image = peer.resize(self.image, size, InterpolationMode.BICUBIC)
        self.mask = peer.resize(self.mask, size, InterpolationMode.NEAREST)
        self.boxes = peer.resize(self.boxes, size)
        columns, rows = (
            np.array([(2 * i + 1) * source % (2 * made) == 0 for i in range(made)]) & (source % made > 0)
            for source, made in zip(before, self.image.size, strict=True)
        )
        self.ties = Image.fromarray(np.uint8(rows[:, None] | columns))

    def go(self, name: str, size: int, stream: random.Random) -> Peer:
        if name in ('none', 'weak'):
            self.resize([size])
        if name == 'none':
            self.apply(peer.center_crop, [size, size])
            return self
        if name == 'weak':
            top, left = (int(stream.random() * (side - size + 1)) for side in (self.image.height, self.image.width))
            self.apply(peer.crop, top, left, size, size)
        else:
            if name == 'square':
                self.apply(peer.center_crop, [min(self.image.size)] * 2)
            scale = {'strong': (0.8, 1.0), 'default': (0.08, 1.0), 'square': (0.7, 1.0)}[name]
            ratio = (1.0, 1.0) if name == 'square' else RATIO
            self.apply(peer.crop, *random_resized_box(self.image.height, self.image.width, scale, ratio, stream))
            self.resize([size, size])
        if stream.random() < 0.5:
            self.apply(peer.horizontal_flip)
        return self


@pytest.mark.slow
def test_boxes_and_masks_of_500_samples_are_those_of_torchvision() -> None:
    moved_boxes, labels = 0, 0
    for sample, name, size, seed in random_samples():
        ours, theirs = whole(sample, name, size, seed), Peer(sample).go(name, size, random.Random(seed))
        np.testing.assert_array_equal(ours['image'], np.asarray(theirs.image))
        sure = np.asarray(theirs.ties) == 0
        np.testing.assert_array_equal(ours['mask'][sure], np.asarray(theirs.mask)[sure])
        labels += int(sure.sum())
        expected = theirs.boxes.as_subclass(torch.Tensor).numpy()
        there = ((expected[:, 2:] - expected[:, :2]) > 1e-3).all(1)
        np.testing.assert_allclose(ours['boxes'], expected[there], atol=1e-3)
        assert ours['box_categories'].tolist() == np.flatnonzero(there).tolist()
        moved_boxes += len(expected[there])
    assert moved_boxes > COUNT and labels > 200_000


@pytest.mark.slow
def test_boxes_of_500_samples_bound_the_labels_of_their_masks() -> None:
    """The pixels with the label of a box are those whose centres are in the moved box: for every transform, and unseen how it
    was chosen. Centres on an edge belong to either side, because a mirror exchanges the sides."""
    compared = 0
    for sample, name, size, seed in random_samples():
        moved = whole(sample, name, size, seed)
        boxes = dict(zip(moved['box_categories'].tolist(), moved['boxes'], strict=True))
        centres = np.arange(size) + 0.5
        for number in range(len(sample['boxes'])):
            labelled = moved['mask'] >> number & 1
            left, top, right, bottom = boxes.get(number, np.zeros(4))
            inside = ((centres > top) & (centres < bottom))[:, None] & (centres > left) & (centres < right)
            on_edge = np.isclose(centres[:, None], (top, bottom), atol=1e-3).any(1)[:, None] | np.isclose(
                centres[:, None], (left, right), atol=1e-3
            ).any(1)
            np.testing.assert_array_equal(labelled[~on_edge], inside[~on_edge])
            compared += int((~on_edge).sum())
    assert compared > 100_000


@pytest.mark.slow
def test_points_of_500_samples_move_as_boxes_do() -> None:
    """A point moves as the corner of a box that ends there. Clipping hides the corners outside."""
    for sample, name, size, seed in random_samples():
        points = sample['points'].clip(0, [sample['image'].shape[1], sample['image'].shape[0]])
        corners = np.concatenate([np.zeros_like(points), points], 1)  # boxes from the corner of the image to a point
        moved = whole(sample.but(boxes=corners, points=points, box_categories=np.arange(3)), name, size, seed)
        assert moved['points'].shape == (3, 2) and moved['points_inside'].dtype == bool
        found = dict(zip(moved['box_categories'].tolist(), moved['boxes'], strict=True))
        for number in np.flatnonzero(moved['points_inside']):
            x, y = moved['points'][number]
            assert 0 <= x < size and 0 <= y < size
            if number in found:
                left, _, right, bottom = found[number]
                assert bottom == pytest.approx(y, abs=1e-3) and min(abs(x - left), abs(x - right)) < 1e-3


def test_the_image_is_the_same_with_and_without_boxes() -> None:
    for sample, name, size, seed in list(random_samples())[:50]:
        alone = getattr(transforms, name)(sample['image'], random.Random(seed), image_size=size)
        np.testing.assert_array_equal(whole(sample, name, size, seed)['image'], alone)


# one geometry


def test_a_mirror_in_closed_form() -> None:
    sample = Sample(
        id='a',
        image=np.arange(36, dtype=np.uint8).reshape(3, 4, 3),
        mask=np.arange(12).reshape(3, 4),
        boxes=[[0, 0, 1, 2], [0.5, 1, 4, 3]],
        points=[[0.5, 0.5], [4, 1]],
    )
    moved = Geometry.of(sample).mirror().move(sample)
    assert moved['boxes'].tolist() == [[3, 0, 4, 2], [0, 1, 3.5, 3]]
    assert moved['points'].tolist() == [[3.5, 0.5], [0, 1]] and moved['points_inside'].tolist() == [True, True]
    assert moved['mask'].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert moved['image'][:, 0].tolist() == sample['image'][:, 3].tolist()
    twice = Geometry.of(moved).mirror().move(moved)
    assert np.array_equal(twice['boxes'], sample['boxes']) and np.array_equal(twice['image'], sample['image'])


def test_rectangles_are_resized_by_each_axis_alone() -> None:
    sample = Sample(id='a', mask=np.zeros((10, 20), int), boxes=[[2, 2, 10, 8]], points=[[21, 5], [10, 5]])
    moved = Geometry.of(sample).crop((0, 0, 10, 10)).resize(20, 5).move(sample)
    assert moved['mask'].shape == (20, 5) and 'image' not in moved
    assert moved['boxes'].tolist() == [[1, 4, 5, 16]]
    assert moved['points'].tolist() == [[10.5, 10], [5, 10]] and moved['points_inside'].tolist() == [False, False]


@pytest.mark.parametrize(('least', 'kept'), [(0.0, [0, 1, 2]), (0.25, [0, 1, 2]), (0.26, [0, 1]), (0.5, [0, 1]), (1.0, [0])])
def test_boxes_of_which_too_little_is_left_go_with_their_rows(least: float, kept: list[int]) -> None:
    boxes = np.array([[5, 5, 7, 9], [0, 5, 10, 7], [3, 3, 7, 7], [0, 0, 5, 20], [6, 6, 6, 9]], np.float32)
    sample = Sample(id='a', image=np.zeros((20, 20, 3), np.uint8), boxes=boxes, box_categories=[10, 11, 12, 13, 14])
    sample.fields = {'owners': Field('pad', rows_of='boxes')}
    moved = Geometry.of(sample).crop((5, 5, 10, 10)).move(sample.but(owners=np.eye(5)), least)
    clipped = [[0, 0, 2, 4], [0, 0, 5, 2], [0, 0, 2, 2]]
    assert moved['boxes'].tolist() == [clipped[number] for number in kept]
    assert moved['box_categories'].tolist() == [10 + number for number in kept]
    assert np.array_equal(moved['owners'], np.eye(5)[kept])


def test_a_setting_of_every_transform() -> None:
    sample = Sample(id='a', image=np.zeros((8, 16, 3), np.uint8), boxes=[[0, 0, 6, 8], [5, 0, 11, 8]])
    assert whole(sample, 'none', 8, 0)['boxes'].tolist() == [[0, 0, 2, 8], [1, 0, 7, 8]]
    for name in NAMES:
        for seed in range(8):
            for box in whole(sample, name, 8, seed, min_visibility=1.0)['boxes']:
                assert (box >= 0).all() and (box <= 8).all()
    assert len(whole(sample, 'none', 8, 0, min_visibility=0.9)['boxes']) == 1
    with pytest.raises(ConfigError, match=r'min_visibility is 1\.5'):
        whole(sample, 'none', 8, 0, min_visibility=1.5)


def test_declared_fields_move_as_they_are_declared() -> None:
    sample = Sample(id='a', image=np.zeros((4, 6, 3), np.uint8), depth=np.arange(24.0).reshape(4, 6), joints=[[0, 0]], note=7)
    sample.fields = {
        'depth': Field('stack', moves='mask'),
        'joints': Field('stack', 'float32', moves='points'),
        'note': Field('list'),
    }
    moved = Geometry.of(sample).crop((1, 2, 3, 3)).mirror().move(sample)
    assert moved['depth'].tolist() == [[10, 9, 8], [16, 15, 14], [22, 21, 20]]
    assert moved['joints'].tolist() == [[5, -1]] and moved['joints_inside'].tolist() == [False]
    assert moved['note'] == 7 and moved.fields is sample.fields


# errors


def test_what_cannot_move_is_an_error() -> None:
    image = np.zeros((6, 6, 3), np.uint8)
    geometry = Geometry.of(image).mirror()
    for fields, message in (
        ({'tokens': np.zeros((2, 2), int)}, 'tokens of the sample a cannot be cropped'),
        ({'mask': np.zeros((3, 6), int)}, r'mask of a has the shape \(3, 6\), and its image \(6, 6\)'),
        ({'boxes': [[1, 2, 3]]}, r'boxes of a are not finite numbers of the shape \(N, 4\): they have \(1, 3\)'),
        ({'boxes': [[1, 2, 3, float('nan')]]}, 'boxes of a are not finite numbers'),
        ({'boxes': [[4, 1, 2, 3]]}, r'boxes of a have \[4.0, 1.0, 2.0, 3.0\], which ends before it begins'),
        ({'boxes': [[0, 0, 1, 1]], 'box_categories': [1, 2]}, 'the sample a has 1 boxes and 2 box_categories'),
        ({'depth': np.zeros((6, 6))}, 'the sample a has the field depth, which is not declared'),
    ):
        with pytest.raises(UserError, match=message):
            geometry.move(Sample(id='a', image=image, **fields))


@pytest.mark.parametrize('box', [(-1, 0, 2, 2), (0, 0, 0, 3), (5, 0, 2, 2), (0, 5, 2, 2)])
def test_a_crop_outside_is_an_error(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(UserError, match='is not inside one of 6 x 6'):
        Geometry((6, 6), (6, 6)).crop(box)


def test_a_sample_without_a_size_says_so() -> None:
    with pytest.raises(UserError, match='the sample b has no image') as raised:
        transforms.none(Sample(id='b', tokens=np.zeros(3)), random.Random(0), image_size=8)
    assert 'datasets of tokens have none' in raised.value.hint


# what a transform takes


def inverted(image: np.ndarray, stream: random.Random) -> np.ndarray:
    return 255 - image


def inverted_sample(given: Sample, stream: random.Random) -> Sample:
    return given.but(image=255 - given['image'])


def unannotated(sample, stream):
    return sample.but(image=255 - sample['image'])


def forgetful(sample: Sample, stream: random.Random) -> None:
    sample['image'] = 255 - sample['image']


@dataclasses.dataclass
class Inverting:  # a dataclass with __eq__ has no hash
    amount: int = 255

    def __call__(self, given: Sample, stream: random.Random) -> Sample:
        return given.but(image=self.amount - given['image'])


@pytest.mark.parametrize(
    'transform', [inverted, inverted_sample, unannotated, Inverting(), lambda picture, stream: 255 - picture]
)
def test_transforms_of_images_and_of_samples(transform) -> None:
    image = np.full((2, 2, 3), 200, np.uint8)
    changed = transformed(transform, Sample(id='a', image=image, text='x'), random.Random(0))
    assert changed['image'].max() == 55 and changed['text'] == 'x'


def test_a_transform_of_images_refuses_boxes() -> None:
    sample = Sample(id='a', image=np.zeros((2, 2, 3), np.uint8), boxes=[[0, 0, 1, 1]])
    with pytest.raises(
        UserError, match='the transform inverted takes an image alone, and the sample a has boxes too'
    ) as raised:
        transformed(inverted, sample, random.Random(0))
    assert 'Sample' in raised.value.hint
    assert transformed(inverted_sample, sample, random.Random(0))['boxes'] == [[0, 0, 1, 1]]  # it moves nothing
    with pytest.raises(UserError, match='the transform forgetful gave a NoneType'):
        transformed(forgetful, sample, random.Random(0))


class Annotated(ImageDataset):
    """One image with two boxes and a mask."""

    def __init__(self, transform=None) -> None:
        super().__init__('annotated', 'train', transform)

    def __len__(self) -> int:
        return 1

    def id_of(self, index: int) -> str:
        return 'one'

    def read(self, index: int) -> np.ndarray:
        return np.arange(108, dtype=np.uint8).reshape(6, 6, 3)

    def annotations_of(self, index: int) -> dict[str, object]:
        return {'boxes': [[0, 0, 2, 2], [4, 4, 6, 6]], 'mask': np.eye(6, dtype=np.int64)}


def test_a_dataset_gives_annotations_and_the_transform_moves_them() -> None:
    def corner(sample: Sample, stream: random.Random, *, side: int) -> Sample:
        return Geometry.of(sample).crop((0, 0, side, side)).move(sample)

    plain = Annotated().load(0, random.Random(0))
    assert plain['boxes'] == [[0, 0, 2, 2], [4, 4, 6, 6]] and plain['id'] == 'one'
    cut = Annotated(functools.partial(corner, side=3)).load(0, random.Random(0))
    assert cut['boxes'].tolist() == [[0, 0, 2, 2]] and cut['mask'].shape == (3, 3) and cut['image'].shape == (3, 3, 3)
    with pytest.raises(UserError, match='takes an image alone'):
        Annotated(inverted).load(0, random.Random(0))
