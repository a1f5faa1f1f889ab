"""COCO with captions, and COCO-Stuff with boxes and maps, in miniature."""

from __future__ import annotations

import collections
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vq.core.config import PyConfig
from vq.core.errors import ConfigError, UserError
from vq.data.collate import collate
from vq.data.datasets.coco import CLASSES, COCODataset
from vq.data.datasets.coco_stuff import COCOStuffDataset
from vq.data.decode import BadImage
from vq.data.geometry import Geometry
from vq.data.protocols import PROTOCOLS, layouts_at, places_of
from vq.registries import VQDatasetRegistry

HEIGHT, WIDTH = 20, 50  # 1,000 pixels, so that a box of 20 pixels covers 2 %
NAMES = {1: 'person', 3: 'car', 90: 'toothbrush', 92: 'banner', 182: 'wood', 183: 'other'}


def boxes_of(image: int) -> list[dict[str, Any]]:
    """Three good boxes, and for image 1 some of each kind that is left out. The keys are those of the published files."""

    def box(category: int, *place: float, crowd: int = 0) -> dict[str, Any]:
        return {'segmentation': [[0.5, 1]], 'iscrowd': crowd, 'image_id': image, 'bbox': [*place], 'category_id': category}

    good = [box(3, 1, 2, 10, 5), box(1, 45, 10, 6.5, 9), box(1, 0, 0, 7, 3)]  # the second one ends beyond the image
    if image == 2:
        return good[:2]  # too few
    if image == 3:
        return good * 3  # too many to validate
    left_out = [box(3, 5, 5, 5, 4), box(1, 0, 0, 40, 20, crowd=1), box(90, 0, 0, -10, -10), box(90, 1, 1, 0, 9)]
    return left_out + good if image == 1 else good


@pytest.fixture
def root(tmp_path: Path, make_picture) -> Path:
    (tmp_path / 'annotations').mkdir()
    categories = [{'supercategory': 's', 'id': number, 'name': name} for number, name in NAMES.items()]
    for year in (2014, 2017):
        for split in ('train', 'val'):
            prefix = f'COCO_{split}2014_' if year == 2014 else ''
            images = [
                {'file_name': f'{prefix}{number:012d}.jpg', 'height': HEIGHT, 'width': WIDTH, 'id': number, 'license': 1}
                for number in (4, 2, 3, 1)
            ]
            folder, maps = tmp_path / f'{split}{year}', tmp_path / f'stuffthingmaps/{split}{year}'
            folder.mkdir()
            maps.mkdir(parents=True)
            captions = []
            for image in images:
                name, number = image['file_name'], image['id']
                Image.fromarray(make_picture(HEIGHT, WIDTH, seed=number)).save(folder / name)
                labels = np.full((HEIGHT, WIDTH), 181, np.uint8)
                labels[:, :25], labels[0] = 2, 255
                Image.fromarray(labels).save(maps / name.replace('.jpg', '.png'))
                captions += [{'image_id': number, 'id': place, 'caption': f'{number}, seen {place} \n'} for place in range(3)]
            stuff = [{'image_id': 4, 'bbox': [0, 0, 50, 20], 'category_id': number, 'iscrowd': 0} for number in (182, 183)]
            objects = [one for image in images for one in boxes_of(image['id'])]
            for kind, rows, classes in (
                ('captions', captions, []),
                ('instances', objects, categories[:3]),
                ('stuff', stuff, categories[3:]),
            ):
                content = {'info': {}, 'images': images, 'licenses': [], 'annotations': rows, 'categories': classes}
                (tmp_path / f'annotations/{kind}_{split}{year}.json').write_text(json.dumps(content))
    return tmp_path


def numbers(dataset) -> list[int]:
    return [int(dataset.id_of(index)[-16:-4]) for index in range(len(dataset))]


def changed(root: Path, kind: str, change) -> None:
    file = root / f'annotations/{kind}_train2017.json'
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_caption_is_drawn_at_each_load(root):
    dataset = COCODataset(root, year=2014, captions='caption')
    assert [dataset.id_of(index) for index in (0, 3)] == [f'train2014/COCO_train2014_{number:012d}.jpg' for number in (1, 4)]
    assert (dataset.name, dataset.category_of(2), len(dataset.categories)) == ('coco_2014', 0, 80)
    drawn = collections.Counter(dataset.load(1, random.Random(seed))['text'] for seed in range(60))
    assert set(drawn) == {f'2, seen {place}' for place in range(3)} and min(drawn.values()) > 8
    assert dataset.original(1)['text'] == '2, seen 0'
    assert len(CLASSES) == len(set(CLASSES)) == 80 and (CLASSES[0], CLASSES[79]) == ('person', 'toothbrush')


