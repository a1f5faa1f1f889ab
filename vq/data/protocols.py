"""Named protocols of evaluation by layouts: which layouts of which data, and how many images of each are drawn.

    coco-stuff-3097x5   COCO 2017, the validation images with 3 to 8 boxes of more than 2 % of the area: 5 images of each
    coco-stuff-2048x1   2,048 of these, the first in the order of ids: 1 image of each
    vg-5097x1           Visual Genome, the test split, at most 10 boxes: 1 image of each
    layouts-NxK         the first N layouts of any data, in the order of ids: K images of each

Figures of one protocol can be compared if the SHA-256 of their ids is the same. Papers that draw 2,048 images do not say which
of the layouts they take, so the order of ids is a choice made here; ``SubsetDataset(ids=FILE)`` takes another one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vq.core.conditions import Condition
from vq.core.errors import UserError, nearest
from vq.data.collate import collate
from vq.data.datasets.base import ImageDataset
from vq.data.datasets.selected import SelectedDataset
from vq.data.decode import BadImage
from vq.data.geometry import Geometry
from vq.interfaces import Dataset, Sample

WHAT = ('boxes', 'box_categories', 'text')  # of a sample
GENERIC = re.compile(r'layouts-([1-9]\d{0,8})x([1-9]\d{0,5})')


@dataclasses.dataclass(frozen=True)
class Protocol:
    """``layouts`` of the ``kept`` samples that a dataset has after ``filter``, and ``samples`` images of each."""

    name: str
    layouts: int
    samples: int
    kept: int | None = None  # None: any number from ``layouts``
    dataset: str | None = None  # the class of the dataset; None: any
    filter: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # attributes of the dataset


COCO_STUFF: dict[str, Any] = {'split': 'validation', 'year': 2017, 'kinds': ('instances', 'stuff')}
COCO_STUFF |= {'smallest': 0.02, 'objects': (3, 8)}
PROTOCOLS = {
    found.name: found
    for found in (
        Protocol('coco-stuff-3097x5', 3097, 5, 3097, 'COCOStuffDataset', COCO_STUFF),
        Protocol('coco-stuff-2048x1', 2048, 1, 3097, 'COCOStuffDataset', COCO_STUFF),
        Protocol('vg-5097x1', 5097, 1, 5097, 'VisualGenomeDataset', {'split': 'test', 'objects': 10}),
    )
}


class Layouts(NamedTuple):
    """N layouts."""

    ids: list[str]
    boxes: Condition  # N rows: boxes, box_categories, boxes_mask
    text: list[str] | None


def protocol_named(name: str) -> Protocol:
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if (counts := GENERIC.fullmatch(name)) is None:
        raise UserError(
            f"there is no protocol '{name}'{nearest(name, PROTOCOLS)}",
            f'There are {", ".join(PROTOCOLS)}, and layouts-NxK: K images of each of the first N layouts.',
        )
    return Protocol(name, int(counts[1]), int(counts[2]))


def places_of(dataset: Dataset, protocol: Protocol, limit: int | None = None) -> list[int]:
    """The indices of the layouts of a protocol, in the order of ids. ``limit``: only the first of them, for a trial, of
    whatever number there is."""
    check_filter(dataset, protocol)
    there = len(dataset)
    whole = there >= protocol.layouts if protocol.kept is None else there in (protocol.kept, protocol.layouts)
    if not whole and limit is None:
        wanted = f'{protocol.layouts:,} or more' if protocol.kept is None else f'{protocol.kept:,}'
        raise UserError(
            f'the protocol {protocol.name} is of a dataset with {wanted} layouts, and {named(dataset)} has {there:,}',
            f'Take {"the complete files, or " if protocol.kept else ""}--protocol layouts-{there}x{protocol.samples}; '
            f'--limit {there} tries this protocol.',
        )
    order = sorted(range(there), key=dataset.id_of)
    return order[: protocol.layouts if limit is None else min(limit, protocol.layouts)]


def check_filter(dataset: Dataset, protocol: Protocol) -> None:
    """An error unless the samples of the dataset, or of that which a subset is taken of, are those that the protocol means."""
    inner: Any = dataset
    while isinstance(inner, SelectedDataset):
        inner = inner.dataset
    if protocol.dataset is not None and type(inner).__name__ != protocol.dataset:
        raise UserError(
            f'the protocol {protocol.name} is of {protocol.dataset}, and this is {named(dataset)}, a {type(inner).__name__}',
            f'Take a config of that data, or --protocol layouts-{len(dataset)}x{protocol.samples}.',
        )
    other = [name for name, value in protocol.filter.items() if getattr(inner, name) != value]
    if other:
        differs = ', '.join(f'{name} {getattr(inner, name)!r} in place of {protocol.filter[name]!r}' for name in other)
        raise UserError(
            f'{named(dataset)} is not what the protocol {protocol.name} means: it has {differs}',
            'Set these of .validator.dataset, or take a protocol layouts-NxK, which is of any data.',
        )


def named(dataset: Dataset) -> str:
    return f'{dataset.name} ({dataset.split})'


def sample_at(dataset: Dataset, place: int, size: tuple[int, int]) -> Sample:
    """A sample as a protocol sees it: the whole image, resized to ``size`` (height, width), whatever the transform of the
    dataset. So no box is cut away. Nothing is drawn at random: of several captions it is the first."""
    if not isinstance(dataset, ImageDataset):
        raise UserError(f'{named(dataset)} is a {type(dataset).__name__}', 'A protocol needs a dataset of images with boxes.')
    try:
        sample = dataset.original(place)
        if sample.get('boxes') is None or sample.get('box_categories') is None:
            raise UserError(f'{sample["id"]} of {named(dataset)} has no boxes', 'A protocol needs a dataset with boxes.')
        return Geometry.of(sample).resize(*size).move(sample)
    except BadImage as error:
        raise UserError(f'{named(dataset)}: {error}', 'A protocol needs all of its images: copy this one again.') from error


def layouts_at(dataset: Dataset, places: Sequence[int], size: tuple[int, int]) -> Layouts:
    """The layouts with these indices, in pixels of images of ``size``. Images are read, for some data have no sizes."""
    samples = (sample_at(dataset, place, size) for place in places)
    batch = collate([Sample({name: sample.get(name) for name in ('id', *WHAT)}) for sample in samples])
    boxes = Condition(boxes=batch.boxes, box_categories=batch.box_categories, boxes_mask=batch.boxes_mask)
    return Layouts(batch.id, boxes, batch.text)


def ids_text(ids: Sequence[str]) -> str:
    """The ids, one a line: a file of ``SubsetDataset(ids=FILE)``, whose SHA-256 is ``ids_digest``."""
    return ''.join(f'{name}\n' for name in ids)


def ids_digest(ids: Sequence[str]) -> str:
    return hashlib.sha256(ids_text(ids).encode()).hexdigest()
