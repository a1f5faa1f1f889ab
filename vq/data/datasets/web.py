"""WebDataset tars: the files of a sample lie in one tar and have one name, up to the first dot."""

from __future__ import annotations

import functools
import logging
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vq.core.errors import ConfigError, UserError, listing
from vq.core.reading import SMALL, parse_json, read_bytes
from vq.data.datasets.base import Transform
from vq.data.datasets.encoded import EncodedDataset
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import SUFFIXES, is_hidden
from vq.data.names import Names
from vq.data.tar import TarFiles, TarIndex, index_of
from vq.registries import VQDatasetRegistry

logger = logging.getLogger('vq')

SPOKEN = 10.0  # seconds between log lines of long indexing


class Group(NamedTuple):
    """The samples of one tar: numbers of members in its index; -1: a sample has none."""

    tar: TarIndex
    keys: Names
    images: np.ndarray  # (count,)
    others: Mapping[str, np.ndarray]  # extension -> (count,)


def split_name(name: str) -> tuple[str, str]:
    """(key, extension) of a member: the extension begins at the first dot of the file name. 'a.b/c.seg.png' -> 'a.b/c'."""
    folder, slash, file = name.rpartition('/')
    stem, _, extension = file.partition('.')
    return f'{folder}{slash}{stem}', extension.lower()


def group(path: Path, index: TarIndex, image: str | None, wanted: Sequence[str]) -> tuple[Group, Counter[str]]:
    """Samples of a tar, wherever in the tar their members lie, and how many members of each extension there are."""
    samples: dict[str, dict[str, int]] = {}
    seen: Counter[str] = Counter()
    for number, name in enumerate(index.names):
        key, extension = split_name(name)
        if is_hidden(name.rpartition('/')[2]) or name.startswith('__MACOSX/'):
            continue
        seen[extension] += 1
        members = samples.setdefault(key, {})
        if extension in members:
            raise ConfigError(f'{path} has two members {name}', 'Write the tar again, with one sample for each key.')
        members[extension] = number
    images = [(key, _image_in(path, key, members, image), members) for key, members in samples.items()]
    whole = [(key, number, members) for key, number, members in images if number is not None]
    return Group(
        index,
        Names(key for key, _, _ in whole),
        np.array([number for _, number, _ in whole], dtype=np.int64),
        {name: np.array([members.get(name, -1) for _, _, members in whole], dtype=np.int64) for name in wanted},
    ), seen


def _image_in(path: Path, key: str, members: Mapping[str, int], image: str | None) -> int | None:
    """The number of a sample's image, or None."""
    there = [name for name in members if (name == image if image is not None else f'.{name}' in SUFFIXES)]
    if len(there) > 1:
        raise ConfigError(
            f'the sample {key} in {path} has several images: {listing(f"{key}.{name}" for name in there)}',
            f'Say which to take: image={there[0]!r}.',
        )
    return members[there[0]] if there else None


