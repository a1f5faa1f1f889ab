"""SATIN, satellite images: 19 datasets of one collection."""

from __future__ import annotations

import functools
from pathlib import Path

from vq.core.errors import ConfigError
from vq.data.datasets.base import Transform
from vq.data.datasets.combined import ConcatDataset
from vq.data.datasets.hugging_face import HuggingFaceDataset
from vq.data.decode import PIXEL_LIMIT, Backend
from vq.data.files import folders_in, what_is_in
from vq.registries import VQDatasetRegistry

SUBSETS = (  # SATIN has 27; these are the ones that the toolkit of the recipe trains on
    'NASC-TG2',
    'WHU-RS19',
    'RSSCN7',
    'RS_C11',
    'SIRI-WHU',
    'NWPU-RESISC45',
    'PatternNet',
    'RSD46-WHU',
    'CLRS',
    'Optimal-31',
    'Airbus-Wind-Turbines-Patches',
    'USTC_SmokeRS',
    'Satellite-Images-of-Hurricane-Damage',
    'Million-AID',
    'UC_Merced_LandUse_MultiLabel',
    'MLRSNet',
    'MultiScene',
    'RSI-CB256',
    'AID_MultiLabel',
)
DEPTH = 2  # levels below root at which a subset can be: the cache of load_dataset has it in a folder of the collection


def name_in(folder: str) -> str:
    """The part of a folder's name that names a dataset: ``jonathan-roberts1___EuroSAT`` and ``datasets--NAME--EuroSAT``."""
    return folder.rpartition('___')[2].rpartition('--')[2].lower()


@VQDatasetRegistry.register_()
class SATINDataset(ConcatDataset):
    """All images of ``subsets``, each a folder below ``root`` that ``HuggingFaceDataset`` reads; classes are left out.

    ``held_out`` of each subset, every n-th image, are 'validation'. Ids are ``SUBSET/FILE/ROW``.
    """

    def __init__(
        self,
        root: str | Path = 'data/satin',
        split: str = 'train',
        transform: Transform = None,
        backend: Backend = 'pillow',
        subsets: tuple[str, ...] = SUBSETS,
        held_out: float = 0.1,
        name: str = 'satin',
        pixel_limit: int = PIXEL_LIMIT,
    ) -> None:
        self.root = Path(root).expanduser()
        parts = {
            subset: HuggingFaceDataset(
                self.root / subset, split, None, backend, subset, pixel_limit, held_out, shuffled=True, label=None, text=None
            )
            for subset in subsets
        }
        super().__init__({**parts}, None, transform, name, 'none')  # the split is that of the parts
        self._subsets = parts

    @functools.cached_property
    def counts(self) -> tuple[int, ...]:
        found = self._find()
        for subset, part in self._subsets.items():
            part.root = found[subset]
        return super().counts

    def _find(self) -> dict[str, Path]:
        """The folder of each subset."""
        if not self.root.is_dir():
            raise ConfigError(
                f'the dataset folder {self.root} does not exist', 'Make it, with one folder for each subset: docs/datasets.md.'
            )
        level, folders = [self.root], dict[str, Path]()
        for _ in range(DEPTH):
            level = [parent / name for parent in level for name in folders_in(parent)]
            for folder in level:
                folders.setdefault(name_in(folder.name), folder)
        missing = [subset for subset in self._subsets if subset.lower() not in folders]
        if missing:
            raise ConfigError(
                f'{len(missing)} of the {len(self._subsets)} subsets of SATIN are not in {self.root}: '
                f'{", ".join(missing)}; it holds: {what_is_in(self.root)}',
                'Save each as a folder of its name (docs/datasets.md), or name those that are there in subsets.',
            )
        return {subset: folders[subset.lower()] for subset in self._subsets}
