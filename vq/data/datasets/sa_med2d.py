"""SA-Med2D-20M: slices of medical volumes, one PNG each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vq.core.errors import ConfigError
from vq.data.datasets.base import FileDataset, FileIndex, Transform
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import find_images, what_is_in
from vq.data.names import Names
from vq.io.json_stream import keys
from vq.registries import VQDatasetRegistry

FILE = 'SAMed2D_v1.json'


@VQDatasetRegistry.register_()
class SAMed2DDataset(FileDataset):
    """All images, without splits: ``images/MODALITY--DATASET--VOLUME--SLICE.png``.

    They have the order of ``SAMed2D_v1.json``, which lies in ``root`` or in ``root/annotations``; without this file, that of
    their names. ``root`` can also be the folder above ``SAMed2Dv1``, as the archive has it.
    """

    def __init__(
        self,
        root: str | Path = 'data/sa_med2d',
        transform: Transform = None,
        backend: Backend = 'pillow',
        name: str = 'sa_med2d_20m',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        super().__init__(root, 'all', name, transform, backend, pixel_limit)

    def find(self) -> FileIndex:
        inner = 'SAMed2Dv1/' if (self.root / 'SAMed2Dv1').is_dir() else ''
        folder = self.root / inner
        if folder.is_dir() and not (folder / 'images').is_dir():
            raise ConfigError(
                f'{folder} has no folder images; it holds: {what_is_in(folder)}',
                f'Unpack the archive of SA-Med2D-20M there: images/*.png, and {FILE}.',
            )
        for file in (folder / FILE, folder / 'annotations' / FILE):
            if file.is_file():
                return FileIndex(Names(f'{inner}{name}' for name in self._listed(file)))
        return FileIndex(Names(find_images(self.root, f'{inner}images')))

    def _listed(self, file: Path) -> Iterator[str]:
        found = False
        for name in keys(file, 'Copy the file again, or remove it.'):
            if not name.startswith('images/') or '/../' in f'/{name}/' or not name.isprintable():
                raise ConfigError(f'{file} lists {name!r:.80}, which is no image in the folder images', 'Copy the file again.')
            found = True
            yield name
        if not found:
            raise ConfigError(f'{file} lists no image', 'Copy the file again, or remove it.')
