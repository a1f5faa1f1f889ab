"""The rows of parquet and Arrow files, one at a time. Arrow files are mapped into memory.

Of parquet whole row groups are read, and kept in memory until ``KEPT`` others were: random access to large ones is slow.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

from vq.core.errors import ConfigError, UserError, listing
from vq.core.reading import open_regular

KEPT = 4  # row groups of a column
DAMAGED = (OSError, ValueError, LookupError, TypeError, NotImplementedError)  # pyarrow's errors derive from these
LARGEST = 2**31  # bytes that a column of a row group may have
LONGEST = 10_000_000  # characters of the description of columns


def arrow(module: str = 'pyarrow') -> ModuleType:
    """The optional package."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f'parquet and Arrow files need pyarrow: {error}', 'pip install "vq[data]"') from error


class Tables:
    """Rows of several files, one file after the other. All have the columns of the first."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.schema: Any = None
        self._mapped: dict[Path, list[Any]] = {}  # Arrow file -> its record batches
        self._kept: OrderedDict[tuple[int, int, str], Any] = OrderedDict()  # (file, group, column) -> values
        self._ends: list[list[int]] = []  # of each file: the number of rows up to the end of each group
        for path in paths:
            self._ends.append([*accumulate(self._groups(path))])
        self._totals = [*accumulate(ends[-1] if ends else 0 for ends in self._ends)]

    def __len__(self) -> int:
        return self._totals[-1]

    @property
    def columns(self) -> dict[str, Any]:
        """Name -> type."""
        return {field.name: field.type for field in self.schema}

    def features(self) -> Mapping[str, Any]:
        """What the package ``datasets`` notes about the columns, in the file or in a file beside it."""
        notes = [(self.schema.metadata or {}).get(b'huggingface', b'')]
        beside = self.paths[0].parent / 'dataset_info.json'
        if beside.is_file() and beside.stat().st_size < LONGEST:
            notes.append(beside.read_bytes())
        for note in notes:
            try:
                content = json.loads(note[:LONGEST] or b'{}')
            except (ValueError, RecursionError):
                continue  # only names of classes are lost: the columns themselves are in the file
            info = content.get('info', content) if isinstance(content, dict) else {}
            features = info.get('features') if isinstance(info, dict) else None
            if isinstance(features, dict):
                return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
        return {}

    def place_of(self, row: int) -> tuple[int, int]:
        """The number of the file, and the row in it."""
        file = bisect_right(self._totals, row)
        return file, row - (self._totals[file - 1] if file else 0)

    def cell(self, row: int, column: str) -> Any:
        file, inner = self.place_of(row)
        ends = self._ends[file]
        group = bisect_right(ends, inner)
        values = self._values(file, group, column)
        return values[inner - (ends[group - 1] if group else 0)].as_py()

    def _groups(self, path: Path) -> list[int]:
        """The number of rows of each group of a file, whose columns are compared with those of the first."""
        try:
            with open_regular(path):
                pass  # a pipe would block pyarrow
            if path.suffix == '.parquet':
                opened = arrow('pyarrow.parquet').ParquetFile(path)
                schema, metadata = opened.schema_arrow, opened.metadata
                counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            else:
                batches = self._batches(path)
                schema, counts = batches[0].schema if batches else None, [batch.num_rows for batch in batches]
        except DAMAGED as error:
            raise _damaged(path, error) from error
        if self.schema is None:
            self.schema = schema
        elif schema is not None and not self.schema.equals(schema):
            both = ' and '.join(listing(map(str, columns)) for columns in (schema, self.schema))
            raise ConfigError(
                f'{path} has other columns than {self.paths[0]}: {both}',
                'Set root to the folder of one dataset.',
            )
        return counts

    def _batches(self, path: Path) -> list[Any]:
        """The record batches of an Arrow file, mapped into memory: a stream, as ``datasets`` writes, or a file."""
        if path not in self._mapped:
            package, ipc = arrow(), arrow('pyarrow.ipc')
            source = package.memory_map(str(path))
            try:
                reader = ipc.open_stream(source)
                self._mapped[path] = [*reader]
            except package.ArrowInvalid:
                reader = ipc.open_file(source)
                self._mapped[path] = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        return self._mapped[path]

    def _values(self, file: int, group: int, column: str) -> Any:
        """The column of a group, checked: offsets in a damaged file could point anywhere."""
        key = (file, group, column)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        path = self.paths[file]
        try:
            found = self._read(path, group, column)
            found.validate(full=True)
        except DAMAGED as error:
            raise _damaged(path, error) from error
        self._kept[key] = found
        if path.suffix == '.parquet':
            for old in [old for old in self._kept if old[2] == column][:-KEPT]:
                del self._kept[old]
        return found

    def _read(self, path: Path, group: int, column: str) -> Any:
        if path.suffix != '.parquet':
            return self._batches(path)[group].column(column)
        opened = arrow('pyarrow.parquet').ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        parts = opened.metadata.row_group(group)
        size = sum(
            parts.column(number).total_uncompressed_size
            for number in range(parts.num_columns)
            if parts.column(number).path_in_schema.split('.')[0] == column
        )
        if size > LARGEST:
            raise ConfigError(
                f'{path} has {size:,} bytes of {column} in one row group, and at most {LARGEST:,} are read',
                'Write it again with smaller row groups: row_group_size of pyarrow.parquet.write_table.',
            )
        found = opened.read_row_group(group, columns=[column], use_threads=False)  # workers are threads enough
        return found.column(column).combine_chunks()

    def __getstate__(self) -> dict[str, Any]:
        """A worker process that is not forked maps the files itself."""
        return {**self.__dict__, '_mapped': {}, '_kept': OrderedDict()}


def _damaged(path: Path, error: Exception) -> ConfigError:
    text = ' '.join(str(error).split())
    return ConfigError(f'{path} cannot be read: {text[:200]}', 'Copy the file again.')