def test_captions_change_neither_images_nor_their_order(root):
    loaded = {}
    for captions in ('none', 'caption', 'caption_and_classes'):
        config = PyConfig.load('configs/datasets/coco_2017.py', data_root=str(root), captions=captions, image_size=16)
        dataset = VQDatasetRegistry.build(config.trainer.dataset, 'trainer')
        loaded[captions] = [dataset.load(index, random.Random(index)) for index in range(4)]
    for plain, *others in zip(*loaded.values(), strict=True):
        for other in others:
            assert plain['id'] == other['id'] and np.array_equal(plain['image'], other['image'])
    assert 'text' not in loaded['none'][0]
    assert loaded['caption_and_classes'][0]['text'] == loaded['caption'][0]['text'] + ', person, car, toothbrush'


def test_a_share_of_texts_is_empty_and_reproducible(root):
    dataset = COCODataset(root, captions='caption', empty_text=0.3)
    texts = [[dataset.load(0, random.Random(seed))['text'] for seed in range(200)] for _ in range(2)]
    assert texts[0] == texts[1] and 40 <= texts[0].count('') <= 80
    always = COCODataset(root, captions='caption_and_classes', empty_text=1.0)
    assert {always.load(0, random.Random(seed))['text'] for seed in range(9)} == {''}
    whole = COCODataset(root, captions='caption')
    assert all(text in ('', whole.load(0, random.Random(seed))['text']) for seed, text in enumerate(texts[0]))
    config = PyConfig.load('configs/datasets/coco_2014.py', empty_text=0.5)
    assert config.trainer.dataset.empty_text == 0.5 and 'empty_text' not in config.validator.dataset  # which has all texts


def test_objects_are_filtered_as_published(root):
    train, validation = COCOStuffDataset(root), COCOStuffDataset(root, 'validation')
    assert (numbers(train), numbers(validation)) == ([1, 3, 4], [1, 4])
    first = train.load(0, random.Random(0))
    assert first['boxes'].tolist() == [[1, 2, 11, 7], [45, 10, 50, 19], [0, 0, 7, 3]]  # the second one clipped
    assert first['box_categories'].tolist() == [2, 0, 0]
    assert [train.label_names[number] for number in (0, 2, 89, 91, 181)] == ['person', 'car', 'toothbrush', 'banner', 'wood']
    assert len(train.label_names) == 182 and 'other' not in train.label_names
    assert train.load(2, random.Random(0))['box_categories'].tolist() == [2, 0, 0, 181]  # 'other' is left out
    assert len(train.load(1, random.Random(0))['boxes']) == 9
    assert numbers(COCOStuffDataset(root, objects=(4, 4))) == [4] and numbers(COCOStuffDataset(root, objects=(2, 2))) == [2]
    assert COCOStuffDataset(root, stuff=False).load(2, random.Random(0))['box_categories'].tolist() == [2, 0, 0]
    assert numbers(COCOStuffDataset(root, smallest=0.0199, objects=(4, 4))) == [1, 4]  # the box of exactly 2 %


def test_a_protocol_takes_the_layouts_of_the_validation(root):
    options = {'data_root': str(root), 'captions': 'caption', 'image_size': 16, 'augmentation': 'layout'}
    config = PyConfig.load('configs/datasets/interface.py', dataset='coco_stuff', **options)
    dataset, protocol = VQDatasetRegistry.build(config.validator.dataset, 'validator'), PROTOCOLS['coco-stuff-3097x5']
    with pytest.raises(UserError, match=r'with 3,097 layouts, and coco_stuff \(validation\) has 2'):
        places_of(dataset, protocol)
    places = places_of(dataset, protocol, limit=9)
    found, again = layouts_at(dataset, places, (10, 10)), layouts_at(dataset, places[::-1], (10, 10))
    assert found.ids == again.ids[::-1] == ['val2017/000000000001.jpg', 'val2017/000000000004.jpg']
    assert found.text == again.text[::-1] == ['1, seen 0', '4, seen 0']
    assert torch.equal(found.boxes.boxes, again.boxes.boxes.flip(0)) and found.boxes.boxes_mask.sum(1).tolist() == [3, 4]
    torch.testing.assert_close(found.boxes.boxes[0, 0], torch.tensor([0.2, 1, 2.2, 3.5]))  # of 50 x 20 pixels


