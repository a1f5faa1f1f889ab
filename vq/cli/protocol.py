"""``vq.sample --protocol NAME``: the layouts of a validation split, several images of each, and files to measure them by."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.core.errors import UserError, listing

if TYPE_CHECKING:
    from vq.data.protocols import Protocol
    from vq.interfaces.conditions import Asked
    from vq.runners.sampler import ImageSampler

OTHERS = ('layout', 'classes', 'text', 'num_samples', 'sweep')  # options that say what to draw


def protocol_of(options: argparse.Namespace) -> Protocol | None:
    """The protocol that is asked for. Errors come before anything is loaded."""
    if options.protocol is None:
        if options.limit is not None:
            raise UserError('--limit is of a protocol, and none is given', 'Give --num-samples, or --protocol NAME.')
        return None
    from vq.data.protocols import protocol_named

    both = [f'--{name.replace("_", "-")}' for name in OTHERS if getattr(options, name) is not None]
    if both:
        raise UserError(f'a protocol says what is drawn, and {listing(both)} is given too', 'Leave it out.')
    if options.format != 'png':
        raise UserError(f'a protocol writes PNG files, and --format is {options.format}', 'Leave --format out.')
    if options.limit is not None and options.limit < 1:
        raise UserError(f'--limit is {options.limit}', 'Give 1 layout or more.')
    return protocol_named(options.protocol)


class Asking:
    """What a protocol asks of a sampler, and what it writes when all is drawn."""

    def __init__(self, protocol: Protocol, sampler: ImageSampler, limit: int | None, asked: Asked, labels: int | None) -> None:
        from vq.core.random import python_stream
        from vq.data.protocols import ids_digest, layouts_at, named, places_of
        from vq.interfaces.drawing import kinds_of

        dataset, kinds = sampler.dataset, kinds_of(sampler.model)
        if 'layout' not in kinds:
            raise UserError(
                f'a protocol asks for layouts, and this model takes {listing(kinds) or "no condition"}',
                'Take a model of layouts, such as that of configs/layout/digits.py.',
            )
        self.dataset, self.places = dataset, places_of(dataset, protocol, limit)
        first = self.places[0]
        size = dataset.load(first, python_stream('protocol', first)).size  # that of the model, by the dataset's transform
        found = layouts_at(dataset, self.places, size)
        assert found.boxes.box_categories is not None and found.boxes.boxes_mask is not None
        largest = int(found.boxes.box_categories.max()) if found.boxes.box_categories.numel() else 0
        if labels is not None and largest >= labels:
            raise UserError(
                f'{named(dataset)} has boxes of class {largest}, and the model has {labels} classes of boxes',
                'Take the data that the model was trained on.',
            )
        if 'text' in kinds and found.text is None:
            raise UserError(
                f'the model reads texts, and {named(dataset)} has none', 'Give it captions: captions=caption for COCO.'
            )
        sampler.asked = asked._replace(layout=found.boxes, text=found.text if 'text' in kinds else None)
        sampler.samples = len(self.places) * protocol.samples
        self.about: dict[str, Any] = {
            'name': protocol.name,
            'dataset': type(dataset).__name__,
            'data': named(dataset),
            'filter': dict(protocol.filter),
            'kept_by_filter': len(dataset),
            'layouts': len(self.places),
            'samples': protocol.samples,
            'complete': limit is None,  # not a trial
            'boxes': int(found.boxes.boxes_mask.sum()),
            'image_size': list(size),  # of whole images, resized
        }
        self.producer = {'protocol': {'name': protocol.name, 'ids_sha256': ids_digest(found.ids)}}

    def write(self, folder: Path, more: dict[str, Any]) -> Path:
        """Layouts, true images and the record, beside the samples. Returns the place of the record."""
        from vq.data.protocol_folder import RECORD, write_truth

        write_truth(folder, self.dataset, self.places, {**self.about, **more})
        return folder / RECORD
