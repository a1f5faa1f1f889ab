"""Composed configs in run folders, read as data: JSON, or Python text of ``PyConfig.dumps`` in older runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vq.core import config_json, config_text, trust

_MARKER = 'COMPLETE'  # the file that marks a checkpoint as complete, see vq/io/atomic.py


def in_run_folder(path: Path) -> bool:
    """Whether a file lies in a checkpoint, or next to the checkpoints of a run."""
    folder = path.parent
    return (folder / _MARKER).is_file() or next((folder / 'checkpoints').glob(f'iter_*/{_MARKER}'), None) is not None


def json_twin(path: Path) -> Path | None:
    """``NAME.json`` to read for ``NAME.py``: if ``NAME.py`` does not exist, or is an older file in a run folder."""
    twin = path.with_suffix('.json')
    if path.suffix == '.py' and twin.is_file() and (not path.is_file() or in_run_folder(path)):
        return twin
    return None


def is_data(path: Path) -> bool:
    """Whether a config file is read as data, and not executed."""
    return path.suffix == '.json' or in_run_folder(path)


def read(path: Path) -> dict[str, Any]:
    """The config in a JSON file or in an older run's Python file. A Python file with code is executed, which needs trust."""
    if path.suffix == '.json':
        return config_json.read(path)
    try:
        return config_text.read(path)
    except config_text.NotDumped as error:
        if not trust.granted():
            raise trust.Untrusted(f'{error.message}; it would have to be executed') from error
        from vq.core.config import PyConfig, plain

        found: dict[str, Any] = plain(PyConfig.execute(path))
        return found


def read_trusted(path: Path) -> dict[str, Any]:
    """The config in a file; an error if its ``custom_imports`` are not trusted."""
    content = read(path)
    trust.trusted_modules(content.get('custom_imports', []), str(path))
    return content
