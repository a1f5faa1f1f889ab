"""Views of an image that are tokenized: the image itself, its mirror image, ten crops."""

from __future__ import annotations

from torch import Tensor

from vq.core.errors import ConfigError

CROPS = tuple(f'crop{number}' for number in range(10))
VIEWS = ('center', 'flip', *CROPS)


def crop_place(number: int, height: int, width: int, size: int) -> tuple[bool, int, int]:
    """Crop ``number``: whether it is taken from the mirror image, its top, its left.

    The order is torchvision's TenCrop: top left, top right, bottom left, bottom right and centre of the image, then the same
    five of the mirror image. So crop 5, top left of the mirror image, is crop 1 mirrored.
    """
    mirrored, place = divmod(number, 5)
    if place == 4:  # Python rounds halves to even, and so does torchvision
        return bool(mirrored), round((height - size) / 2), round((width - size) / 2)
    bottom, right = divmod(place, 2)
    return bool(mirrored), bottom * (height - size), right * (width - size)


def view(image: Tensor, name: str, size: int | None = None) -> Tensor:
    """Images (..., H, W) -> the view ``name`` of each; crops are (..., size, size)."""
    if name == 'center':
        return image
    if name == 'flip':
        return image.flip(-1)
    height, width = image.shape[-2:]
    assert size is not None
    mirrored, top, left = crop_place(CROPS.index(name), height, width, size)
    return (image.flip(-1) if mirrored else image)[..., top : top + size, left : left + size].contiguous()


def check_views(names: tuple[str, ...], size: int | None) -> None:
    """Raise unless all views have one size: either crops with a crop size, or other views without one."""
    unknown = [name for name in names if name not in VIEWS]
    if unknown or not names:
        raise ConfigError(f'token variants are {names}', f'Choose from {VIEWS}.')
    crops = [name for name in names if name in CROPS]
    if len(crops) not in (0, len(names)) or bool(crops) != (size is not None):
        raise ConfigError(
            f'token variants are {names} with crop_size {size}',
            "Crops need a crop_size and cannot be combined with other variants; 'center' and 'flip' have no crop_size.",
        )
