"""Packed images: the samples of the dataset they were made from, whoever wrote them and however often it was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.conftest import encoded, picture
from tests.io.killing import Killer
from tests.ranks import GlooPool
from vq.core import collectives
from vq.core.errors import UserError
from vq.data.collate import collate
from vq.data.datasets.base import ImageDataset
from vq.data.datasets.combined import ConcatDataset
from vq.data.datasets.digits import DigitsDataset
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.datasets.selected import SubsetDataset
from vq.data.decode import BadImage, decode_image
from vq.data.geometry import Geometry
from vq.data.packing.folders import SplitFolder
from vq.data.packing.rows import KEPT, RAW, Packing
from vq.data.packing.write import pack
from vq.data.transforms import none, strong
from vq.interfaces import Dataset, Field
from vq.io.shards import ShardSet

STREAM = random.Random(0)
AS_PIXELS = Packing()


@contextlib.contextmanager
def quiet(total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def write(root: Path, target: Path, packing: Packing = AS_PIXELS, workers: int = 0, skip: bool = False) -> Any:
    """Pack both splits below ``root`` in shards of three."""
    found = {}
    for split in ('train', 'validation'):
        others = [root / other for other in ('train', 'validation') if other != split and (root / other).is_dir()]
        source = SplitFolder(root / split, split, siblings=others)
        found[split] = pack(source, target / split, packing, quiet, 3, workers, skip)
    return found


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what cameras and people leave: JPEG, rotated, grey and CMYK ones, PNG, a palette; two classes."""
    root = tmp_path_factory.mktemp('photos')
    turned = Image.Exif()
    turned[0x0112] = 6
    contents = {
        'a/plain.jpg': encoded(picture(40, 60), 'JPEG', quality=95),
        'a/turned.jpg': encoded(picture(30, 50, 1), 'JPEG', exif=turned),
        'a/grey.jpg': encoded(Image.fromarray(picture(20, 20, 2)).convert('L'), 'JPEG'),
        'a/wide.jpg': encoded(picture(10, 64, 3), 'JPEG'),
        'b/cmyk.jpeg': encoded(Image.fromarray(picture(33, 31, 4)).convert('CMYK'), 'JPEG'),
        'b/one.png': encoded(picture(48, 36, 5), 'PNG'),
        'b/palette.png': encoded(Image.fromarray(picture(16, 16, 6)).convert('P'), 'PNG'),
    }
    for split, names in (('train', contents), ('validation', [*contents][4:])):
        for name in names:
            file = root / split / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents[name])
    return root


def resized(sample: Any, limit: int | None) -> np.ndarray:
    height, width = sample['image'].shape[:2]
    if limit is None or max(height, width) <= limit:
        return np.asarray(sample['image'])
    scale = limit / max(height, width)  # as FFCV computes it
    return np.asarray(Geometry.of(sample).resize(int(height * scale), int(width * scale)).move(sample)['image'])


@pytest.mark.parametrize('limit', [None, 32])
def test_raw_has_the_samples_of_the_folder(photos: Path, tmp_path: Path, limit: int | None) -> None:
    write(photos, tmp_path, Packing(max_resolution=limit))
    for split in ('train', 'validation'):
        folder, packed = FolderDataset(photos, split), PackedDataset(tmp_path, split)
        assert len(packed) == len(folder) and packed.categories == folder.categories == ('a', 'b')
        for index in range(len(folder)):
            there, here = folder.load(index, STREAM), packed.load(index, STREAM)
            assert (here['id'], here['category']) == (there['id'], there['category'])
            assert packed.id_of(index) == there['id'] and packed.category_of(index) == there['category']
            assert np.array_equal(here['image'], resized(there, limit)) and np.array_equal(packed.read(index), here['image'])