@VQDatasetRegistry.register_()
class WebDataset(EncodedDataset):
    """Samples of the tars below ``root``, in the order of the tars' names and of their members. Ids are ``TAR/KEY``.

    - ``image``: the extension of images; None: the one of png, jpg, jpeg, bmp and webp.
    - ``category``: the extension of a class number, and ``text`` of a caption, in a text file; 'json:KEY' takes it from a JSON
      file. Samples that lack it go without; None: it is not read.
    - ``class_names``: a text file with the name of each class, one a line.

    Splits: see ``EncodedDataset``. Members need not lie beside each other. Compressed tars are an error: no member of them can
    be read alone.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str | None = None,
        pixel_limit: int = PIXEL_LIMIT,
        held_out: float = 0.0,
        shuffled: bool = False,
        image: str | None = None,
        category: str | None = 'cls',
        text: str | None = 'txt',
        class_names: str | None = None,
    ) -> None:
        super().__init__(root, split, name, transform, backend, pixel_limit, held_out, shuffled)
        self.image, self.category, self.text, self.class_names = image, category, text, class_names
        self._tars = TarFiles()

    @functools.cached_property
    def _listed(self) -> tuple[list[Path], list[Group], list[int], bool]:
        """The tars, their samples, the number of samples up to the end of each, and whether they are the split's alone."""
        paths, divided = self.files(('.tar', '.tar.gz', '.tgz'))
        wanted = {name.partition(':')[0] for name in (self.category, self.text) if name is not None}
        groups, seen, spoken = [], Counter[str](), time.monotonic()
        for number, path in enumerate(paths):
            made, members = group(path, index_of(path), self.image, sorted(wanted))
            groups.append(made)
            seen += members
            if time.monotonic() - spoken > SPOKEN:
                spoken = time.monotonic()
                logger.info('indexing tars of %s: %d of %d', self.root, number + 1, len(paths))
        ends = np.cumsum([len(made.keys) for made in groups]).tolist()
        if not ends[-1]:
            there = ', '.join(f'{count} x {name or "no extension"}' for name, count in seen.most_common(6)) or 'nothing'
            raise ConfigError(
                f'the {len(paths)} tars in {self.root} hold no image, only: {there}',
                f'Images have one of the extensions {" ".join(SUFFIXES)}; set image for another one.',
            )
        return paths, groups, ends, divided

    def find(self) -> tuple[int, bool]:
        _, _, ends, divided = self._listed
        return ends[-1], divided

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        if self.class_names is None:
            return None
        file = Path(self.class_names).expanduser()
        try:
            return tuple(line.strip() for line in read_bytes(file).decode().splitlines() if line.strip())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'the class names {file} cannot be read: {error}', 'Give a text file, one name a line.'
            ) from error

    def _at(self, place: int) -> tuple[Path, Group, int]:
        paths, groups, ends, _ = self._listed
        number = bisect_right(ends, place)
        return paths[number], groups[number], place - (ends[number - 1] if number else 0)

    def id_at(self, place: int) -> str:
        path, found, row = self._at(place)
        return f'{path.relative_to(self.root).as_posix()}/{found.keys[row]}'

    def where(self, place: int) -> str:
        path, found, row = self._at(place)
        return f'{path}/{found.tar.names[int(found.images[row])]}'

    def _member(self, path: Path, index: TarIndex, number: int) -> bytes:
        offset, size, check = int(index.offsets[number]), int(index.sizes[number]), int(index.checks[number])
        return self._tars.read(path, offset, size, check)

    def data_at(self, place: int) -> bytes:
        path, found, row = self._at(place)
        number = int(found.images[row])
        self.check_size(int(found.tar.sizes[number]))
        return self._member(path, found.tar, number)

    def _noted(self, place: int, name: str) -> Any:
        """The value of an option such as 'txt' or 'json:caption' for a sample: text, a JSON value, or None."""
        path, found, row = self._at(place)
        extension, _, key = name.partition(':')
        number = int(found.others[extension][row])
        if number < 0:
            return None
        where = f'{path}/{found.tar.names[number]}'
        if found.tar.sizes[number] > SMALL:
            raise UserError(f'{where} has {found.tar.sizes[number]:,} bytes', f'At most {SMALL:,} are read: see the tar.')
        data = self._member(path, found.tar, number)
        try:
            if not key:
                return data.decode()
            content = parse_json(data)
        except ValueError as error:
            raise UserError(f'{where} cannot be read: {error}', 'Write the tar again.') from error
        if not isinstance(content, dict):
            raise UserError(f'{where} holds no object {{...}}, of which {key} would be taken', 'Write the tar again.')
        return content.get(key)

    def category_at(self, place: int) -> int | None:
        value = None if self.category is None else self._noted(place, self.category)
        if value is None:
            return None
        names, said = self.categories, str(value).strip()
        if names is not None and said in names:
            return list(names).index(said)
        number = int(said) if said.isdecimal() and len(said) < 12 else -1
        if number < 0 or (names is not None and number >= len(names)):
            raise UserError(
                f'the class of {self.where(place)} is {value!r:.40}, which is no class number',
                'It is a number from 0, below the number of class names if there are any; category=None leaves it out.',
            )
        return number

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        value = None if self.text is None else self._noted(self.place_of(index), self.text)
        return {} if value is None else {'text': str(value).strip()}
