"""A list of names, stored in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class Names:
    """A sequence of names in memory that forked worker processes share.

    A million Python strings would be copied page by page into every worker, because reading one changes its reference count.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode() for name in names]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)  # (count + 1,)
        self._text = np.frombuffer(b''.join(encoded), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f'there is no name {index} among {len(self)}')
        return self._text[self._ends[index] : self._ends[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
