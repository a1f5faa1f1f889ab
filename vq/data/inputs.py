"""Images as a caller has them -> the batches that a model takes; and images of a model -> the form that a caller wants.

====================  ==========================  ==================================================================
given                 layout                      values
====================  ==========================  ==================================================================
path, Pillow image    any size                    decoded, resized and cropped as in the validation of the run
NumPy array           (H, W), (H, W, C),          uint8, uint16, or float with ``value_range``
                      (B, H, W, C), C: 1, 3, 4
tensor                (C, H, W), (B, C, H, W),    uint8, or float in ``value_range`` (default: [-1, 1])
                      C: 1, 3
list or tuple         of one of these             arrays and tensors in it have one size and one type
====================  ==========================  ==================================================================

Grey images get three equal channels, alpha is dropped: see ``decode.py``. Arrays and tensors are never resized.

**The range of floats is never guessed.** ``value_range`` '-1..1' or '0..1' is a statement that is checked: values outside of
the range are an error. Without it a float array is refused if it has no negative value, because such an array can be in
[0, 1]. A float tensor is in [-1, 1] by contract; the first one without a negative value is taken so, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vq.core.errors import UserError, nearest
from vq.core.random import python_stream
from vq.core.records import to_float, to_uint8
from vq.data.datasets.base import ImageDataset
from vq.data.decode import BadImage, decode_image, pixels_of, to_8_bits
from vq.registries import VQTransformRegistry

ValueRange = Literal['-1..1', '0..1']
Form = Literal['tensor', 'numpy', 'pil']
Images: TypeAlias = Tensor | np.ndarray | Image.Image | str | Path | Sequence[Any]

PIXELS = 2**20  # of a batch, unless ``batch_size`` is given: 16 images of 256 x 256
LIMITS: dict[ValueRange, tuple[float, float]] = {'-1..1': (-1.0, 1.0), '0..1': (0.0, 1.0)}
SLACK = 1e-3  # beyond the limits: what rounding in half precision adds
FORMS = 'Give paths, Pillow images, arrays (H, W, 3), or tensors (B, 3, H, W): see vq/data/inputs.py.'
SAY = "say value_range='0..1' or value_range='-1..1'"


class Pictures(ImageDataset):
    """Paths and Pillow images as a dataset, with the transform of the validation."""

    def __init__(self, pictures: Sequence[str | Path | Image.Image], transform: Any) -> None:
        super().__init__('given', 'all', transform)
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def id_of(self, index: int) -> str:
        picture = self.pictures[index]
        return f'<image {index}>' if isinstance(picture, Image.Image) else str(picture)

    def read(self, index: int) -> np.ndarray:
        picture = self.pictures[index]
        if isinstance(picture, Image.Image):
            return pixels_of(picture, self.id_of(index))
        return decode_image(Path(picture).expanduser())


class Intake:
    """Reads images for one model. ``image_size`` (height, width) and ``preprocessing`` are those of the run's spec."""

    def __init__(
        self,
        image_size: tuple[int, int],
        preprocessing: Mapping[str, Any] | None = None,
        value_range: ValueRange | None = None,
        batch_size: int | None = None,
    ) -> None:
        check_choice('value_range', value_range, (None, *get_args(ValueRange)))
        if batch_size is not None and batch_size < 1:
            raise UserError(f'batch_size is {batch_size}', 'Give 1 or more, or None.')
        self.image_size, self.value_range, self.batch_size = image_size, value_range, batch_size
        self.transform = dict((preprocessing or {}).get('transform') or {})
        if not self.transform and image_size[0] == image_size[1]:
            self.transform = {'type': 'VQTransformRegistry.none', 'image_size': image_size[0]}
        self._warned = False

    def batches(self, images: Images, device: torch.device, value_range: ValueRange | None = None) -> Iterator[Tensor]:
        """Float (b, 3, H, W) in [-1, 1] on ``device``, b at most ``batch_size``."""
        check_choice('value_range', value_range, (None, *get_args(ValueRange)))
        value_range = value_range or self.value_range
        kind, given = sort(images)
        if kind == 'pictures':
            yield from (to_float(batch.to(device)) for batch in self._read(given))
            return
        whole: Tensor = given if kind == 'tensor' else from_array(given)
        if whole.ndim != 4 or whole.shape[1] not in (1, 3):
            shape = tuple(images.shape if isinstance(images, Tensor) else whole.shape)
            raise UserError(f'images have the shape {shape}', 'Give a tensor (B, 3, H, W) or (3, H, W).')
        if not len(whole):
            raise UserError('no image is given', FORMS)
        if whole.dtype != torch.uint8 and not whole.is_floating_point():
            raise UserError(
                f'images are a tensor of {str(whole.dtype).removeprefix("torch.")}',
                f'Give uint8 (images.to(torch.uint8) for values of 0 to 255), or floats: {SAY}.',
            )
        scaled = self._check(whole, value_range, kind == 'tensor') if whole.is_floating_point() else None
        for part in torch.split(whole.detach(), self.rows(*whole.shape[-2:])):
            part = part.to(device).expand(-1, 3, -1, -1)
            yield to_float(part) if scaled is None else part.float() * 2 - 1 if scaled == '0..1' else part.float()

    def __str__(self) -> str:
        height, width = self.image_size
        how = str(self.transform.get('type', '')).rpartition('.')[2]
        how = {'none': 'others are resized and cropped at the centre', '': 'others are refused'}.get(how, f'transform {how}')
        return f'{height} x {width} ({how})'

    def rows(self, height: int, width: int) -> int:
        """Images in a batch."""
        return self.batch_size or max(1, PIXELS // (height * width))

    def _read(self, pictures: Sequence[Any]) -> Iterator[Tensor]:
        transform = VQTransformRegistry.build(self.transform, 'preprocessing') if self.transform else None
        dataset, size = Pictures(pictures, transform), self.rows(*self.image_size)
        for start in range(0, len(dataset), size):
            found = [self._load(dataset, index) for index in range(start, min(start + size, len(dataset)))]
            yield torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)

    def _load(self, dataset: Pictures, index: int) -> np.ndarray:
        try:
            found: np.ndarray = dataset.load(index, python_stream('given', index))['image']
        except BadImage as error:
            raise UserError(
                f'{error}', 'See whether it is the right file; another program may be able to convert it.'
            ) from error
        if found.shape[:2] != self.image_size:
            raise UserError(
                f'{dataset.id_of(index)} is {found.shape[1]} x {found.shape[0]} pixels after the preprocessing of the run, '
                f'whose images are {self.image_size[1]} x {self.image_size[0]}',
                'Resize it to that size.',
            )
        return found

    def _check(self, images: Tensor, value_range: ValueRange | None, by_contract: bool) -> ValueRange:
        """The range that the floats are in; an error if they are not."""
        low, high = (float(value) for value in torch.aminmax(images.detach()))
        limits = LIMITS[value_range or '-1..1']
        if not (limits[0] - SLACK <= low and high <= limits[1] + SLACK):  # also for NaN
            raise UserError(
                f'images are floats from {low:.6g} to {high:.6g}, and {list(limits)} is needed'
                + (f' for value_range={value_range!r}' if value_range else ''),
                remedy(low, high),
            )
        if value_range is not None or low < 0:
            return value_range or '-1..1'
        said = f'images are floats from {low:.6g} to {high:.6g}, which can be a part of [-1, 1] as well as [0, 1]'
        if not by_contract:
            raise UserError(said, f'{SAY.capitalize()}, or give uint8.')
        if not self._warned:
            self._warned = True
            warnings.warn(f'{said}. Tensors are taken as [-1, 1]; {SAY} to be sure.', stacklevel=2)
        return '-1..1'


