"""What makes loading fast leaves samples as they are, and says what it does."""

from __future__ import annotations

import logging
import warnings
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_packed import quiet
from vq.core.errors import ConfigError
from vq.core.random import python_stream
from vq.data.collate import Rows, collate
from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.decode import decode_image, noting_fallbacks
from vq.data.loading import Fetcher, Loader, LoaderSettings
from vq.data.packing.rows import Packing
from vq.data.packing.write import pack
from vq.data.pixels import resampled_by, resize
from vq.data.plan import evaluation_plan, training_plan
from vq.interfaces import Dataset, Sample
from vq.registries import VQTransformRegistry


@pytest.mark.parametrize('workers', [0, 2])
def test_files_that_pillow_decodes_instead_are_said_once_and_counted(workers, tmp_path, make_picture, caplog):
    for number in range(6):
        Image.fromarray(make_picture(8, 8, seed=number)).save(tmp_path / f'{number}.{"jpg" if number < 2 else "png"}')
    with caplog.at_level(logging.INFO, 'vq'):
        dataset = FolderDataset(tmp_path, backend='simplejpeg')
        with Loader(dataset, evaluation_plan(6, 2, 0, 1), LoaderSettings(2, workers), 0, training=False) as loader:
            batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert loader.fallbacks == {'PNG files': (4, str(tmp_path / '2.png'))}
    assert [record.getMessage() for record in caplog.records] == [
        f'Pillow decodes PNG files instead, such as {tmp_path / "2.png"}',
        'Pillow decoded files instead of the backend that was asked for: 4 PNG files',
    ]


TURNED = b'Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0'  # orientation 6


