"""Views of a picture that tokens are kept of: the picture itself, its mirror image, ten crops."""

from __future__ import annotations

from torch import Tensor

from vq.core.errors import ConfigError

CROPS = tuple(f'crop{number}' for number in range(10))
VIEWS = ('center', 'flip', *CROPS)


def crop_place(number: int, height: int, width: int, size: int) -> tuple[bool, int, int]:
    """Of crop ``number``: whether it is of the mirror image, its top, its left.

    The order is torchvision's TenCrop: top left, top right, bottom left, bottom right, centre of the picture, then the same
    five of the mirror image. So crop 5, top left of the mirror image, shows what crop 1 shows, mirrored.
    """
    mirrored, place = divmod(number, 5)
    if place == 4:  # Python rounds halves to even, and so does torchvision
        return bool(mirrored), round((height - size) / 2), round((width - size) / 2)
    bottom, right = divmod(place, 2)
    return bool(mirrored), bottom * (height - size), right * (width - size)


def view(image: Tensor, name: str, size: int | None = None) -> Tensor:
    """Images (..., H, W) -> those of the view ``name``; crops are (..., size, size)."""
    if name == 'center':
        return image
    if name == 'flip':
        return image.flip(-1)
    height, width = image.shape[-2:]
    assert size is not None
    mirrored, top, left = crop_place(CROPS.index(name), height, width, size)
    return (image.flip(-1) if mirrored else image)[..., top : top + size, left : left + size].contiguous()


def check_views(names: tuple[str, ...], size: int | None) -> None:
    """Crops need their size and the others have none; one set of tokens has one shape."""
    unknown = [name for name in names if name not in VIEWS]
    if unknown or not names:
        raise ConfigError(f'token variants are {names}', f'Choose from {VIEWS}.')
    crops = [name for name in names if name in CROPS]
    if len(crops) not in (0, len(names)) or bool(crops) != (size is not None):
        raise ConfigError(
            f'token variants are {names} with crop_size {size}',
            "Crops go with a crop_size and with no other variants; 'center' and 'flip' go without.",
        )