def sort(images: Images) -> tuple[Literal['pictures', 'array', 'tensor'], Any]:
    """What is given, in one of three forms: a list of paths and Pillow images, an array, a tensor (B, C, H, W)."""
    if isinstance(images, Tensor):
        return 'tensor', images[None] if images.ndim == 3 else images
    if isinstance(images, np.ndarray):
        return 'array', images
    if isinstance(images, str | Path | Image.Image):
        return 'pictures', [images]
    if not isinstance(images, list | tuple):
        raise UserError(f'images are of the type {type(images).__name__}', FORMS)
    if not images:
        raise UserError('no image is given', FORMS)
    for kind, name in ((str | Path | Image.Image, 'pictures'), (np.ndarray, 'array'), (Tensor, 'tensor')):
        if isinstance(images[0], kind):
            for index, image in enumerate(images):
                if not isinstance(image, kind):
                    raise UserError(
                        f'image 0 is of the type {type(images[0]).__name__}, image {index} {type(image).__name__}',
                        'Give a list of one kind: paths and Pillow images, or arrays, or tensors.',
                    )
            if name == 'pictures':
                return 'pictures', images
            differing = {(tuple(image.shape), str(image.dtype)): index for index, image in enumerate(reversed(images))}
            if len(differing) > 1:
                (first, one), (second, other) = [*differing][:2]
                raise UserError(
                    f'images of a list differ: {first} {one} and {second} {other}',
                    'Resize arrays and tensors to one size. Paths and Pillow images are resized here.',
                )
            if name == 'array':
                return 'array', np.stack([image[:, :, None] if image.ndim == 2 else image for image in images])
            return 'tensor', torch.stack(list(images))
    raise UserError(f'images are a list of the type {type(images[0]).__name__}', FORMS)


