"""The check of the image size of a tokenizer."""

from __future__ import annotations

from vq.core.errors import UserError
from vq.core.specs import Size, in_words


def cells_of(size: Size, downsampling: int) -> tuple[int, int]:
    """The cells (h, w) of an image of ``size`` (H, W)."""
    if len(size) != 2:
        raise UserError(f'images of {in_words(size)}', 'This tokenizer takes images: a size is (height, width).')
    check_image_size(size[0], size[1], downsampling)
    return size[0] // downsampling, size[1] // downsampling


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
