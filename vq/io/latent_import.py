"""Latents as others store them -> a latent cache. ``vq/io/latent_files.py`` lists the layouts. Nothing in them is executed."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vq.core.errors import UserError
from vq.core.reading import read_bytes
from vq.io import bounds, plain
from vq.io.digest import file_digest

LARGEST = 2**31  # bytes of a file of latents
LOOKED_AT = 64  # files that are hashed to identify a folder

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Latents:
    """Some images: mean and logvar (n, variants, C, *cells) float32."""

    mean: Array
    logvar: Array | None
    category: Array  # (n,) int64
    ids: list[str]


class LatentFiles:
    """The files below ``root``. ``shape``: of the latent of one image, as the tokenizer makes it."""

    def __init__(self, root: Path, shape: Sequence[int]) -> None:
        self.root, self.shape = root, tuple(shape)
        if not root.is_dir():
            raise UserError(f'there is no folder {root}', 'Give the folder of the latents.')
        shards = sorted(root.glob('shard_*.pt'))
        self.layout = 'ptshard' if shards else next((kind for kind in ('npz', 'pt') if any(root.rglob(f'*.{kind}'))), '')
        self.files = shards or sorted(root.rglob(f'*.{self.layout}'))
        if not self.layout and any('_codes' in path.name for path in (root, *root.glob('imagenet*'))):
            raise UserError(
                f"{root} holds LlamaGen's codes: tokens, not latents",
                f'Take them by: python -m vq.tools.llamagen NAME CONFIG --from-codes {root} --load-model-from TOKENIZER.',
            )
        if not self.layout:
            raise UserError(
                f'there are no latents in {root}', 'It should have CLASS/NAME.npz, NAME.npz, CLASS/NAME.pt, or shard_00000.pt.'
            )

    @functools.cached_property
    def classes(self) -> dict[str, int]:
        """Numbers of the folders, in sorted order."""
        names = {path.parent.name for path in self.files if path.parent != self.root}
        return {name: number for number, name in enumerate(sorted(names))}

    @functools.cached_property
    def counts(self) -> list[int]:
        """Images of each file."""
        return [1] * len(self.files) if self.layout != 'ptshard' else [len(self._read(path).ids) for path in self.files]

    @functools.cached_property
    def ends(self) -> list[int]:
        """One past the last image of each file."""
        return list(itertools.accumulate(self.counts))

    def __len__(self) -> int:
        return self.ends[-1]

    def digest(self) -> str:
        """A hash of the names of all files and of the contents of some. Hashing all would double the time of the import."""
        total = hashlib.sha256()
        chosen = {*range(0, len(self.files), max(1, len(self.files) // LOOKED_AT)), len(self.files) - 1}
        for number, path in enumerate(self.files):
            content = file_digest(path) if number in chosen else ''
            total.update(f'{path.relative_to(self.root)} {content}\n'.encode(errors='surrogatepass'))
        return total.hexdigest()

    def read(self, start: int, stop: int) -> Latents:
        """The images ``start`` to ``stop``, over all files."""
        parts = list(self._parts(start, stop))
        logvars = [part.logvar for part in parts if part.logvar is not None]
        shapes = {(part.mean.shape[1:], part.logvar is None) for part in parts}
        if len(shapes) > 1:
            raise UserError(
                f'the files in {self.root} do not fit together: latents of {sorted(map(str, shapes))}',
                'Give one set of latents.',
            )
        return Latents(
            np.concatenate([part.mean for part in parts]),
            np.concatenate(logvars) if logvars else None,
            np.concatenate([part.category for part in parts]),
            [name for part in parts for name in part.ids],
        )

    def _parts(self, start: int, stop: int) -> Iterator[Latents]:
        ends = self.ends
        for number in range(bisect.bisect_right(ends, start), len(ends)):
            first = ends[number] - self.counts[number]
            if first >= stop:
                return
            found = self._read(self.files[number])
            rows = slice(max(0, start - first), min(self.counts[number], stop - first))
            logvar = None if found.logvar is None else found.logvar[rows]
            yield Latents(found.mean[rows], logvar, found.category[rows], found.ids[rows])

    def _read(self, path: Path) -> Latents:
        try:
            values = npz(path) if self.layout == 'npz' else torch_arrays(path)
            return self._latents(path, values)
        except plain.DAMAGE as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            why = f'{error.args[0]} is missing' if isinstance(error, KeyError) and error.args else str(error)
            raise UserError(f'{path} holds no latents: {why}', 'Copy the file again, or give another folder.') from error

    def _latents(self, path: Path, values: dict[str, Any]) -> Latents:
        several = self.layout == 'ptshard'
        if 'latent' in values:
            found = [self._checked(path, values['latent'], 1)]
            category = [int(np.asarray(values['condition']).reshape(-1)[0])] if 'condition' in values else [-1]
        else:
            names = [name for name in ('moments', 'moments_flip') if name == 'moments' or name in values]
            found = [self._checked(path, values[name], 2, several) for name in names]
            category = values['labels'] if several else [-1 if path.parent == self.root else self.classes[path.parent.name]]
        n = len(found[0])
        categories = np.asarray(category).astype(np.int64).reshape(-1)
        if any(len(part) != n for part in found) or len(categories) != n:
            raise ValueError(f'it has {[len(part) for part in found]} latents and {len(categories)} labels')
        own = str(path.relative_to(self.root).with_suffix(''))
        ids = values.get('ids') if several else [str(values['id'])] if 'id' in values else None
        if ids is None:
            ids = [f'{own}/{row:05d}' for row in range(n)] if several else [own]
        if not isinstance(ids, list) or len(ids) != n or not all(isinstance(name, str) for name in ids):
            raise ValueError('its ids are not one text for each image')
        stack = np.stack(found, axis=1)  # (n, variants, C or 2C, *cells)
        channels = self.shape[0]
        if 'latent' in values:
            return Latents(stack, None, categories, ids)
        return Latents(stack[:, :, :channels], stack[:, :, channels:], categories, ids)

    def _checked(self, path: Path, value: Any, times: int, several: bool = False) -> Array:
        """An array (n, times * C, *cells) float32; an error for another shape, or for numbers that are not finite."""
        array = np.asarray(value)
        wanted = (times * self.shape[0], *self.shape[1:])
        if not several and array.ndim == len(wanted) + 1 and len(array) == 1:
            array = array[0]
        array = array if several else array[None]
        if array.shape[1:] != wanted or array.dtype.kind != 'f':
            raise ValueError(f'its arrays are {array.dtype} {array.shape[1:]}, and the tokenizer makes {wanted}')
        found = array.astype(np.float32)
        if not np.isfinite(found).all():
            raise ValueError('it has numbers that are not finite')
        return found


def npz(path: Path) -> dict[str, Any]:
    """The arrays of an npz file."""
    bounds.check_zip_size(path)
    with np.load(io.BytesIO(read_bytes(path, LARGEST)), allow_pickle=False) as archive:
        wanted = ('moments', 'moments_flip', 'latent', 'condition', 'id')
        return {name: archive[name] for name in wanted if name in archive.files}


def torch_arrays(path: Path) -> dict[str, Any]:
    """The arrays and texts of a torch file."""
    value = plain.read_torch(path)
    if not isinstance(value, dict):
        raise ValueError(f'it is a {type(value).__name__}, not a dict')
    return {key: array_of(item) for key, item in value.items()}


def array_of(item: Any) -> Any:
    """The array of a tensor; anything else as it is."""
    if not isinstance(item, torch.Tensor):
        return item
    return (item.detach().float() if item.is_floating_point() else item.detach()).numpy()
