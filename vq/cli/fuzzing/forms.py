"""The undamaged files: how each is made, how it is read, and whether its format has checksums."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vq.cli.fuzzing.annotations import ANNOTATED, PACKED, Annotated, contents
from vq.cli.fuzzing.scenes import SCENES
from vq.cli.fuzzing.tables import TABLES
from vq.data.datasets.latents import LatentDataset
from vq.data.decode import decode_image
from vq.data.jpeg import Backend
from vq.io import checkpoints, runs, tensorfile
from vq.io.checkpoints import Checkpoint
from vq.io.published import statistics
from vq.io.published.converted import write_converted
from vq.io.published.keymap import Converted
from vq.io.published.reader import read_state
from vq.io.shards import ShardSet, ShardWriter
from vq.io.spec import Spec
from vq.io.weights import read_weights
from vq.io.writer import Writer
from vq.metrics.features.reference import Reference, read_reference, write_reference
from vq.metrics.features.statistics import Moments

PIXELS = 4_000_000  # pixel limit of the images
FREE = 2**26
IMAGES = FREE + 16 * PIXELS  # bytes of memory, the bound that decode.py states
OTHERS = 2**28 + FREE  # bytes: what readers may take beyond a small file, and some for their own code


@dataclasses.dataclass(frozen=True)
class Form:
    """One kind of file."""

    name: str
    make: Callable[[Path], object]  # writes the undamaged file or folder
    read: Callable[[Path], str]  # -> a digest of what would be used
    checked: bool  # whether a checksum of the content is compared; else changed content is accepted, and the table names it
    bound: int = OTHERS
    is_folder: bool = False
    files: str = '*'  # of a folder: a pattern of those that are damaged


def digest(*values: Any) -> str:
    """A digest of nested containers of tensors, arrays and plain values."""
    total = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().contiguous()
            total.update(f'{value.dtype}{tuple(value.shape)}'.encode() + plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray | np.generic):
            total.update(f'{value.dtype}{value.shape}'.encode() + value.tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=repr):
                total.update(repr(key).encode(errors='replace'))
                add(value[key])
        elif isinstance(value, list | tuple):
            total.update(b'(')
            for item in value:
                add(item)
        else:
            total.update(repr(value).encode(errors='replace'))

    add(values)
    return total.hexdigest()


# images


def _image(kind: str, mode: str = 'RGB', backend: Backend = 'pillow', **settings: Any) -> Form:
    def make(path: Path) -> None:
        rows, columns = np.mgrid[:23, :37]
        pixels = np.stack([rows * 9 + columns, columns * 6, rows * columns % 251], -1).astype(np.uint8)
        image = Image.fromarray((pixels[..., 0].astype(np.uint16) * 257) if mode == 'I;16' else pixels)
        (image if mode in ('RGB', 'I;16') else image.convert(mode)).save(path, kind, **settings)

    def read(path: Path) -> str:
        return digest(decode_image(path, backend, pixel_limit=PIXELS))

    fast = '' if backend == 'pillow' else f', backend {backend}'
    return Form(f'{kind} {mode}{fast}', make, read, kind == 'PNG', IMAGES)


# weights


def _tensors() -> dict[str, Tensor]:
    return {
        'encoder.weight': torch.arange(60.0).view(3, 4, 5) / 7,
        'encoder.bias': torch.arange(3.0, dtype=torch.bfloat16),
        'codes': torch.arange(64).view(8, 8),
    }


def _lightning(path: Path) -> None:
    about = {'hyper_parameters': argparse.Namespace(lr=0.1), 'epoch': 3, 'callbacks': {'a': [1, 2.5, None]}}
    torch.save({'state_dict': _tensors(), **about}, path)


def _bare(path: Path) -> None:
    with Writer(path) as writer:
        tensorfile.write_tensors(writer, _tensors(), {'format': 'pt'}, sealed=False)  # as other programs write it


def _converted(path: Path) -> None:
    found = Converted({'type': 'VQGAN', 'sizes': [1, 2]}, _tensors(), 32)
    write_converted(path, found, 'taming', 'last.ckpt', '0' * 64, Spec('tokenizer', (32, 32)))


def _read_converted(path: Path) -> str:
    run = runs.find(path)
    return digest(run.about.tokenizer, run.about.image_size, run.spec.as_json(), read_weights(run)[0])


def _read_weights(path: Path) -> str:
    return digest(read_weights(path)[0])


# checkpoints and shards


def _checkpoint(path: Path) -> None:
    random = {'torch': torch.arange(9), 'python': [3, [1, 2], None]}
    found = Checkpoint(
        step=4,
        model=_tensors(),
        ema={name: value + 1 for name, value in _tensors().items()},
        training={'optimizers': {'g': {'state': {0: {'step': torch.tensor(4.0)}}}}, 'callbacks': {}, 'step': 4},
        per_rank={'random': random},
        config_text='{"validator": {"model": {"type": "ImageReconstruction"}}}\n',
        spec=Spec('tokenizer', (32, 48)).as_json(),
        samples_seen=16,
        seed=7,
    )
    checkpoints.save(path, found)
    (path / 'metrics.json').write_text('{"l1": 0.5}\n')


def _read_checkpoint(path: Path) -> str:
    run = runs.find(path)
    found = checkpoints.load(path)
    parts = (found.model, found.ema, found.training, found.per_rank, found.step, found.samples_seen, found.seed)
    return digest(*parts, found.config_text, run.config, run.spec.as_json(), read_weights(run)[0])


def _shards(path: Path) -> None:
    writer = ShardWriter(path, 'tokens', 10, 4, {'codebook_size': 300, 'token_shape': [2, 3], 'dataset': 'digits'})
    for part in writer.pending(0, 1):
        numbers = np.arange(part.start, part.stop)
        columns = {'tokens': (numbers[:, None, None, None] * 7 + np.arange(6).reshape(2, 3)) % 300, 'category': numbers % 10}
        writer.write(part, columns, [f'ü{number}' for number in numbers])
    writer.finish()


def _read_shards(path: Path) -> str:
    found = ShardSet(path)
    return digest(*(found[index] for index in range(len(found))), found.ids(), found.column('tokens')[:])


def _latents(path: Path) -> None:
    writer = ShardWriter(path, 'latents', 10, 4, {'dataset': 'digits', 'split': 'train', 'weights_hash': '0' * 16})
    for part in writer.pending(0, 1):
        numbers = np.arange(part.start, part.stop, dtype=np.float32)
        values = numbers[:, None, None, None, None] / 7 + np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
        columns = {'mean': values, 'logvar': -values, 'category': np.arange(part.start, part.stop) % 3}
        writer.write(part, columns, [f'id {number}' for number in range(part.start, part.stop)])
    writer.finish()


def _read_latents(path: Path) -> str:
    return digest(contents(LatentDataset(str(path), sample=True, normalized=False)))


# annotations


def _annotated(made: Annotated) -> Form:
    def read(path: Path) -> str:
        return digest(made.read(path))

    return Form(made.name, made.make, read, made.checked, is_folder=True, files=made.files)


# statistics


def _moments() -> Moments:
    rows = torch.sin(torch.arange(200.0, dtype=torch.float64)).view(20, 10)
    return Moments(rows.mean(0), torch.cov(rows.T), 20)


def _reference(path: Path) -> None:
    write_reference(path, Reference('x', {'pooled': _moments()}, {'network': 'n'}, {'pooled': torch.ones(20, 10)}))


def _arrays() -> dict[str, np.ndarray]:
    return {'mu': _moments().mean.numpy(), 'sigma': _moments().covariance.numpy()}


def _published(path: Path) -> None:
    moments = _moments()
    torch.save({'mean': moments.mean, 'covariance': moments.covariance, 'count': 20}, path)


def _read_reference(path: Path) -> str:
    found = read_reference(path)
    return digest([(moments.mean, moments.covariance, moments.count) for moments in found.moments.values()], found.rows)


def _read_published(path: Path) -> str:
    found = statistics.convert(path)
    return digest(found.mean, found.covariance, found.count)


def _savez(save: Callable[..., None]) -> Callable[[Path], object]:
    return lambda path: save(path, **_arrays())


FORMS: dict[str, tuple[Form, ...]] = {
    'images': (
        *(_image('PNG', mode) for mode in ('RGB', 'P', 'L', 'RGBA', 'I;16')),
        *(_image('JPEG', mode) for mode in ('RGB', 'L', 'CMYK')),
        _image('JPEG', progressive=True),
        *(_image('JPEG', mode, 'auto') for mode in ('RGB', 'L')),
        _image('WEBP'),
        _image('WEBP', lossless=True),
        *(_image(kind) for kind in ('BMP', 'TIFF', 'PPM')),
        _image('TIFF', compression='tiff_lzw'),
        _image('GIF', 'P'),
    ),
    'checkpoints': (Form('iter_4', _checkpoint, _read_checkpoint, True, is_folder=True),),
    'shards': (
        Form('tokens', _shards, _read_shards, True, is_folder=True),
        Form('latents', _latents, _read_latents, True, is_folder=True),
        _annotated(PACKED),
    ),
    'weights': (
        Form('w.pth', lambda path: torch.save({'model': _tensors()}, path), _read_weights, True),
        Form(
            'legacy.pt', lambda path: torch.save(_tensors(), path, _use_new_zipfile_serialization=False), _read_weights, False
        ),
        Form('last.ckpt', _lightning, lambda path: digest(read_state(path, ('state_dict',))), True),
        Form('bare.safetensors', _bare, _read_weights, False),
        Form('converted.safetensors', _converted, _read_converted, True),
    ),
    'statistics': (
        Form('ours.npz', _reference, _read_reference, True),
        Form('theirs.npz', _savez(np.savez), _read_reference, True),
        Form('small.npz', _savez(np.savez_compressed), _read_reference, True),
        Form('fidelity.pt', lambda path: torch.save(_arrays_of_torch(), path), _read_reference, True),
        Form('todd.pth', _published, _read_published, True),
    ),
    'annotations': tuple(
        _annotated(made) for made in (*ANNOTATED, *SCENES, *TABLES) if not made.needs or importlib.util.find_spec(made.needs)
    ),
}


def _arrays_of_torch() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in _arrays().items()}
