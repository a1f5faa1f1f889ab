"""``log.jsonl``: one JSON object per line, written in addition to any other logger of a run.

A line has ``step`` and ``kind``. A resume removes the lines after the checkpoint's step, so the file is that of an
uninterrupted run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from vq.core import collectives, output
from vq.io import atomic

ScalarListener = Callable[[int, str, dict[str, Any]], None]
PictureListener = Callable[[int, str, Tensor], None]


class Journal:
    """Scalars go to the file and to listeners, pictures to listeners; only the main rank writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scalar_listeners: list[ScalarListener] = []
        self.picture_listeners: list[PictureListener] = []
        self._torn = False  # the last line of the file may be incomplete

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        if not collectives.is_main():
            return
        start = '\n' if self._torn else ''
        try:
            with self.path.open('a') as file:
                file.write(start + json.dumps({'step': step, 'kind': kind, **values}) + '\n')
            self._torn = False
        except OSError as error:  # a full disk
            output.count_lost(self.path.name, error)
            self._torn = True
        for listener in self.scalar_listeners:
            listener(step, kind, values)

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """``image``: (3, H, W) uint8 on the host."""
        for listener in self.picture_listeners:
            listener(step, name, image)

    def rewind(self, step: int) -> None:
        """Remove the lines after ``step``, and a line that a kill cut off."""
        if not collectives.is_main() or not self.path.exists():
            return
        kept = [
            line
            for line in self.path.read_text().splitlines()
            if (record := parse(line)) is not None and record['step'] <= step
        ]
        atomic.write_text(self.path, ''.join(line + '\n' for line in kept))


def parse(line: str) -> dict[str, Any] | None:
    """A line of the journal, or None if it is incomplete."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and 'step' in record else None


def read(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """All complete lines of a journal, or those of one kind."""
    records = [record for line in path.read_text().splitlines() if (record := parse(line)) is not None]
    return [record for record in records if kind is None or record['kind'] == kind]