def test_a_batch_at_once_is_that_of_its_samples(photos: Path, tmp_path: Path) -> None:
    pack(DigitsDataset('test', (24, 32)), tmp_path / 'train', Packing(), quiet, 50)
    chosen = [150, 3, 3, 77]
    for transform, usable in (
        (None, True),
        (functools.partial(none, image_size=(24, 32)), True),
        (functools.partial(none, image_size=24), True),  # crops of 24 x 32
        (functools.partial(none, image_size=16), False),
        (functools.partial(strong, image_size=(24, 32)), False),
    ):
        packed = PackedDataset(tmp_path, 'train', transform)
        whole, single = packed.load_batch(chosen), collate([packed.load(index, STREAM) for index in chosen])
        assert (whole is not None) == usable
        if whole is not None:
            assert whole.id == single.id and whole.image is not None and whole.category is not None
            for name in ('image', 'key', 'category'):
                there, here = getattr(single, name), getattr(whole, name)
                assert torch.equal(here, there) and here.dtype == there.dtype and here.stride() == there.stride()
            assert dataclasses.replace(whole, image=None, key=whole.key, category=None) == dataclasses.replace(
                single, image=None, key=whole.key, category=None
            )
    write(photos, tmp_path / 'O', Packing('jpg'))
    assert PackedDataset(tmp_path / 'O').load_batch([0, 1]) is None  # of several sizes


def test_a_batch_of_jpeg_at_once_is_that_of_its_samples(tmp_path: Path) -> None:
    pack(DigitsDataset('test', (24, 32)), tmp_path / 'train', Packing('jpg'), quiet, 50)
    packed, told = PackedDataset(tmp_path, 'train', functools.partial(none, image_size=24), backend='auto'), []
    whole, single = packed.load_batch([9, 2], told.append), collate([packed.load(index, STREAM) for index in (9, 2)])
    assert whole is not None and torch.equal(whole.image, single.image) and whole.id == single.id and told == [9, 2]
    assert PackedDataset(tmp_path, 'train', decode_to=8).load_batch([9, 2]) is None


def test_jpeg_files_keep_their_bytes(photos: Path, tmp_path: Path) -> None:
    done = write(photos, tmp_path, Packing('jpg'))['train'][1]
    folder, packed = FolderDataset(photos, 'train'), PackedDataset(tmp_path, 'train')
    assert done[KEPT] == 5 and sum(done.values()) == 7
    for index in range(len(folder)):
        there, here = folder.load(index, STREAM), packed.load(index, STREAM)
        if there['id'].endswith('.png'):  # JPEG is not exact
            assert there['image'].shape == here['image'].shape and here['image'].any()
        else:
            assert np.array_equal(here['image'], there['image'])
            assert packed.encoded(index) == Path(there['path']).read_bytes()


def test_a_proportion_is_jpeg(photos: Path, tmp_path: Path) -> None:
    done = write(photos, tmp_path, Packing('proportion', compress_probability=0.1))['train'][1]
    assert 0 < done[RAW] < 7
    forms = [PackedDataset(tmp_path, 'train').row(index).form for index in range(7)]
    assert forms.count(0) == done[RAW]


class Scenes(ImageDataset):
    """Scene i has i boxes, a mask, a caption, and a field that is declared."""

    fields = {
        'owners': Field('pad', 'int64', rows_of='boxes'),
        'depth': Field('stack', 'float32', moves='mask', mirrored=((1, 2),)),
    }

    label_names = ('sky', 'sea')

    def __len__(self) -> int:
        return 4

    def id_of(self, index: int) -> str:
        return f'scene/{index}'

    def read(self, index: int) -> np.ndarray:
        return picture(40, 60, index)

    def annotations_of(self, index: int) -> dict[str, Any]:
        boxes = np.array([[10.0 * box, 4, 10 * box + 8, 16] for box in range(index)], np.float32).reshape(-1, 4)
        mask = np.arange(2400).reshape(40, 60) % 7
        note = {'caption': [f'{index} boxes', 'é']}
        return dict(boxes=boxes, owners=np.arange(index), mask=mask, depth=mask / 2, text=f'scene {index}', extra=note)


