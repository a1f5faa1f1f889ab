"""Datasets of latents that a tokenizer wrote once: a diffusion model trains on them without reading images."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vq.core.errors import UserError, listing
from vq.data.remote_root import place
from vq.interfaces import Dataset, Sample
from vq.io.manifest import NAME
from vq.io.shards import ShardSet
from vq.registries import VQDatasetRegistry

Array = npt.NDArray[np.float32]


@VQDatasetRegistry.register_()
class LatentDataset(Dataset):
    """The samples of a latent cache (``vq data latents``): latent (C, *cells), category, id. They have no image.

        z = mean + exp(logvar / 2) e,  latent = (z - m) / s

    - ``folder``: the output of the command, or its folder latents/; a path or an address.
    - ``sample``: draw e from the stream of the sample; False: e = 0, what a FrozenTokenizer gives.
    - ``random_variant``: draw one of an image's variants (the mirror image) each time; False: take the first.
    - ``normalized``: m and s are mean and deviation in the tokenizer, if it has them. Trainers and validators hand them over
      when they check that the latents are those of their tokenizer: see vq/runners/belonging.py. False: latents as they are.
    """

    def __init__(self, folder: str, sample: bool = False, random_variant: bool = True, normalized: bool = True) -> None:
        self.folder = place(folder)
        self.sample, self.random_variant, self.normalized = sample, random_variant, normalized
        self._affine: tuple[Array, Array] | None = None  # m and s, (C, ...) each; None: not known yet

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.producer.get('dataset', 'latents'))

    @property
    def split(self) -> str:  # type: ignore[override]
        return str(self.producer.get('split', ''))

    @property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        names = self.shards.manifest.notes.get('categories')
        return [str(name) for name in names] if isinstance(names, list) else None

    @property
    def producer(self) -> dict[str, Any]:
        return self.shards.manifest.producer

    def place(self) -> Path:
        """The folder of the shards."""
        inner = self.folder / 'latents'
        return inner if not (self.folder / NAME).is_file() and inner.is_dir() else self.folder

    @functools.cached_property
    def shards(self) -> ShardSet:
        folder = self.place()
        if not (folder / NAME).is_file():
            raise UserError(
                f'there are no latents in {self.folder}', 'Write them: vq data latents CONFIG --load-model-from TOKENIZER.'
            )
        shards = ShardSet(folder)
        columns, kind = shards.manifest.columns, shards.manifest.kind
        missing = [name for name in ('mean', 'category') if name not in columns]
        if missing or kind != 'latents':
            raise UserError(
                f'{folder} holds {kind} without {listing(missing or ["mean"])}', 'Give the folder of a latent cache.'
            )
        shape = columns['mean']['shape']
        if len(shape) < 2 or not all(shape) or columns.get('logvar', columns['mean']) != columns['mean']:
            raise UserError(f'{folder}: mean and logvar have no common shape', 'Write the cache again.')
        if self.sample and 'logvar' not in columns:
            raise UserError(
                f'sample is True, and the latents in {folder} have no variance',
                'Set sample to False: their tokenizer gives a point, not a Gaussian.',
            )
        return shards

    @property
    def statistics(self) -> dict[str, Any]:
        """Mean and deviation per channel of the latents in the cache, before normalization; {} if it does not say."""
        found = self.shards.manifest.notes.get('statistics', {})
        channels = self.shards.manifest.columns['mean']['shape'][1]
        if found and not (
            isinstance(found, dict) and all(_are_numbers(found.get(key), channels) for key in ('mean', 'deviation'))
        ):
            raise UserError(
                f'{self.place() / NAME} has statistics that are not a mean and a deviation for each of {channels} channels',
                'Write the cache again.',
            )
        return dict(found)

    def normalize_by(self, mean: Array | None, deviation: Array | None) -> None:
        """Hand over the statistics of the tokenizer, per channel (C,) or per element (C, *cells); None: it has none."""
        shape = self.shards.manifest.columns['mean']['shape'][1:]
        if mean is None or deviation is None:
            mean, deviation = np.zeros(1, np.float32), np.ones(1, np.float32)
        elif mean.shape not in ((shape[0],), tuple(shape)):
            raise UserError(
                f'the latents in {self.place()} are {tuple(shape)}, and statistics of the tokenizer are for {mean.shape}',
                'Compute the statistics on images of the same size, or per channel.',
            )
        wide = (-1,) + (1,) * (len(shape) - 1)
        self._affine = tuple(x.reshape(wide) if x.ndim == 1 else x for x in (mean, deviation))  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.shards)

    def id_of(self, index: int) -> str:
        found: str = self.shards[index]['id']
        return found

    def load(self, index: int, stream: random.Random) -> Sample:
        row = self.shards[index]
        variants = len(row['mean'])
        variant = int(stream.random() * variants) if self.random_variant and variants > 1 else 0
        z = row['mean'][variant].astype(np.float32)  # (C, *cells), a copy
        if self.sample:
            z += np.exp(0.5 * row['logvar'][variant].astype(np.float32)) * noise(z.shape, stream)
        if self.normalized:
            if self._affine is None:
                raise UserError(
                    f'how the latents in {self.place()} are normalized is known to their tokenizer, which is not here',
                    'A trainer or validator hands it over. Elsewhere call normalize_by, or set normalized to False.',
                )
            mean, deviation = self._affine
            z = (z - mean) / deviation
        category = int(row['category'])
        return self.make_sample(id=row['id'], latent=z, category=None if category < 0 else category)

    def fingerprint(self) -> str:
        files = '\n'.join(entry.sha256 for entry in self.shards.manifest.shards)
        return hashlib.blake2b(files.encode(), digest_size=8).hexdigest()


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(type(x) in (int, float) and abs(x) < 1e30 for x in values)


def noise(shape: tuple[int, ...], stream: random.Random) -> Array:
    """Standard normal numbers, from raw bits of Philox, which NumPy keeps across versions (Box and Muller 1958)."""
    count = int(np.prod(shape))
    half = -(-count // 2)
    bits = np.random.Philox(key=int(stream.random() * 2**53)).random_raw(2 * half)
    first, second = ((bits >> np.uint64(11)).astype(np.float64) + 0.5).reshape(2, half) * 2.0**-53  # in (0, 1)
    radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].astype(np.float32).reshape(shape)
