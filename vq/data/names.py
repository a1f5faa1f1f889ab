"""Names of files: a list of them, stored in two flat arrays, and which texts are one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

import numpy as np


def is_name(name: str) -> bool:
    """Whether a text of an annotation file can be the name of a file or folder."""
    return '/' not in name and name.isprintable() and name not in ('', '.', '..')


class Names:
    """A sequence of names in memory that forked worker processes share.

    A million Python strings would be copied page by page into every worker, because reading one changes its reference count.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode() for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)  # (count + 1,)
        self._text = np.frombuffer(b''.join(encoded), dtype=np.uint8)

    @classmethod
    def of(cls, ends: np.ndarray, text: np.ndarray) -> Self:
        """The names of arrays that ``arrays`` gave; they can come from a file."""
        if ends.ndim != 1 or not len(ends) or ends[0] != 0 or ends[-1] != len(text) or (np.diff(ends) < 0).any():
            raise ValueError('the ends of names do not fit their text')
        made = cls(())
        made._ends, made._text = ends.astype(np.int64, copy=False), text.astype(np.uint8, copy=False)
        return made

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The end of each name in the text, after a 0: (count + 1,) int64; the text in UTF-8: (bytes,) uint8."""
        return self._ends, self._text

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f'there is no name {index} among {len(self)}')
        return self._text[self._ends[index] : self._ends[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
