"""``vq convert two_stage FOLDER``: a folder of tokenizer and denoiser from the files of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.cli.convert import Lines, write_denoiser, write_tokenizer
from vq.core.errors import listing


def convert_epoch(converter: Any, kind: str, folder: Path, options: Mapping[str, Any], output: Path) -> Lines:
    """Keys that are unknown are found before the first file is written."""
    epoch = converter.read_epoch(folder, options.get('weights', 'auto'))
    found = converter.convert(epoch, **options)
    lines: Lines = [('read', f'{epoch.file} ({kind})'), ('not read', listing(epoch.left_out) or 'no file')]
    writers = {'tokenizer': write_tokenizer, 'denoiser': write_denoiser}
    for name, converted in found.items():
        lines += [(name, ''), *writers[name](converted, kind, epoch.file, output / f'{name}.safetensors')[1:]]
    return lines