def photo(height: int, width: int) -> np.ndarray:
    """Smooth shapes with some noise, as photographs have."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (height // 40, width // 40, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def views(root: Path, name: str, **settings: Any) -> np.ndarray:
    transform = VQTransformRegistry.build({'type': name, 'image_size': 48})
    dataset = FolderDataset(root, transform=transform, **settings)
    found = [dataset.load(0, python_stream('view', number))['image'] for number in range(4)]
    assert all(view.dtype == np.uint8 for view in found)
    return np.stack(found).astype(int)


@pytest.mark.parametrize('writeable', [True, False])
def test_resizing_by_torch_is_within_a_level_of_pillow(writeable):
    image = photo(150, 200)
    image.flags.writeable = writeable
    for part, size in ((image, (64, 85)), (image[7:120, 11:150], (48, 48)), (image[:40, :50], (90, 100))):
        with resampled_by('torch'), warnings.catch_warnings(action='error'):
            ours = resize(part, *size)
        exact = resize(part, *size)
        assert ours.shape == exact.shape
        assert np.abs(ours.astype(int) - exact).max() <= 1


@pytest.mark.slow
def test_a_folder_gives_the_same_views_faster(tmp_path):
    Image.fromarray(photo(150, 200)).save(tmp_path / 'a.jpg', quality=92)
    assert np.abs(views(tmp_path, 'strong', backend='auto', resampler='torch') - views(tmp_path, 'strong')).max() <= 2
    exact = views(tmp_path, 'none')
    for backend in ('pillow', 'simplejpeg', 'cv2'):  # OpenCV leaves this to Pillow
        reduced = views(tmp_path, 'none', backend=backend, decode_to=64)
        assert 0 < np.abs(reduced - exact).mean() <= 2
    np.testing.assert_array_equal(views(tmp_path, 'none', decode_to=76), exact)  # half of 150 would be less


@pytest.mark.parametrize('backend', ['pillow', 'simplejpeg'])
@pytest.mark.parametrize('size', [(152, 200), (151, 203), (64, 1000)])
def test_decoding_to_a_size_divides_the_sides_and_leaves_enough(backend, size, tmp_path):
    Image.fromarray(photo(*size)).save(tmp_path / 'a.jpg', exif=TURNED)
    for decode_to in (10, 20, 40, 75, 100):
        factor = max(factor for factor in (1, 2, 4, 8) if factor == 1 or min(size) // factor >= decode_to)
        with noting_fallbacks() as fallbacks:
            pixels = decode_image(tmp_path / 'a.jpg', backend, decode_to=decode_to)
        assert pixels.shape == (-(-size[1] // factor), -(-size[0] // factor), 3)  # turned by EXIF
        assert not fallbacks
        if not any(side % factor for side in size):  # otherwise the last row or column is a part of a pixel
            exact = resize(decode_image(tmp_path / 'a.jpg'), *pixels.shape[:2])
            assert np.abs(pixels.astype(int) - exact).mean() <= 2


def test_wrong_settings_of_a_folder_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no resampler 'lanczos'"):
        FolderDataset(tmp_path, resampler='lanczos')
    with pytest.raises(ConfigError, match='decode_to is 0'):
        FolderDataset(tmp_path, decode_to=0)


@pytest.fixture(scope='module')
def stored(tmp_path_factory) -> Path:
    """14 photographs as files, and packed: pixels and JPEG."""
    root = tmp_path_factory.mktemp('stored')
    for number in range(14):
        place = root / 'files' / 'train' / f'class_{number % 2}' / f'{number:02}.jpg'
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(photo(60, 80), 5 * number, 1)).save(place)
    for mode in ('raw', 'jpg'):
        pack(FolderDataset(root / 'files'), root / mode / 'train', Packing(mode), quiet, 4)
    return root


def stored_dataset(stored: Path, kind: str) -> Dataset:
    transform = VQTransformRegistry.build({'type': 'strong', 'image_size': 24})
    if kind == 'files':
        return FolderDataset(stored / 'files', transform=transform, backend='auto', resampler='torch')
    return PackedDataset(stored / kind, transform=transform)


def walked(dataset: Dataset, workers: int, world: int, start: int, count: int) -> list[tuple[str, bytes]]:
    """``count`` samples in the order of training, 4 in a step over ``world`` ranks."""
    loaders = [
        Loader(dataset, training_plan(14, 4 // world, rank, world, 3, start), LoaderSettings(4 // world, workers), 3, True)
        for rank in range(world)
    ]
    found: list[tuple[str, bytes]] = []
    try:
        while len(found) < count:
            for batch in map(next, loaders):
                found += [(name, image.numpy().tobytes()) for name, image in zip(batch.id, batch.image, strict=True)]
    finally:
        for loader in loaders:
            loader.close()
    return found[:count]


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:This DataLoader will create')
@pytest.mark.parametrize('kind', ['files', 'raw', 'jpg'])
def test_resume_within_an_epoch_gives_the_same_samples_for_any_workers_and_ranks(kind, stored):
    dataset = stored_dataset(stored, kind)
    whole = walked(dataset, 0, 1, 0, 42)
    for workers, world in ((1, 1), (4, 1), (0, 2), (1, 2)):
        assert walked(dataset, workers, world, 20, 22) == whole[20:]
    names = [[name for name, _ in whole[first : first + 14]] for first in (0, 14, 28)]
    assert names[0] != names[1] != names[2] != names[0]
    assert all(sorted(epoch) == sorted(dataset.id_of(index) for index in range(14)) for epoch in names)
    with Loader(dataset, training_plan(14, 7, 0, 1, 3), LoaderSettings(7, 1), 3, True) as loader:
        kept = [next(loader).id for _ in range(4)]  # one worker over two epochs
    assert kept[0] + kept[1] == names[0] and kept[2] + kept[3] == names[1]


def test_batches_travel_from_workers_in_shared_memory(stored):
    batch = Fetcher(stored_dataset(stored, 'raw'), 0, True, False).__getitems__([(0, index) for index in range(14)])
    sent = ForkingPickler.dumps(batch)
    assert batch.batch is not None and batch.batch.image is not None and batch.batch.image.nbytes > 24_000
    assert len(sent) < 4000, 'pixels would be copied through a pipe'


def test_images_that_are_copied_when_they_are_loaded_make_the_same_batch():
    images = [photo(48, 64), photo(48, 64)[:, ::-1], photo(64, 48).transpose(1, 0, 2)]
    samples = [Sample(id=str(number), image=image) for number, image in enumerate(images)]
    rows = Rows(4)  # one more than there are, as with a bad image
    kept = [rows.keep(sample) for sample in samples]
    exact, batch = collate(samples), collate(kept, rows=rows)
    assert exact.image is not None and batch.image is not None
    assert torch.equal(exact.image, batch.image) and batch.image.permute(0, 2, 3, 1).is_contiguous()
    assert batch.to('cpu').image.is_contiguous()
    assert batch.image.data_ptr() == torch.from_numpy(kept[0]['image']).data_ptr()  # no other copy
    swapped = collate([kept[1], kept[0], kept[2]], rows=rows)
    assert torch.equal(swapped.image, exact.image[[1, 0, 2]])
    odd = [rows.keep(Sample(id='a', image=image)) for image in (photo(40, 40), np.zeros((48, 64, 3), np.float32))]
    assert [sample['image'].shape for sample in odd] == [(40, 40, 3), (48, 64, 3)] and rows.joined([]) is None