@pytest.mark.parametrize('limit', [None, 30])
def test_boxes_masks_and_captions_are_stored_and_move_with_the_image(tmp_path: Path, limit: int | None) -> None:
    scenes = Scenes('scenes', 'train')
    pack(scenes, tmp_path / 'train', Packing(max_resolution=limit), quiet, 3)
    packed = PackedDataset(tmp_path, 'train')
    assert packed.fields == scenes.fields and packed.label_names == scenes.label_names == ('sky', 'sea')
    for index in range(4):
        there, here = scenes.load(index, STREAM), packed.load(index, STREAM)
        there = there if limit is None else Geometry.of(there).resize(20, 30).move(there)
        assert here.keys() == there.keys() - {'path'} and here.fields == there.fields
        for name in here:
            same = np.array_equal if isinstance(there[name], np.ndarray) else lambda one, other: one == other
            assert same(here[name], there[name]), name
            assert getattr(here[name], 'dtype', None) == getattr(there[name], 'dtype', None)


def test_a_field_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    scenes = Scenes('scenes', 'train')
    scenes.annotations_of = lambda index: {'extra': {'what': object()}}  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r'scene/0 has fields that cannot be packed'):
        pack(scenes, tmp_path / 'train', Packing(), quiet, 3)


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except UserError as error:
        return str(error)
    return ''


def read_and_compare(root: Path, sound: list[Any]) -> None:
    packed = PackedDataset(root, 'train')
    for index, there in enumerate(sound):
        here = packed.load(index, STREAM)
        assert (here['id'], here['category']) == (there['id'], there['category'])
        assert np.array_equal(here['image'], there['image'])


@pytest.mark.slow
def test_every_flipped_bit_is_found_and_the_file_named(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path)
    sound = [PackedDataset(tmp_path, 'train').load(index, STREAM) for index in range(7)]
    for file in sorted((tmp_path / 'train').glob('shard-*')):
        content = file.read_bytes()
        for place in range(0, len(content), max(1, len(content) // 150)):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
            said = error_of(lambda: read_and_compare(tmp_path, sound))
            # a bit of what no sample is made of, such as padding: the whole file is compared on request
            assert file.name in (said or error_of(lambda: ShardSet(tmp_path / 'train', verify=True)))
        file.write_bytes(content)


def test_swapped_shards_are_found(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path, Packing(max_resolution=8))
    files = sorted((tmp_path / 'train').glob('shard-*'))[:2]
    if files[0].stat().st_size == files[1].stat().st_size:
        contents = [file.read_bytes() for file in files]
        files[0].write_bytes(contents[1])
        files[1].write_bytes(contents[0])
    else:
        files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(UserError, match=r'shard-0000[01]-of-00003'):
        PackedDataset(tmp_path, 'train').load(3, STREAM)


def test_bad_images_end_the_command_or_are_left_out_and_listed(photos: Path, tmp_path: Path) -> None:
    root = shutil.copytree(photos, tmp_path / 'photos')
    (root / 'train/a/plain.jpg').write_bytes((photos / 'train/a/plain.jpg').read_bytes()[:-200])
    with pytest.raises(UserError, match=r'bad image .*plain.jpg') as raised:
        write(root, tmp_path / 'O')
    assert '--bad-images skip' in raised.value.hint
    manifest, _ = write(root, tmp_path / 'O', skip=True)['train']
    assert manifest.skipped == ['train/a/plain.jpg'] and len(PackedDataset(tmp_path / 'O')) == 6


def test_jpeg_that_cannot_be_decoded_is_a_bad_image_with_its_place(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path, Packing('jpg'))
    packed = PackedDataset(tmp_path, 'train', pixel_limit=100)
    with pytest.raises(BadImage, match=r'shard-00000-of-00003.safetensors, row 0 \(train/a/grey.jpg\)'):
        packed.load(0, STREAM)


# ranks, workers, and kill -9


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob('*')) if file.is_file()}


