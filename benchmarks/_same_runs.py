"""Seeded runs of both checkouts, and digests of their final tensors."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _same_cases import Run
from _same_trees import python

FILES = ('model.safetensors', 'ema.safetensors')

Digests = dict[str, dict[str, str]]  # file -> tensor -> SHA-256


def train(tree: Path, runs: Sequence[Run], folder: Path, threads: int) -> dict[str, Digests]:
    """Train ``runs`` in order, by the public command. Returns the digests of the last checkpoint of each."""
    found: dict[str, Digests] = {}
    for run in runs:
        options = [*run.options, *([f'tokenizer_run::{run.upon}'] if run.upon else [])]
        given = ['--config-options', *options] if options else []
        python(tree, ['-m', 'vq.train', run.name, run.config, *given], folder, threads=threads, tiny=run.tiny)
        base = folder / 'work_dirs' / ('dry_run' if run.tiny else '')
        found[run.name] = digests(last_checkpoint(base / run.name))
        print(f'{tree}: {run.name} is trained', file=sys.stderr, flush=True)
    return found


def last_checkpoint(run: Path) -> Path:
    steps = {int(match[1]): path for path in run.glob('checkpoints/*') if (match := re.fullmatch(r'iter_(\d+)', path.name))}
    if not steps:
        raise SystemExit(f'{run} ended without a checkpoint')
    return steps[max(steps)]


def digests(checkpoint: Path) -> Digests:
    if not (checkpoint / FILES[0]).is_file():
        raise SystemExit(f'{checkpoint} has no {FILES[0]}')
    return {name: dict(tensors(checkpoint / name)) for name in FILES if (checkpoint / name).is_file()}


def tensors(file: Path) -> Iterator[tuple[str, str]]:
    """(name, SHA-256 of name, dtype, shape and bytes) of each tensor of a safetensors file, by name."""
    with file.open('rb') as stream:
        (length,) = struct.unpack('<Q', stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
        for name in sorted(set(header) - {'__metadata__'}):
            start, end = header[name]['data_offsets']
            stream.seek(8 + length + start)
            told = json.dumps([name, header[name]['dtype'], header[name]['shape']]).encode()
            yield name, hashlib.sha256(told + stream.read(end - start)).hexdigest()


def whole(found: Digests) -> str:
    """One digest of a run, from all tensor digests. These have a fixed length and are sorted by name."""
    text = '\n'.join(
        f'{file}\n' + ''.join(tensors[name] for name in sorted(tensors)) for file, tensors in sorted(found.items())
    )
    return hashlib.sha256(text.encode()).hexdigest()


def unequal(old: Digests, new: Digests) -> list[str]:
    """The tensors that differ between the two sides, with their files."""
    flat = [
        {f'{file}: {name}': value for file, tensors in side.items() for name, value in tensors.items()} for side in (old, new)
    ]
    return sorted(name for name in flat[0] | flat[1] if flat[0].get(name) != flat[1].get(name))
