"""Maps of labels: PNG files whose values are classes of pixels, not colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vq.data.decode import PIXEL_LIMIT, PNG, BadImage, check_chunks, file_bytes, load_pixels, open_image

UNLABELLED = 255  # the label of pixels without a class
MODES = ('1', 'L', 'P')  # Pillow's modes with whole numbers of up to 8 bits; those of a palette are its places


def decode_labels(path: str | Path, classes: int, pixel_limit: int = PIXEL_LIMIT) -> np.ndarray:
    """A map (H, W) uint8 of labels below ``classes``, or ``UNLABELLED``. ``BadImage`` for anything else."""
    name = str(path)
    data = file_bytes(name, pixel_limit)
    if not data.startswith(PNG):  # JPEG would change labels
        raise BadImage(name, f'is not a PNG file of labels (it begins with {data[:12]!r})')
    image = open_image(data, name, pixel_limit)
    if cut := check_chunks(data, name):
        raise BadImage(name, f'cannot be decoded: it is truncated in its {cut} chunk')
    if image.mode not in MODES:
        raise BadImage(name, f'has the mode {image.mode}, and one label of 8 bits for each pixel is needed')
    load_pixels(image, name)
    labels = np.asarray(image).astype(np.uint8)
    worst = int(labels[labels != UNLABELLED].max(initial=0))
    if worst >= classes:
        raise BadImage(name, f'has the label {worst}, and labels are below {classes}, or {UNLABELLED}')
    return labels