class OneOf(collectives.SingleProcess):
    """A rank of several that run one after the other."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def make_many(root: Path) -> Path:
    for index in range(74):
        file = root / ('train' if index < 68 else 'validation') / f'{index}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(8 + index % 3, 9, index), 'PNG'))
    return root


def one_dataset(root: Path) -> Dataset:
    return SplitFolder(root / 'train', 'train')


def write_all(root: Path, target: Path) -> None:
    pack(one_dataset(root), target, Packing('proportion', 8), quiet, 3)


def write_on_rank(root: Path, target: Path, rank: int, world: int) -> None:
    collectives.install(OneOf(rank, world))
    try:
        write_all(root, target)
    finally:
        collectives.install(None)


def test_a_set_is_the_same_however_often_it_was_stopped(tmp_path: Path, killer: Killer, gloo_pool: GlooPool) -> None:
    root = make_many(tmp_path / 'photos')
    write_all(root, tmp_path / 'whole')
    whole = contents(tmp_path / 'whole')
    assert len(whole) == 24 and len(set(ShardSet(tmp_path / 'whole').ids())) == 68  # 23 shards and the manifest
    target = tmp_path / 'O'
    for ranks, at in enumerate((21, 45, 70), 1):  # killed after some changes of the disk, restarted with 1, 2 and 3 ranks
        shutil.rmtree(target, ignore_errors=True)
        for rank in (0, 1):  # both ranks of two, in the middle of a shard
            assert not killer.run(functools.partial(write_on_rank, root, target, rank, 2), at)
        assert 0 < len(list(target.glob('shard-*'))) < 23
        if ranks == 1:
            write_all(root, target)
        elif ranks == 2:
            gloo_pool.run(write_all, root, target)
        else:
            for rank in (1, 2, 0):  # the first rank completes the set
                write_on_rank(root, target, rank, 3)
        assert contents(target) == whole, ranks


@pytest.mark.slow
def test_worker_processes_write_the_same(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path / 'one')
    write(photos, tmp_path / 'two', workers=2)
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def test_a_set_of_other_images_or_settings_is_refused(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="'mode' is 'raw' there and 'jpg' here"):
        write(photos, tmp_path, Packing('jpg'))
    with pytest.raises(UserError, match="'split' is 'train' there and 'validation' here"):
        pack(FolderDataset(photos, 'validation'), tmp_path / 'train', Packing(), quiet, 3)
    assert contents(tmp_path) == before


# what is given by mistake


@pytest.mark.parametrize(
    ('make', 'split', 'message'),
    [
        (lambda root: (root / 'train.beton').write_bytes(b'x'), 'train', r'train.beton is a file of FFCV'),
        (lambda root: None, 'train', r"no packed images of the split 'train': it has no split"),
        (lambda root: (root / 'train').rename(root / 'other'), 'train', 'it has no split'),
    ],
)
def test_a_root_without_packed_images_says_what_it_is(
    tmp_path: Path, make: Callable[[Path], None], split: str, message: str
) -> None:
    (tmp_path / 'train').mkdir()
    make(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        len(PackedDataset(tmp_path, split))
    assert 'vq data pack --max-resolution 256 --output-folder O' in raised.value.hint


def test_the_folder_of_one_split_is_not_a_root(photos: Path, tmp_path: Path) -> None:
    write(photos, tmp_path)
    with pytest.raises(UserError, match='is one split of a packed dataset') as raised:
        len(PackedDataset(tmp_path / 'train'))
    assert str(tmp_path) in raised.value.hint
    with pytest.raises(UserError, match="split 'test': it has train, validation"):
        len(PackedDataset(tmp_path, 'test'))


def test_datasets_around_others_pass_the_bytes_on(photos: Path, tmp_path: Path) -> None:
    folder = FolderDataset(photos, 'train')
    subset = SubsetDataset(ConcatDataset({'one': folder, 'two': FolderDataset(photos, 'validation')}), start=1, step=4)
    _, done = pack(subset, tmp_path / 'train', Packing('jpg'), quiet, 2)
    packed = PackedDataset(tmp_path, 'train')
    assert [packed.id_of(index) for index in range(len(packed))] == [subset.id_of(index) for index in range(len(subset))]
    assert packed.encoded(0) == folder.encoded(1) and done[KEPT] >= 1 and packed.categories == subset.categories


def test_kept_bytes_are_those_that_were_decoded(photos: Path) -> None:
    for index in range(7):
        folder = FolderDataset(photos, 'train')
        assert np.array_equal(decode_image(folder.encoded(index) or b''), folder.read(index))
    assert FolderDataset(photos, 'train', shrink_to=8).encoded(0) is None
