"""The images below one folder as a split that is packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vq.data.datasets.base import FileDataset, FileIndex
from vq.data.datasets.folder import label_by_folder
from vq.data.files import OF_SPLITS, find_images
from vq.data.names import Names
from vq.io.beton import refuse_beton


class SplitFolder(FileDataset):
    """All images below ``folder``, at any depth. With ``classes`` the folders in it are the classes.

    Ids are those of ``FolderDataset`` if the folder is named like its split: ``train/CLASS/IMAGE``. ``siblings``: the folders
    of the other splits, so that a class has the same number in all of them.
    """

    def __init__(self, folder: Path, split: str, classes: bool = True, siblings: Sequence[Path] = ()) -> None:
        super().__init__(folder, split, Path(folder).expanduser().absolute().parent.name or 'folder')
        self.classes, self.siblings = classes, siblings
        name = self.root.absolute().name
        self.prefix = name if OF_SPLITS.get(name) == split else split

    def find(self) -> FileIndex:
        refuse_beton(self.root)
        paths = find_images(self.root)
        if not self.classes:
            return FileIndex(Names(paths))
        others = [str(folder.expanduser().absolute()) for folder in self.siblings]
        return label_by_folder(self.root, '', paths, ['', *others])

    def id_of(self, index: int) -> str:
        return f'{self.prefix}/{super().id_of(index)}'
