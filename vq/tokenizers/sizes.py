"""The check of the image size of a tokenizer."""

from __future__ import annotations

from vq.core.errors import UserError


def check_image_size(height: int, width: int, downsampling: int) -> None:
    """Refuse images that do not divide into cells."""
    if height % downsampling or width % downsampling or not height or not width:
        raise UserError(
            f'images of {height} x {width} pixels do not divide into cells of {downsampling} pixels',
            f'Choose image_size as a multiple of {downsampling}.',
        )
