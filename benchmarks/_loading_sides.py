"""The sides of ``loading.py``. Each gives batches of ``image`` (B, 3, S, S), uint8, of the same pixels in the same order.

A peer decodes with Pillow, resizes and crops with torchvision, and is loaded by torch's ``DataLoader`` or by its own one.
"""

from __future__ import annotations

import functools
import importlib.util
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _loading_data import files_of, once, write_hugging_face, write_litdata, write_packed, write_tars
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from vq.data.datasets.folder import FolderDataset
from vq.data.datasets.packed import PackedDataset
from vq.data.jpeg import decoder_of
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan, training_plan
from vq.interfaces import Dataset
from vq.registries import VQTransformRegistry

BATCH = 64
SIZE = 256


class Side(NamedTuple):
    """``open`` takes (workers, whether floats are made) and gives batches; ``package`` is None for ours."""

    name: str
    open: Callable[[int, bool], Iterable[Tensor]] | None  # None: the package is not installed
    levels: int  # by which pixels may differ from those of ImageFolder
    epochs: int = 1  # that are read for a figure; more for fast sides


def sides(images: Path, cache: Path) -> list[Side]:
    """ImageFolder is the first."""
    crop = VQTransformRegistry.build({'type': 'none', 'image_size': SIZE})
    packed = once(cache / 'packed', functools.partial(write_packed, images=images, short_side=SIZE))
    fastest = decoder_of('auto')
    decoder = 'Pillow' if fastest is None else fastest.name
    folder = FolderDataset(images, transform=crop)
    fast = FolderDataset(images, transform=crop, backend='auto', resampler='torch')
    raw = PackedDataset(packed / 'raw', transform=crop)
    compressed = PackedDataset(packed / 'jpg', transform=crop, backend='auto')
    return [
        Side('torchvision ImageFolder', functools.partial(_image_folder, images / 'train'), 0),
        Side('ours, packed raw', functools.partial(_ours, raw), 0, 6),
        Side(f'ours, packed JPEG ({decoder})', functools.partial(_ours, compressed), 255, 3),
        Side(f'ours, folder ({decoder}, torch)', functools.partial(_ours, fast), 2, 2),
        Side('ours, folder (Pillow)', functools.partial(_ours, folder), 0),
        Side('WebDataset', _if('webdataset', _web_dataset, cache, write_tars, images), 0),
        Side('Hugging Face datasets', _if('datasets', _hugging_face, cache, write_hugging_face, images), 0),
        Side('litdata', _if('litdata', _litdata, cache, write_litdata, images), 0),
    ]


def _if(
    package: str, opened: Callable[..., Iterable[Tensor]], cache: Path, write: Callable[..., None], images: Path
) -> Callable[[int, bool], Iterable[Tensor]] | None:
    """The side of a peer, its files written once; None if its package is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    folder = once(cache / package, functools.partial(write, images=images))
    return functools.partial(opened, folder)


def in_order(dataset: Dataset, workers: int) -> Iterator[Tensor]:
    """Our images in the order of the files, for the comparison of pixels."""
    plan = evaluation_plan(len(dataset), BATCH, 0, 1)
    with Loader(dataset, plan, LoaderSettings(BATCH, workers), 0, training=False) as loader:
        for batch in loader:
            assert batch.image is not None
            yield batch.image


def _ours(dataset: Dataset, workers: int, floats: bool) -> Iterator[Tensor]:
    """Endless, in random order."""
    from vq.core.records import to_float

    plan = training_plan(len(dataset), BATCH, 0, 1, 0)
    with Loader(dataset, plan, LoaderSettings(BATCH, workers), 0, training=True) as loader:
        for batch in loader:
            assert batch.image is not None
            yield to_float(batch.image) if floats else batch.image


class _Transform:
    """A Pillow image -> a tensor, as torchvision's users write it. Picklable."""

    def __init__(self, floats: bool) -> None:
        from torchvision import transforms as t

        bicubic = t.InterpolationMode.BICUBIC
        last = [t.ToTensor(), t.Normalize((0.5,) * 3, (0.5,) * 3)] if floats else [t.PILToTensor()]
        self.steps = t.Compose([t.Resize(SIZE, interpolation=bicubic), t.CenterCrop(SIZE), *last])

    def __call__(self, image: Image.Image) -> Tensor:
        made: Tensor = self.steps(image.convert('RGB'))
        return made

    def of_bytes(self, data: bytes) -> Tensor:
        return self(Image.open(io.BytesIO(data)))


def _first(batches: Iterable[Any], name: Any = 0) -> Iterator[Tensor]:
    for batch in batches:
        yield batch[name]


def _loader(dataset: Any, workers: int, **settings: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, prefetch_factor=2 if workers else None, **settings)


def _image_folder(folder: Path, workers: int, floats: bool, shuffle: bool = True) -> Iterator[Tensor]:
    from torchvision.datasets import ImageFolder

    return _first(_loader(ImageFolder(str(folder), _Transform(floats)), workers, shuffle=shuffle))


def _web_dataset(folder: Path, workers: int, floats: bool) -> Iterator[Tensor]:
    import webdataset

    transform = _Transform(floats)
    tars = sorted(str(path) for path in folder.glob('*.tar'))
    found = webdataset.WebDataset(tars, shardshuffle=False).decode('pil').to_tuple('jpg', 'cls').map_tuple(transform, int)
    return _first(_loader(found, workers))


class _Examples:
    """The examples of Hugging Face's dataset -> tensors."""

    def __init__(self, floats: bool) -> None:
        self.transform = _Transform(floats)

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {'image': [self.transform(image) for image in rows['image']], 'label': rows['label']}


def _hugging_face(folder: Path, workers: int, floats: bool, shuffle: bool = True) -> Iterator[Tensor]:
    import datasets

    found = datasets.load_from_disk(str(folder / 'set')).with_transform(_Examples(floats))
    return _first(_loader(found, workers, shuffle=shuffle), 'image')


def _litdata(folder: Path, workers: int, floats: bool, shuffle: bool = True) -> Iterator[Tensor]:
    import litdata

    transform = _Transform(floats)

    class Streamed(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> tuple[Tensor, int]:
            row = super().__getitem__(index)
            return transform.of_bytes(row['image']), row['label']

    context = {'multiprocessing_context': 'fork'} if workers else {}
    found = Streamed(str(folder / 'set'), shuffle=shuffle)
    return _first(litdata.StreamingDataLoader(found, batch_size=BATCH, num_workers=workers, **context))


def decode_only(images: Path, cache: Path) -> dict[str, Callable[[], int]]:
    """Decoding of bytes in memory by the fastest decoder, nothing else: the files, and what is packed."""
    fastest, count = decoder_of('auto'), 256
    packed = PackedDataset(cache / 'packed' / 'jpg')
    stored = {
        'files': [path.read_bytes() for path in files_of(images)[:count]],
        'packed JPEG': [packed.encoded(index) or b'' for index in range(min(count, len(packed)))],
    }

    def decode(which: str) -> int:
        for data in stored[which]:
            if fastest is None:
                Image.open(io.BytesIO(data)).convert('RGB')
            else:
                fastest.decode(data, (0, 0), 1)  # the whole size
        return len(stored[which])

    return {which: functools.partial(decode, which) for which in stored}


torch.set_num_threads(1)
