"""The check of the image size of a tokenizer."""

from __future__ import annotations

from vq.core.errors import UserError


def check_image_size(height: int, width: int, downsampling: int, where: str = '') -> None:
    """Refuse images that do not divide into cells. ``where``: the part of the config that sets the size."""
    if height % downsampling or width % downsampling or not height or not width:
        raise UserError(
            f'images of {height} x {width} pixels{where and f", the image_size of {where},"} do not divide into cells of '
            f'{downsampling} pixels, the downsampling of the tokenizer',
            f'Choose image_size as a multiple of {downsampling}: {nearest_sizes(height, downsampling)}.',
        )


def nearest_sizes(size: int, downsampling: int) -> str:
    """The multiples on both sides of ``size``; a multiple itself comes first."""
    below = size // downsampling * downsampling
    return f'{below} or {below + downsampling}' if below else str(downsampling)
