"""``log.jsonl``: one JSON object per line, written in addition to any other logger of a run.

A line has ``step`` and ``kind``. A resume removes the lines after the checkpoint's step, so the file is that of an
uninterrupted run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vq.core import collectives, output
from vq.core.errors import UserError
from vq.core.reading import parse_json, read_bytes
from vq.io import atomic
from vq.runners.histograms import Histogram

LARGEST = 2**30  # bytes; a line takes about 300

logger = logging.getLogger('vq')

ScalarListener = Callable[[int, str, dict[str, Any]], None]
PictureListener = Callable[[int, str, Tensor], None]
HistogramListener = Callable[[int, Mapping[str, Histogram]], None]


class Journal:
    """Scalars go to the file and to listeners, pictures and histograms to listeners; only the main rank writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scalar_listeners: list[ScalarListener] = []
        self.picture_listeners: list[PictureListener] = []
        self.histogram_listeners: list[HistogramListener] = []
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

    def histograms(self, step: int, values: Mapping[str, Histogram]) -> None:
        for listener in self.histogram_listeners:
            listener(step, values)

    def rewind(self, step: int) -> None:
        """Remove the lines after ``step``, and a line that a kill cut off."""
        if not collectives.is_main() or not self.path.exists():
            return
        lines = _lines(self.path)
        records = [parse(line) for line in lines]
        lost = sum(record is None for record in records[:-1])  # the last line may be one that a kill cut off
        if lost:
            logger.warning('%s: %d damaged lines are left out', self.path, lost)
        kept = [line for line, record in zip(lines, records, strict=True) if record is not None and record['step'] <= step]
        atomic.write_bytes(self.path, b''.join(line + b'\n' for line in kept))


def _lines(path: Path) -> list[bytes]:
    try:
        return read_bytes(path, LARGEST).splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}', 'Move it away, or see its permissions.') from error


def parse(line: str | bytes) -> dict[str, Any] | None:
    """A line of the journal, or None if it is incomplete or damaged."""
    try:
        record = parse_json(line)
    except ValueError:
        return None
    sound = isinstance(record, dict) and type(record.get('step')) is int and isinstance(record.get('kind'), str)
    return record if sound else None


def read(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """All complete lines of a journal, or those of one kind."""
    records = [record for line in _lines(path) if (record := parse(line)) is not None]
    return [record for record in records if kind is None or record['kind'] == kind]
