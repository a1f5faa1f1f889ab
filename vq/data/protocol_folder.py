"""The folder of a protocol: what was asked for, what is true, what was drawn.

protocol.json             the protocol, its filter, the number of layouts and the SHA-256 of their ids; it is written last
ids.txt                   the ids, one a line, of which layout j is that of line j
layouts/000000.txt        layout j, a file of ``vq.sample --layout``
truth/000000.png          its image in the data set
samples/000000.png        image i is of layout i mod N: the N images of the first round, then those of the second, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import UserError
from vq.core.reading import read_bytes, read_json
from vq.data.decode import BadImage, decode_image
from vq.data.protocols import ids_digest, ids_text, sample_at
from vq.interfaces import Dataset
from vq.io import atomic
from vq.io.layout_text import layout_text
from vq.io.layouts import read_layouts
from vq.io.pictures import save_png

FORMAT, VERSION = 'vq.layout_protocol', 1
RECORD, IDS = 'protocol.json', 'ids.txt'
FOLDERS = ('layouts', 'truth', 'samples')
LARGEST = 2**30  # bytes of a list of ids
AGAIN = 'Run the same vq.sample --protocol again: it draws and writes what is missing.'


def write_truth(folder: Path, dataset: Dataset, places: Sequence[int], about: Mapping[str, Any]) -> None:
    """Layouts, true images and ids of the samples with these indices, and ``about``, the record of the protocol."""
    height, width = about['image_size']
    names = tuple(dataset.label_names or ())
    for name in FOLDERS[:2]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    ids = []
    for number, place in enumerate(places):
        sample = sample_at(dataset, place, (height, width))
        boxes, categories = sample['boxes'].tolist(), sample['box_categories'].tolist()
        atomic.write_text(folder / 'layouts' / f'{number:06d}.txt', layout_text(boxes, categories, (height, width), names))
        picture = torch.from_numpy(sample['image'].copy()).permute(2, 0, 1)
        save_png(folder / 'truth' / f'{number:06d}.png', picture)
        ids.append(sample['id'])
    atomic.write_text(folder / IDS, ids_text(ids))
    head = {'format': FORMAT, 'format_version': VERSION, **about}
    atomic.write_json(folder / RECORD, {**head, 'ids_sha256': ids_digest(ids), 'label_names': names})


class DrawnLayouts:
    """The folder, read: N ``layouts``, K ``samples`` of each, and the ``record`` of the protocol."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / RECORD
        try:
            self.record: dict[str, Any] = read_json(file)
            self.layouts, self.samples = int(self.record['layouts']), int(self.record['samples'])
            self.names, height_width = tuple(self.record['label_names']), self.record['image_size']
            self.size = (int(height_width[0]), int(height_width[1]))
            known = self.record['format'] == FORMAT and self.record['format_version'] == VERSION
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(f'{file} is no record of a protocol: {error!r:.120}', f'It is written last. {AGAIN}') from error
        if not known or self.layouts < 1 or self.samples < 1:
            raise UserError(f'{file} is a record of another form', AGAIN)
        try:
            self.ids = read_bytes(self.folder / IDS, LARGEST).decode().splitlines()
        except (OSError, ValueError) as error:
            raise UserError(f'the ids of {self.folder} cannot be read: {error}', AGAIN) from error
        if len(self.ids) != self.layouts or ids_digest(self.ids) != self.record.get('ids_sha256'):
            raise UserError(f'{self.folder / IDS} is not the list of ids that {RECORD} names by its SHA-256', AGAIN)

    def true(self, number: int) -> Tensor:
        """The true image of a layout, (3, H, W) uint8."""
        return _picture(self.folder / 'truth' / f'{number:06d}.png')

    def drawn(self, number: int) -> Tensor:
        """All images of a layout, (K, 3, H, W) uint8."""
        rounds = range(number, self.layouts * self.samples, self.layouts)
        return torch.stack([_picture(self.folder / 'samples' / f'{place:06d}.png') for place in rounds])

    def layout(self, number: int) -> Condition:
        """A layout, as one row."""
        return read_layouts(self.folder / 'layouts' / f'{number:06d}.txt', self.names, len(self.names) or None, self.size)


def _picture(path: Path) -> Tensor:
    try:
        return torch.from_numpy(decode_image(path).copy()).permute(2, 0, 1)
    except (BadImage, OSError) as error:
        raise UserError(f'a picture of the protocol cannot be read: {error}', AGAIN) from error
