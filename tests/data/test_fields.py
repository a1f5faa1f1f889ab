"""Fields of samples become fields of a batch as they are declared, from datasets through the loader and its workers."""

from __future__ import annotations

import functools
import random
from typing import Any

import numpy as np
import pytest
import torch

from vq.core.errors import ConfigError, UserError
from vq.core.records import Batch, to_float
from vq.data import transforms
from vq.data.collate import collate
from vq.data.datasets.base import ImageDataset, Transform
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan
from vq.interfaces import Dataset, Field, Sample


class Scenes(ImageDataset):
    """Scene i has i % 4 boxes (of category i), a mask that labels them, a point, and strokes of the lengths of its id."""

    fields = {'strokes': Field('pad', 'float32'), 'weather': Field('stack', device=False), 'words': Field('list')}

    def __init__(self, count: int, transform: Transform = None) -> None:
        super().__init__('scenes', 'train', transform)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def id_of(self, index: int) -> str:
        return f'scene/{index}'

    def read(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 256, (12 + index % 3, 16, 3), dtype=np.uint8)

    def annotations_of(self, index: int) -> dict[str, Any]:
        boxes = [[3 * number, 2, 3 * number + 3, 8] for number in range(index % 4)]
        mask = np.zeros((12 + index % 3, 16), np.int64)
        for number, (left, top, right, bottom) in enumerate(boxes):
            mask[top:bottom, left:right] = number + 1
        return {
            'boxes': boxes,
            'box_categories': [index] * len(boxes),
            'mask': mask,
            'points': [[1.0, 1.0]],
            'text': f'scene {index}',
            'strokes': np.full((index % 3, 2, 2), index),
            'weather': np.float32(index / 2),
            'words': ['a'] * index,
        }


def batches(dataset: Dataset, size: int, workers: int = 0) -> list[Batch]:
    settings = LoaderSettings(size, num_workers=workers)
    with Loader(dataset, evaluation_plan(len(dataset), size, 0, 1), settings, 0, training=False) as loader:
        return list(loader)


@pytest.mark.parametrize('workers', [0, 1])
def test_ragged_boxes_are_padded_and_told_apart(workers: int) -> None:
    scenes = Scenes(7, functools.partial(transforms.none, image_size=12))
    first, second = batches(scenes, 4, workers)
    assert first.boxes.shape == (4, 3, 4) and first.boxes.dtype == torch.float32
    assert first.boxes_mask.sum(1).tolist() == [0, 1, 2, 3]
    assert first.box_categories.tolist() == [[0, 0, 0], [1, 0, 0], [2, 2, 0], [3, 3, 3]]
    assert first.box_categories.dtype == torch.int64 and not first.boxes[~first.boxes_mask].any()
    assert second.boxes.shape == (3, 2, 4) and second.boxes_mask.sum(1).tolist() == [0, 1, 2]
    for index, scene in enumerate(first.id):
        alone = scenes.load(index, random.Random(0))
        assert scene == alone['id'] and first.text[index] == f'scene {index}'
        assert torch.equal(first.boxes[index, : index % 4], torch.from_numpy(alone['boxes']))
        assert torch.equal(first.mask[index], torch.from_numpy(np.ascontiguousarray(alone['mask'])))
        assert torch.equal(first.image[index].permute(1, 2, 0), torch.from_numpy(alone['image'].copy()))
    assert first.points.shape == (4, 1, 2) and first.points_mask.all()
    assert first.points_inside.tolist() == [
        [False],
        [False],
        [True],
        [False],
    ]  # crops cut 2, 1, 0, 2 columns at the left
    assert first.image.shape == (4, 3, 12, 12) and first.mask.shape == (4, 12, 12)


def test_declared_fields_are_in_extra_and_go_where_they_are_declared_to() -> None:
    (batch,) = batches(Scenes(4, functools.partial(transforms.none, image_size=12)), 4)
    assert batch.extra['strokes'].shape == (4, 2, 2, 2) and batch.extra['strokes'].dtype == torch.float32
    assert batch.extra['strokes_mask'].tolist() == [[False, False], [True, False], [True, True], [False, False]]
    assert batch.extra['weather'].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert batch.extra['words'] == [[], ['a'], ['a', 'a'], ['a', 'a', 'a']]
    moved = batch.to('meta')
    assert moved.extra['strokes'].device.type == moved.boxes.device.type == moved.boxes_mask.device.type == 'meta'
    assert moved.extra['weather'].device.type == 'cpu' and moved.mask.device.type == 'meta'


def test_no_boxes_at_all() -> None:
    (batch,) = batches(Scenes(1), 1)
    assert batch.boxes.shape == (1, 0, 4) and batch.boxes_mask.shape == (1, 0) and batch.box_categories.shape == (1, 0)


