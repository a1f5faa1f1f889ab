"""Collating samples into a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vq.core.errors import UserError
from vq.core.random import key_of
from vq.core.records import Batch
from vq.interfaces import Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """The default ``collate``, for datasets without a ``collate`` method.

    The batch has an optional field if every sample has it; ``extra`` becomes a list per name.
    """
    _check(samples)
    height, width = samples[0]['image'].shape[:2]
    image = torch.empty((len(samples), 3, height, width), dtype=torch.uint8)
    pixels = image.numpy()
    for row, sample in enumerate(samples):
        pixels[row] = sample['image'].transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W), the only copy
    category, boxes, mask, tokens = (_all(samples, name) for name in ('category', 'boxes', 'mask', 'tokens'))
    extras = [sample.get('extra') or {} for sample in samples]
    return Batch(
        image=image,
        id=[sample['id'] for sample in samples],
        key=torch.tensor([key_of(sample['id']) for sample in samples]),
        category=None if category is None else torch.tensor(category),
        text=_all(samples, 'text'),
        boxes=None if boxes is None else torch.from_numpy(np.stack(boxes)),
        mask=None if mask is None else torch.from_numpy(np.stack(mask)),
        path=_all(samples, 'path'),
        tokens=None if tokens is None else torch.from_numpy(np.stack(tokens).astype(np.int64)),
        extra={name: [extra.get(name) for extra in extras] for name in sorted(set().union(*extras))},
    )


def _all(samples: Sequence[Sample], name: str) -> list[Any] | None:
    values = [sample.get(name) for sample in samples]
    return None if any(value is None for value in values) else values


def _check(samples: Sequence[Sample]) -> None:
    for sample in samples:
        image = sample['image']
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
            raise UserError(
                f'the image of {sample["id"]} is {what}, and a uint8 array (H, W, 3) is needed',
                'Correct the transform or the dataset that made it.',
            )
    first = samples[0]
    for sample in samples:
        if sample['image'].shape != first['image'].shape:
            (height, width), (other_height, other_width) = first['image'].shape[:2], sample['image'].shape[:2]
            raise UserError(
                f'images of different sizes in one batch: {first["id"]} is {width} x {height}, '
                f'{sample["id"]} is {other_width} x {other_height}',
                "Add a transform to the dataset, such as dict(type='VQTransformRegistry.none', image_size=256).",
            )
