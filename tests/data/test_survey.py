"""What ``vq data check`` finds in a folder, against the folder's maker and trees written by hand."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.messy import make
from vq.core.errors import ConfigError, UserError
from vq.data import spread
from vq.data.datasets.folder import FolderDataset
from vq.data.survey import reading
from vq.data.survey.listing import list_files
from vq.data.survey.survey import survey


def put(root, *paths, size=(40, 40)):
    """Images that all differ."""
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(sum(map(ord, path)) * 7919 + len(path)).integers(
            0, 256, (size[1], size[0], 3), np.uint8
        )
        Image.fromarray(pixels).save(file)
    return root


def look(folder, share=0.1, workers=1):
    return survey(folder, share, workers, lambda count: lambda done: None)


@pytest.fixture(scope='module')
def messy(tmp_path_factory):
    return make(tmp_path_factory.mktemp('messy') / 'photos', images=60, pipe=True)


@pytest.fixture(scope='module')
def found(messy):
    return look(messy.folder)


def test_every_file_is_found_as_it_was_made(messy, found):
    assert {name for name, good in zip(found.listing.images, found.good, strict=True) if good} == set(messy.good)
    pipe = [name for name, reason in messy.bad.items() if reason == 'pipe']
    assert set(found.bad) == set(messy.bad) - set(pipe)
    assert all(messy.bad[name] in reason for name, reason in found.bad.items())
    assert list(found.listing.faults) == pipe
    inside_macosx = [name for name in messy.ignored if name.startswith('__MACOSX')]
    assert sum(found.listing.ignored.values()) == len(messy.ignored) - len(inside_macosx) + 1  # the folder counts once
    assert found.layout.categories == tuple(sorted(set(messy.labels.values())))
    counts = {name: sum(each.values()) for name, each in found.per_class().items()}
    assert counts == {name: [*messy.labels.values()].count(name) for name in counts}


def test_duplicates_are_those_that_were_made(messy, found):
    def named(groups):
        return [tuple(found.listing.images[index] for index in group) for group in groups]

    assert sorted(map(sorted, named(found.copies))) == sorted(map(sorted, messy.copies))
    assert sorted(map(sorted, named(found.lookalikes))) == sorted(map(sorted, messy.same_pixels))


def test_kinds_are_counted(found):
    forms = [(number + number // 20) % 20 for number in range(60)]  # see tests/messy.py
    of = {'grey': (3, 7), '16 bits': (7,), 'CMYK': (5,), 'alpha': (9,), 'palette': (11,), 'EXIF rotation': (13,)}
    for kind, own in of.items():
        assert found.kinds[kind] == sum(form in own for form in forms), kind


@pytest.mark.slow
def test_processes_change_nothing(messy, found, monkeypatch):
    monkeypatch.setattr(spread, 'WORTH_PROCESSES', 1)
    told = []
    again = list(reading.inspect_all(messy.folder, found.listing.images, 2, told.append))
    alone = [reading.inspect(messy.folder / name) for name in found.listing.images]
    assert again == alone
    assert sum(told) == len(alone)


def test_splits_and_classes_are_those_of_the_dataset(messy, found):
    (messy.folder / 'rocket/queue.png').unlink()
    for split in ('train', 'validation'):
        dataset = FolderDataset(messy.folder, split, held_out=0.1)
        own = [index for index, name in enumerate(found.layout.splits) if name == split]
        assert [found.listing.images[index] for index in own] == [dataset.id_of(index) for index in range(len(dataset))]
        assert found.layout.labels[own].tolist() == [dataset.category_of(index) for index in range(len(dataset))]
        assert found.layout.categories == dataset.categories


# sizes


@pytest.mark.parametrize(
    ('sides', 'size'), [((20, 20, 20), 32), ((63, 64, 300), 64), ((95, 95, 96), 64), ((256, 256, 9), 256)]
)
def test_the_image_size_that_fits_follows_the_median(tmp_path, sides, size):
    for number, side in enumerate(sides):
        put(tmp_path, f'{number}.png', size=(side, side + 5 * number))
    found = look(tmp_path)
    assert found.image_size == size
    assert sum(found.histogram().values()) == 3


def test_shapes_are_after_the_rotation(tmp_path):
    put(tmp_path, 'a.png', size=(90, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (50, 30)).save(tmp_path / 'b.jpg', exif=exif)
    found = look(tmp_path)
    assert found.sizes.tolist() == [[90, 20], [30, 50]]
    assert found.shapes() == {'square': 0, 'landscape': 1, 'portrait': 1, 'long and narrow': 1}


def test_sixteen_bits_in_colour_and_profiles_are_seen(tmp_path):
    from PIL import ImageCms

    put(tmp_path, 'plain.png')
    deep = np.random.default_rng(0).integers(0, 2**16, (8, 8, 3), np.uint16)
    import cv2

    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
    Image.new('RGB', (9, 9), 'red').save(tmp_path / 'wide.png', icc_profile=profile)
    standard = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    Image.new('RGB', (9, 9), 'blue').save(tmp_path / 'usual.png', icc_profile=standard)
    assert look(tmp_path).kinds == {'16 bits': 1, 'colour profile': 1, 'RGB, 8 bits': 2}


# splits and levels


def test_equal_images_across_splits_are_leaks(tmp_path):
    put(tmp_path, 'train/a/1.png', 'train/a/2.png', 'val/a/3.png', 'val/b/4.png')
    shutil.copy(tmp_path / 'train/a/1.png', tmp_path / 'val/b/9.png')
    Image.open(tmp_path / 'train/a/2.png').save(tmp_path / 'val/b/8.bmp')
    shutil.copy(tmp_path / 'val/a/3.png', tmp_path / 'val/b/7.png')  # within one split
    found = look(tmp_path)
    leaks = [[found.listing.images[index] for index in group] for group in found.leaks()]
    assert leaks == [['train/a/1.png', 'val/b/9.png'], ['train/a/2.png', 'val/b/8.bmp']]
    assert len(found.copies) == 2
    assert found.per_split() == {'train': 2, 'validation': 5}
    assert found.layout.kind == 'split folders'


LEVELS = [  # files, the root that is meant, layout
    (['a/1.png', 'b/2.png'], '', 'class folders'),
    (['1.png', '2.png'], '', 'flat'),
    (['1.png', 'a/2.png'], '', 'mixed'),
    (['train/a/1.png', 'val/a/2.png'], '', 'split folders'),
    (['photos/train/a/1.png', 'photos/val/a/2.png'], 'photos', 'split folders'),
    (['x/y/train/a/1.png', 'x/y/validation/a/2.png', 'readme/3.png'], 'x/y', 'split folders'),
    (['images/1.png', 'images/2.png'], 'images', 'flat'),
    (['images/a/1.png', 'images/b/2.png'], 'images', 'class folders'),
    (['archive/images/a/1.png', 'archive/images/b/deep/2.png'], 'archive/images', 'class folders'),
    (['train/a/1.png', 'train/b/2.png'], 'train', 'class folders'),
    (['set/train/a/1.png', 'set/train/b/2.png'], 'set/train', 'class folders'),
]


@pytest.mark.parametrize(('files', 'root', 'layout'), LEVELS)
def test_the_root_that_is_meant_is_found(tmp_path, files, root, layout):
    put(tmp_path, *files)
    found = look(tmp_path)
    assert (found.root, found.layout.kind) == (tmp_path / root, layout)
    assert bool(found.moved) == bool(root)
    assert len(found.sizes) >= 2
    if layout != 'mixed':  # which the dataset refuses
        assert FolderDataset(found.root, held_out=0.001).categories == (found.layout.categories or None)


def test_a_split_given_as_root_leads_to_the_folder_above(tmp_path, monkeypatch):
    put(tmp_path, 'all/train/a/1.png', 'all/val/a/2.png')
    assert look(tmp_path / 'all/train').root == tmp_path / 'all'
    monkeypatch.chdir(tmp_path / 'all/val')
    from pathlib import Path

    assert look(Path('.')).root == tmp_path / 'all'


@pytest.mark.parametrize(
    ('files', 'words'),
    [
        (['training/1.png', 'valid/2.png'], 'rename training to train, valid to validation'),
        (['a/train/1.png', 'b/train/2.png', 'b/test/3.png'], 'split folders come first'),
        (['one/cat/1.png', 'one/dog/2.png', 'two/cat/3.png', 'two/dog/4.png'], 'one level too deep'),
        (['train/a/1.png', 'val/a/2.png', 'more/3.png'], '1 images are beside the split folders'),
        (['1.png', 'a/2.png'], 'classes=False'),
    ],
)
def test_doubtful_layouts_are_said(tmp_path, files, words):
    put(tmp_path, *files)
    assert words in ' '.join(look(tmp_path).layout.warnings)


def test_training_refuses_a_root_that_would_mix_splits_or_lose_classes(tmp_path, caplog):
    put(tmp_path, 'one/photos/train/a/1.png', 'one/photos/val/a/2.png', 'two/images/a/1.png', 'two/images/b/1.png')
    put(tmp_path, 'three/images/1.png', 'three/images/2.png')
    for name, right in (('one', 'one/photos'), ('two', 'two/images')):
        with pytest.raises(ConfigError) as raised:
            len(FolderDataset(tmp_path / name, held_out=0.05))
        assert raised.value.hint == f'Set data_root to {tmp_path / right}.'
        assert len(FolderDataset(tmp_path / name)) == 2, 'runs of versions without held_out go on'
    assert len(FolderDataset(tmp_path / 'two', classes=False, held_out=0.001)) == 2
    assert len(FolderDataset(tmp_path / 'three', held_out=0.001)) == 2
    assert f'set data_root to {tmp_path / "three/images"}' in caplog.text


def test_train_without_validation_points_to_train(tmp_path):
    put(tmp_path, 'train/a/1.png', 'train/a/2.png')
    with pytest.raises(ConfigError, match="no folder for the split 'validation'") as raised:
        len(FolderDataset(tmp_path, 'validation', held_out=0.1))
    assert f'set data_root to {tmp_path / "train"}' in raised.value.hint


# odd entries


def test_links_pipes_and_names_that_are_no_text(tmp_path):
    put(tmp_path, 'a/1.png')
    (tmp_path / 'a/again').symlink_to(tmp_path)
    (tmp_path / 'a/self.png').symlink_to(tmp_path / 'a/self.png')
    (tmp_path / 'a/gone.png').symlink_to(tmp_path / 'nothing.png')
    os.mkfifo(tmp_path / 'a/pipe.jpg')
    os.mkfifo(tmp_path / 'a/pipe')
    (tmp_path / 'a' / 'b\udce9.png').write_bytes(b'')
    found = list_files(tmp_path)
    assert found.images == ['a/1.png', 'a/gone.png', 'a/self.png']  # the last two cannot be read
    assert found.faults == {
        'a/pipe.jpg': 'named like an image, and a pipe, socket or device',
        'a/b\\xe9.png': 'the name is not UTF-8',
    }
    assert found.ignored == {'link to a folder above it': 1, 'no suffix': 1}
    looked = look(tmp_path)
    assert set(looked.bad) == {'a/gone.png', 'a/self.png'} if looked.root == tmp_path else {'gone.png', 'self.png'}


def test_a_folder_that_cannot_be_listed_is_a_fault_and_the_root_an_error(tmp_path, monkeypatch):
    put(tmp_path, 'a/1.png', 'b/2.png')
    listed = os.scandir

    def scandir(path):
        if str(path) == closed:
            raise PermissionError(13, 'Permission denied', path)
        return listed(path)

    monkeypatch.setattr(os, 'scandir', scandir)
    closed = str(tmp_path / 'b')
    assert list_files(tmp_path).faults == {'b': 'the folder cannot be listed: Permission denied'}
    closed = str(tmp_path)
    with pytest.raises(UserError, match='cannot be listed: Permission denied'):
        list_files(tmp_path)


def test_a_folder_without_images_says_what_is_there(tmp_path):
    (tmp_path / 'a.gif').write_bytes(b'x')
    (tmp_path / 'b.zip').write_bytes(b'x')
    with pytest.raises(UserError) as raised:
        look(tmp_path)
    assert '1 x .gif: pictures of a format that is not read; convert to PNG' in raised.value.message
    assert '.zip: an archive; unpack it' in raised.value.message
    (tmp_path / 'c.png').write_bytes(b'x')
    with pytest.raises(UserError, match='none of the 1 images'):
        look(tmp_path)