def from_array(images: np.ndarray) -> Tensor:
    """(H, W), (H, W, C) or (B, H, W, C) -> (B, 1 or 3, H, W). Alpha is dropped, uint16 becomes uint8."""
    shape = images.shape
    if images.ndim == 2:
        images = images[:, :, None]
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise UserError(
            f'images are an array of the shape {shape}',
            'Arrays are (H, W), (H, W, C) or (B, H, W, C) with 1, 3 or 4 channels. Channels first: torch.from_numpy(images).',
        )
    if images.dtype == np.uint16:
        images = to_8_bits(images)
    elif images.dtype != np.uint8 and images.dtype.kind != 'f':
        raise UserError(f'images are an array of {images.dtype}', f'Give uint8, uint16, or float: {SAY}.')
    kept = images[..., :3].astype(images.dtype.newbyteorder('='), copy=False)
    kept = np.ascontiguousarray(kept.astype(np.float32, copy=False) if kept.dtype.kind == 'f' else kept)
    return torch.from_numpy(kept if kept.flags.writeable else kept.copy()).permute(0, 3, 1, 2)


def remedy(low: float, high: float) -> str:
    """What to do about floats in another range."""
    if low < -SLACK and high <= 1 + SLACK and low >= -1 - SLACK:
        return "They can be in [-1, 1]: value_range='-1..1'."
    if low >= 0 and 1 + SLACK < high <= 255:
        return 'Values of 0 to 255 are given as uint8: images.round().to(torch.uint8), or images.round().astype(numpy.uint8).'
    return 'Scale them to [-1, 1], or give uint8. Images normalized by a mean and a deviation have to be scaled back first.'


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    if value not in choices:
        near = nearest(str(value), [choice for choice in choices if choice])
        raise UserError(f'{name} is {value!r}{near}', f'It can be {", ".join(map(repr, choices))}.')


def check_form(to: str) -> None:
    """Refuse a form that there is not, before the work is done."""
    check_choice('to', to, get_args(Form))


def give(images: Tensor, to: Form) -> Any:
    """uint8 or float [-1, 1] (B, 3, H, W) -> a uint8 tensor, an array (B, H, W, 3), or a list of Pillow images."""
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    if to == 'tensor':
        return pixels
    array = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
    return array if to == 'numpy' else [Image.fromarray(image) for image in array]


def take_tokens(tokens: Any, codebook_size: int, shape: tuple[int, ...]) -> Tensor:
    """Tokens as a tensor, an array or nested lists -> int64 (B, ...), checked. ``shape``: that of one image, such as (16, 16).

    Maps of another size are other images, so only the number of axes is compared. Without the first axis: one image.
    """
    try:
        found = tokens if isinstance(tokens, Tensor) else torch.as_tensor(np.asarray(tokens))
    except (TypeError, ValueError) as error:
        raise UserError(
            f'tokens are of the type {type(tokens).__name__}', 'Give integers, in the shape that tokenize gives.'
        ) from error
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise UserError(f'tokens are {found.dtype}', 'Tokens are integers; latents go to decode.')
    if not found.numel():
        raise UserError(f'tokens have the shape {tuple(found.shape)}: there are none', 'Give the tokens of one image or more.')
    found = found.long()
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= codebook_size:
        raise UserError(
            f'tokens reach from {low} to {high}, and the codebook has {codebook_size} codes',
            'Use the tokenizer that made these tokens.',
        )
    if found.ndim == len(shape) and found.shape == shape:
        found = found[None]
    if found.ndim != len(shape) + 1:
        raise UserError(f'tokens have the shape {tuple(found.shape)}', f'Give (B, {", ".join(map(str, shape))}).')
    return found
