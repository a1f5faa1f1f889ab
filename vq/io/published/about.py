"""The description of a converted tokenizer: the metadata of its safetensors file. Works without torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vq.core.errors import UserError
from vq.core.reading import parse_json
from vq.core.specs import size_of
from vq.io import tensorfile
from vq.io.sniff import sniff
from vq.io.spec import RANGE, Spec
from vq.io.spec import loads as read_spec

FORMAT = 'vq.tokenizer'
FORMAT_VERSION = 1
LONGEST = 200_000  # characters of a config; ours take about a thousand


def _image_size(given: Any) -> int | tuple[int, ...]:
    """A number of pixels, or [height, width]."""
    sides = given if isinstance(given, list) and len(given) == 2 else [given]
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError('it has no image size')
    return sides[0] if len(sides) == 1 else tuple(sides)


@dataclasses.dataclass(frozen=True)
class About:
    """The metadata of a converted file. It is untrusted: its config must be checked before it is built."""

    path: Path
    kind: str
    tokenizer: dict[str, Any]
    image_size: int | tuple[int, ...]  # a number is that of a square
    source: str  # name of the file it was made from
    source_sha256: str
    shapes: dict[str, tuple[int, ...]]  # of all its tensors
    spec: Spec


def read_about(path: Path) -> About:
    """The metadata of a converted file; its tensors are not read."""
    if sniff(path) != 'safetensors':
        raise UserError(
            f'{path} is a torch file, and does not describe its tokenizer',
            f'Convert it: python -m vq.tools.convert_checkpoints KIND {path}',
        )
    header = tensorfile.read_header(path)
    notes = header.metadata
    if notes.get('vq.format') != FORMAT:
        raise UserError(
            f'{path} is a file of weights, and does not describe their tokenizer',
            'Give a converted file, a run, or a name of the catalog; or use the weights with a config: --load-model-from.',
        )
    if notes.get('vq.format_version') != str(FORMAT_VERSION):
        raise UserError(
            f'{path} has format {notes.get("vq.format_version", "?"):.20}, and this vq reads {FORMAT_VERSION}',
            'Convert the file again with this vq: python -m vq.tools.convert_checkpoints.',
        )
    try:
        text, size = notes['vq.tokenizer'], notes['vq.image_size']
        if len(text) > LONGEST or len(size) > 20:
            raise ValueError('it is too long')
        config, sides = parse_json(text), size_of(image_size := _image_size(parse_json(size)))
        if not isinstance(config, dict):
            raise ValueError('it is not a config')
    except (ValueError, KeyError) as error:
        raise tensorfile.damaged(path, f'its description of the tokenizer cannot be read ({error})') from error
    found = Spec('tokenizer', (sides[0], sides[1]), {'range': list(RANGE), 'transform': None})
    if 'vq.spec' in notes:  # older converted files have no spec
        found = read_spec(notes['vq.spec'], str(path))
        if found.image != sides:
            raise tensorfile.damaged(path, f'its images are {found.image} in one place and {sides} in another')
    return About(
        path,
        notes.get('vq.kind', ''),
        config,
        image_size,
        notes.get('vq.source', ''),
        notes.get('vq.source_sha256', ''),
        {name: entry.shape for name, entry in header.entries.items()},
        found,
    )
