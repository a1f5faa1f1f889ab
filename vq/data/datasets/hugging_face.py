"""Datasets of the package ``datasets`` on the local disk, and parquet files. The package itself is not needed."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core.errors import ConfigError, UserError, listing
from vq.core.reading import read_json
from vq.data.datasets.base import Transform
from vq.data.datasets.encoded import EncodedDataset
from vq.data.decode import PIXEL_LIMIT, Backend, BadImage
from vq.data.tables import Tables
from vq.registries import VQDatasetRegistry

IMAGES, LABELS, TEXTS = ('image', 'img', 'jpg', 'png', 'webp'), ('label',), ('text', 'caption', 'TEXT')  # names of columns
STATE = 'state.json'


def saved_files(folder: Path, paths: list[Path]) -> list[Path]:
    """The files of a dataset that ``save_to_disk`` wrote, in its order."""
    try:
        state = read_json(folder / STATE)
        names = [entry['filename'] for entry in state['_data_files']]
        selected = state.get('_indices_data_files') or state.get('_indices_files')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f'{folder / STATE} cannot be read: {error!r}', 'Save the dataset again.') from error
    there = {path.name: path for path in paths if path.parent == folder}
    if missing := [str(name) for name in names if name not in there]:
        raise ConfigError(f'{folder} lacks {len(missing)} of {len(names)} files: {listing(missing, 4)}', 'Copy it again.')
    if selected:
        raise ConfigError(f'{folder} is a selection of rows of other files', 'Save it again after flatten_indices().')
    return [there[name] for name in names]


@VQDatasetRegistry.register_()
class HuggingFaceDataset(EncodedDataset):
    """The rows of parquet or Arrow files below ``root``: ``save_to_disk``, the cache of ``load_dataset``, or a repository.

    - ``image``: the column of images: their bytes, or a struct with ``bytes``; None: the one that is declared as images, or
      named so.
    - ``label``: the column of class numbers, and ``text`` of captions; 'auto': ``label``, if it has whole numbers, and text,
      caption or TEXT. None: there is none.

    Splits are folders, or words in the names of files (``train-00000-of-00002.parquet``); else see ``EncodedDataset``. Ids are
    ``FILE/ROW``. No code of a dataset is run, and nothing is fetched.
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
        label: str | None = 'auto',
        text: str | None = 'auto',
    ) -> None:
        super().__init__(root, split, name, transform, backend, pixel_limit, held_out, shuffled)
        self.image, self.label, self.text = image, label, text

    @functools.cached_property
    def _opened(self) -> tuple[Tables, bool]:
        paths, divided = self.files(('.arrow', '.parquet'), skipped=('cache-', 'tmp', 'indices'))
        arrows = [path for path in paths if path.suffix == '.arrow']
        folders = sorted({path.parent for path in arrows})
        if len(folders) > 1:
            named = listing((str(path.relative_to(self.root)) for path in folders), 4)
            raise ConfigError(
                f'{self.root} holds {len(folders)} datasets: {named}',
                'Set root to the folder of one of them.',
            )
        paths = arrows or paths  # parquet beside Arrow files is what they were made of
        if arrows and (folders[0] / STATE).is_file():
            paths = saved_files(folders[0], arrows)
        tables = Tables(paths)
        if not len(tables):
            raise ConfigError(
                f'the {len(paths)} files in {self.root} hold no rows, such as {paths[0].name}', 'Copy them again.'
            )
        return tables, divided

    @property
    def tables(self) -> Tables:
        return self._opened[0]

    def find(self) -> tuple[int, bool]:
        tables, divided = self._opened
        _ = self._columns
        return len(tables), divided

    @functools.cached_property
    def _columns(self) -> tuple[str, str | None, str | None]:
        """The columns of image, label and text."""
        kinds, features = self.tables.columns, self.tables.features()
        asked = {'image': self.image, 'label': self.label, 'text': self.text}
        for option, name in asked.items():
            if name not in (None, 'auto', *kinds):
                raise ConfigError(
                    f'{self.root} has no column {name}: it has {listing(kinds)}', f'Set {option} to one of them.'
                )
        declared = [name for name, feature in features.items() if feature.get('_type') == 'Image' and name in kinds]
        likely = [name for name in (*declared, *IMAGES) if name in kinds and _holds_bytes(kinds[name])]
        image = self.image or next(iter(likely), None)
        if image is None or not _holds_bytes(kinds[image]):
            what = listing(f'{name} ({kind})' for name, kind in kinds.items())
            hint = 'Set image to a column of bytes, or of structs with bytes.'
            if any(name.lower() == 'url' for name in kinds):
                hint = 'It lists addresses of images: fetch these first, with img2dataset for instance.'
            raise ConfigError(f'{self.root} has no column of images: it has {what}', hint)
        numbers = [name for name in LABELS if name in kinds and str(kinds[name]).startswith(('int', 'uint'))]
        texts = [name for name in TEXTS if str(kinds.get(name)) in ('string', 'large_string')]
        label = next(iter(numbers), None) if self.label == 'auto' else self.label
        return image, label, next(iter(texts), None) if self.text == 'auto' else self.text

    @functools.cached_property
    def categories(self) -> Sequence[str] | None:  # type: ignore[override]
        label = self._columns[1]
        feature: Mapping[str, Any] = {} if label is None else self.tables.features().get(label, {})
        names = feature.get('names')
        return tuple(map(str, names)) if isinstance(names, list) and names else None

    def id_at(self, place: int) -> str:
        file, row = self.tables.place_of(place)
        return f'{self.tables.paths[file].relative_to(self.root).with_suffix("").as_posix()}/{row}'

    def data_at(self, place: int) -> bytes:
        value = self.tables.cell(place, self._columns[0])
        if isinstance(value, dict):
            if value.get('bytes') is None and value.get('path'):
                raise BadImage('', f'is not in the file, which names only its path {value["path"]!r:.60}')
            value = value.get('bytes')
        if not isinstance(value, bytes):
            raise BadImage('', 'is not there: the row has no image')
        self.check_size(len(value))
        return value

    def category_at(self, place: int) -> int | None:
        label = self._columns[1]
        value = None if label is None else self.tables.cell(place, label)
        if value is None or (isinstance(value, int) and value == -1):  # datasets notes an unknown class as -1
            return None
        if not isinstance(value, int) or value < 0 or (self.categories is not None and value >= len(self.categories)):
            raise UserError(
                f'the class of {self.where(place)} is {value!r:.40}, which is no class number',
                'Set label to the column of class numbers, or to None.',
            )
        return value

    def annotations_of(self, index: int) -> Mapping[str, Any]:
        text = self._columns[2]
        value = None if text is None else self.tables.cell(self.place_of(index), text)
        return {} if value is None else {'text': str(value)}


def _holds_bytes(kind: Any) -> bool:
    said = str(kind)
    return said in ('binary', 'large_binary') or (said.startswith('struct<') and 'bytes: ' in said)
