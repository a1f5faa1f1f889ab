"""The images of ``loading.py``: photograph-like JPEG files in class folders, written once, and the same in other formats."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vq.data.datasets.folder import FolderDataset
from vq.data.packing.rows import Packing
from vq.data.packing.write import pack

HEIGHT, WIDTH = 375, 500  # as most files of ImageNet
CLASSES = 10
QUALITY = 90
OCTAVES = (4, 8, 16, 32, 64, 128)  # cells along a side; an amplitude that falls with them, as in photographs
DONE = 'complete'


def photograph(stream: np.random.Generator) -> np.ndarray:
    """(375, 500, 3) uint8: smooth noise of many sizes."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for cells in OCTAVES:
        noise = stream.normal(size=(3, cells, cells)).astype(np.float32) * (300 / cells**0.9)
        for channel in range(3):
            plane = Image.fromarray(noise[channel]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels[:, :, channel] += np.asarray(plane)
    return pixels.clip(0, 255).astype(np.uint8)


def once(folder: Path, write: Callable[[Path], None]) -> Path:
    """``folder``, written by ``write`` unless an earlier run completed it."""
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder)
        (folder / DONE).touch()
    return folder


def write_images(folder: Path, count: int) -> None:
    for number in range(count):
        place = folder / 'train' / f'class_{number % CLASSES}' / f'{number:05}.jpg'
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(np.random.default_rng(number))).save(place, 'JPEG', quality=QUALITY)


def files_of(images: Path) -> list[Path]:
    """In the order of ``FolderDataset`` and of torchvision's ``ImageFolder``."""
    return sorted((images / 'train').glob('*/*.jpg'))


def write_tars(folder: Path, images: Path) -> None:
    """For WebDataset, which needs a file or more for each worker."""
    files = files_of(images)
    size = -(-len(files) // 8)
    for start in range(0, len(files), size):
        with tarfile.open(folder / f'{start // size:04}.tar', 'w') as tar:
            for number, file in enumerate(files[start : start + size], start):
                for suffix, data in (('jpg', file.read_bytes()), ('cls', file.parent.name[-1].encode())):
                    about = tarfile.TarInfo(f'{number:06}.{suffix}')
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))


def write_hugging_face(folder: Path, images: Path) -> None:
    import datasets

    files = files_of(images)
    columns = {
        'image': [{'bytes': file.read_bytes(), 'path': None} for file in files],
        'label': [int(file.parent.name[-1]) for file in files],
    }
    made = datasets.Dataset.from_dict(columns).cast_column('image', datasets.Image())
    made.save_to_disk(str(folder / 'set'))


def read_for_litdata(path: str) -> dict[str, Any]:
    return {'image': Path(path).read_bytes(), 'label': int(Path(path).parent.name[-1])}


def write_litdata(folder: Path, images: Path) -> None:
    import litdata

    litdata.optimize(
        fn=read_for_litdata,
        inputs=[str(file) for file in files_of(images)],
        output_dir=str(folder / 'set'),
        chunk_bytes='64MB',
        num_workers=1,
    )
    multiprocessing.set_start_method(None, force=True)  # it has set 'spawn' for the whole process


def write_packed(folder: Path, images: Path, short_side: int) -> None:
    """``raw/train``: pixels with a short side of ``short_side``; ``jpg/train``: JPEG of the same size, within a pixel."""
    shrunk = FolderDataset(images, shrink_to=short_side)
    pack(shrunk, folder / 'raw' / 'train', Packing('raw'), _unseen)
    longer = -(-short_side * WIDTH // HEIGHT)
    pack(FolderDataset(images), folder / 'jpg' / 'train', Packing('jpg', max_resolution=longer, quality=QUALITY), _unseen)


@contextlib.contextmanager
def _unseen(total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None