def test_boxes_maps_and_texts_come_in_batches(root):
    options = {'data_root': str(root), 'masks': True, 'captions': 'caption_and_classes', 'image_size': 16}
    config = PyConfig.load('configs/datasets/interface.py', dataset='coco_stuff', **options)
    dataset = VQDatasetRegistry.build(config.trainer.dataset, 'trainer')
    batch = collate([dataset.load(index, random.Random(index)) for index in range(3)])
    assert (batch.image.shape, batch.mask.shape, batch.boxes.shape[::2]) == ((3, 3, 16, 16), (3, 16, 16), (3, 4))
    assert set(batch.mask.unique().tolist()) == {2, 181, 255} and batch.category is None
    assert batch.text[2].endswith(', person, car, wood')
    sample = dataset.original(0)
    mirrored = Geometry.of(sample).mirror().move(sample)
    assert (mirrored['mask'][1:, 25:] == 2).all() and mirrored['boxes'][0].tolist() == [39, 2, 49, 7]


@pytest.mark.parametrize(
    ('kind', 'change', 'words'),
    [
        ('instances', lambda file: file['annotations'][0].pop('bbox'), 'odd annotation'),
        ('instances', lambda file: file['annotations'][0].update(bbox=[1, 2, 3]), 'odd annotation'),
        ('instances', lambda file: file['annotations'][0].update(bbox=[1, 2, 3, 'x']), 'odd annotation'),
        ('instances', lambda file: file['annotations'][0].update(bbox=[1, 2, float('nan'), 3]), 'odd annotation'),
        ('instances', lambda file: file['annotations'][0].update(image_id=2**70), 'odd annotation'),
        ('instances', lambda file: file['annotations'][0].update(image_id=77), 'the image 77'),
        ('instances', lambda file: file['annotations'][0].update(category_id=77), 'the class 77'),
        ('instances', lambda file: file['annotations'].insert(0, None), 'odd annotation'),
        ('instances', lambda file: file['images'][0].update(file_name='../1.jpg'), 'odd image'),
        ('instances', lambda file: file['images'][0].update(width=0), 'odd image'),
        ('instances', lambda file: file['images'][0].update(file_name=file['images'][1]['file_name']), '3 names of files'),
        ('instances', lambda file: file['images'][0].update(id=1), '3 ids'),
        ('instances', lambda file: file.update(images=[]), 'lists no images'),
        ('instances', lambda file: file['categories'][0].update(id=184), 'has annotations of the class|a class 184'),
        ('instances', lambda file: file['categories'][0].update(name=7), 'odd category'),
        ('instances', lambda file: file.update(annotations=[]), 'none of the 4 images'),
        ('captions', lambda file: file.update(annotations=[]), 'holds no captions'),
        ('captions', lambda file: file['annotations'][0].update(caption=None), 'odd annotation'),
        ('captions', lambda file: file['annotations'][0].update(caption='x' * 20_000), 'odd annotation'),
    ],
)
def test_odd_annotations_are_named(root, kind, change, words):
    changed(root, kind, change)
    with pytest.raises(ConfigError, match=words) as error:
        COCOStuffDataset(root, captions='caption').load(0, random.Random(0))
    assert f'{kind}_train2017.json' in error.value.message


def test_damaged_files_and_what_is_missing_are_named(root):
    file = root / 'annotations/instances_train2017.json'
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match='instances_train2017'):
        len(COCOStuffDataset(root))
    file.rename(root / 'annotations/instances.json')
    with pytest.raises(ConfigError, match=r'needs .*instances_train2017\.json, .* holds: captions') as error:
        len(COCOStuffDataset(root))
    assert 'prepare_data coco' in error.value.hint
    with pytest.raises(ConfigError, match='nothing, it is no folder'):
        len(COCODataset(root / 'none', captions='caption'))
    (root / 'val2017').rename(root / 'images')
    with pytest.raises(ConfigError, match='does not exist, and the annotations list it'):
        len(COCOStuffDataset(root, 'validation'))
    with pytest.raises(ConfigError, match="no split 'test'"):
        COCODataset(root, 'test')


def test_an_image_of_another_size_than_its_annotation_is_a_bad_image(root, make_picture):
    Image.fromarray(make_picture(WIDTH, HEIGHT)).save(root / 'train2017/000000000001.jpg')
    with pytest.raises(BadImage, match='an image of 20 x 50 pixels, and its annotation is of 50 x 20'):
        COCOStuffDataset(root).load(0, random.Random(0))
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(root / 'stuffthingmaps/train2017/000000000003.png')
    with pytest.raises(BadImage, match='a map of 10 x 10'):
        COCOStuffDataset(root, masks=True).load(1, random.Random(0))
