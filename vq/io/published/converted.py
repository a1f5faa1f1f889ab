"""Converted tokenizers: a safetensors file with the keys of a task, and in its metadata what builds the tokenizer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.published.keymap import Converted

FORMAT = 'vq.tokenizer'
FORMAT_VERSION = 1
LONGEST = 200_000  # characters of a config; ours take about a thousand


@dataclasses.dataclass(frozen=True)
class About:
    """The metadata of a converted file. It comes from outside: the config is to be checked before it is built."""

    path: Path
    kind: str
    tokenizer: dict[str, Any]
    image_size: int
    source: str  # name of the file it was made from
    source_sha256: str
    shapes: dict[str, tuple[int, ...]]  # of all its tensors


def write_converted(path: Path, converted: Converted, kind: str, source: str, source_sha256: str) -> None:
    """Write ``path``, whole or not at all."""
    metadata = {
        'vq.format': FORMAT,
        'vq.format_version': str(FORMAT_VERSION),
        'vq.kind': kind,
        'vq.tokenizer': json.dumps(converted.tokenizer, sort_keys=True),
        'vq.image_size': str(converted.image_size),
        'vq.source': source,
        'vq.source_sha256': source_sha256,
    }
    with atomic_file(path, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, metadata)


def read_about(path: Path) -> About:
    """What a converted file says of itself; its tensors are not read."""
    header = tensorfile.read_header(path)
    notes = header.metadata
    if notes.get('vq.format') != FORMAT:
        raise UserError(
            f'{path} is a file of weights, and does not say what tokenizer they belong to',
            'Give a converted file, a run, or a name of the catalog; or use the weights with a config: --load-model-from.',
        )
    if notes.get('vq.format_version') != str(FORMAT_VERSION):
        raise UserError(
            f'{path} has format {notes.get("vq.format_version", "?"):.20}, and this vq reads {FORMAT_VERSION}',
            'Convert the file again with this vq: python tools/convert_checkpoints.py.',
        )
    try:
        text, size = notes['vq.tokenizer'], notes['vq.image_size']
        if len(text) > LONGEST or len(size) > 9:
            raise ValueError('it is too long')
        config, image_size = json.loads(text), int(size)
        if not isinstance(config, dict) or image_size < 1:
            raise ValueError('it is no config')
    except (ValueError, KeyError, RecursionError) as error:
        raise tensorfile.damaged(path, f'what it says of its tokenizer cannot be read ({error})') from error
    return About(
        path,
        notes.get('vq.kind', ''),
        config,
        image_size,
        notes.get('vq.source', ''),
        notes.get('vq.source_sha256', ''),
        {name: entry.shape for name, entry in header.entries.items()},
    )