def test_samples_without_an_image() -> None:
    class Latents(Dataset):
        name, split = 'latents', 'train'

        def __len__(self) -> int:
            return 5

        def load(self, index: int, stream: random.Random) -> Sample:
            latent = np.full((2, 3, 3), index, np.float16)
            return self.make_sample(id=str(index), latent=latent, tokens=np.full((4,), index, np.uint16))

    (batch,) = batches(Latents(), 5)
    assert batch.image is None and len(batch) == 5
    assert batch.latent.shape == (5, 2, 3, 3) and batch.latent.dtype == torch.float16
    assert batch.tokens.dtype == torch.int64 and batch.tokens[:, 0].tolist() == [0, 1, 2, 3, 4]
    moved = batch.to('meta', channels_last=True)
    assert moved.image is None and moved.latent.device.type == 'meta' and moved.id == batch.id
    for read in (lambda: to_float(batch.image), batch.pixels):
        with pytest.raises(UserError, match='images are needed here, and the batch has none') as raised:
            read()
        assert 'Take a dataset of images' in raised.value.hint
    with pytest.raises(UserError, match='the sample 3 has no image'):
        Latents().load(3, random.Random(0))['image']


def test_pixels_are_bytes_whatever_the_images_are() -> None:
    image = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    for given in (image, to_float(image)):
        assert torch.equal(Batch(given, ['a', 'b'], torch.zeros(2)).pixels(), image)


def test_plain_dicts_and_notes_are_batched_as_before() -> None:
    plain: Any = [{'id': str(number), 'tokens': torch.arange(3), 'extra': {'note': number}} for number in range(2)]
    batch = collate(plain)
    assert batch.tokens.tolist() == [[0, 1, 2]] * 2 and batch.extra == {'note': [0, 1]} and batch.image is None


def test_optional_fields_are_left_out_where_a_sample_lacks_them() -> None:
    batch = collate([Sample(id='a', category=1, text='x', path='p'), Sample(id='b', category=None, text='y')])
    assert batch.category is batch.path is None and batch.text == ['x', 'y']


# errors


SHAPES = {'strokes': Field('pad'), 'size': Field('stack')}


@pytest.mark.parametrize(
    ('first', 'second', 'message', 'hint'),
    [
        ({'boxes': [[0, 0, 1, 1]]}, {}, 'in one batch, a has boxes and b has none', 'an empty array'),
        ({}, {'mask': np.zeros((2, 2))}, 'in one batch, b has mask and a has none', 'or none of them'),
        ({'depth': 1}, {'depth': 1}, 'the sample a has the field depth, which is not declared', "fields = {'depth': Field"),
        ({'mask': np.zeros((2, 2))}, {'mask': np.zeros((2, 3))}, r'\(2, 2\) of a, \(2, 3\) of b', 'Add a transform'),
        ({'size': [1]}, {'size': [1, 2]}, r'size of different shapes in one batch: \(1,\) of a', "collate='pad'"),
        ({'size': 'large'}, {'size': 'small'}, 'size is <U5, which no tensor holds', "collate='list'"),
        ({'strokes': np.zeros((1, 2))}, {'strokes': np.zeros((1, 3))}, r'rows of strokes .* \(2,\) of a, \(3,\) of b', 'list'),
        ({'strokes': 3}, {'strokes': 3}, 'strokes of a is a number', "collate='stack'"),
        ({'boxes': [[9, 0, 1, 1]]}, {'boxes': []}, 'boxes of a have .* ends before it begins', 'not a size'),
        ({'boxes': [[0, 0, 1]]}, {'boxes': []}, r'boxes of a are not .* shape \(N, 4\)', 'x1, y1, x2, y2'),
        (
            {'boxes': [[0, 0, 1, 1]], 'box_categories': [1]},
            {'boxes': [], 'box_categories': [4]},
            'the sample b has 0 boxes and 1 box_categories',
            'for each',
        ),
        ({'size': 1, 'extra': {'size': 2}}, {'size': 1}, 'samples have size as a field and in extra', 'another name'),
        ({'image': np.zeros((2, 2, 3), np.uint8)}, {}, 'in one batch, a has image and b has none', 'or none'),
    ],
)
def test_what_cannot_be_batched_is_told(first: dict[str, Any], second: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        collate([Sample(id='a', **first), Sample(id='b', **second)], SHAPES)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ('declare', 'message'),
    [
        (lambda: Field('rows'), "declared with collate='rows'"),
        (lambda: Field('stack', moves='image '), "moves='image '"),
        (lambda: Field('stack', rows_of='boxes'), "rows_of='boxes', and collate='stack'"),
        (lambda: collate([Sample(id='a')], {'boxes': Field('pad')}), 'declares the field boxes, which samples have already'),
        (lambda: collate([Sample(id='a')], {'boxes_mask': Field('stack')}), 'declares the field boxes_mask'),
        (lambda: collate([Sample(id='a')], {'id': Field('list')}), 'declares the field id'),
        (lambda: collate([Sample(id='a')], {'owner': Field('pad', rows_of='mask')}), "rows_of='mask'"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(declare: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        declare()


def test_an_undeclared_field_is_told_by_the_loader() -> None:
    class Undeclared(Scenes):
        fields = {}

    with pytest.raises(UserError, match='the sample scene/0 has the field strokes, which is not declared'):
        batches(Undeclared(2), 2)
