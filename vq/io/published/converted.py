"""Writing converted tokenizers: a safetensors file with the keys of a task, and the tokenizer's config in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

from vq.io import tensorfile
from vq.io.atomic import atomic_file
from vq.io.published.about import FORMAT, FORMAT_VERSION, About, read_about
from vq.io.published.keymap import Converted
from vq.io.spec import Spec

__all__ = ['About', 'read_about', 'write_converted']


def write_converted(path: Path, converted: Converted, kind: str, source: str, source_sha256: str, spec: Spec) -> None:
    """Write ``path`` atomically."""
    metadata = {
        'vq.format': FORMAT,
        'vq.format_version': str(FORMAT_VERSION),
        'vq.kind': kind,
        'vq.tokenizer': json.dumps(converted.tokenizer, sort_keys=True),
        'vq.image_size': json.dumps(converted.image_size),
        'vq.spec': json.dumps(spec.as_json()),
        'vq.source': source,
        'vq.source_sha256': source_sha256,
    }
    with atomic_file(path, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, metadata)
