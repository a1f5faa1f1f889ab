"""Samples, the declarations of their fields, and datasets."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from vq.core.errors import ConfigError, UserError

if TYPE_CHECKING:
    from vq.core.records import Batch  # imports torch, which vq data check does without

Collate = Literal['image', 'stack', 'pad', 'list']
Moves = Literal['image', 'mask', 'boxes', 'points', 'cannot']


@dataclasses.dataclass(frozen=True)
class Field:
    """How a field of samples becomes a field of a batch, and what a crop, a resize or a mirror does to it.

    - ``collate``: 'image': (H, W, 3) uint8 of one size -> (B, 3, H, W). 'stack': numbers, or arrays of one shape,
      -> (B, *shape). 'pad': arrays (N, *shape), whose N may differ, -> (B, M, *shape), zeros after the rows of a sample, and
      ``NAME_mask`` (B, M) bool, True at its rows. 'list': a list.
    - ``dtype``: of the tensor, as numpy calls it; None: that of the values.
    - ``device``: False: the tensor stays on the host when the batch goes to the device.
    - ``optional``: a batch goes without the field if a sample lacks it. False: that is an error, unless all lack it.
    - ``moves``: 'image', 'mask' (H, W, ...), 'boxes' (N, 4), 'points' (N, 2) follow the geometry of a transform. 'cannot':
      such a transform is an error. None: the field does not depend on places in the image.
    - ``rows_of``: the padded field with the same rows. They are dropped together, and share one ``_mask``.
    - ``mirrored``: of a mask: pairs of labels that a mirror exchanges, such as those of the left and the right eye.
    """

    collate: Collate
    dtype: str | None = None
    device: bool = True
    optional: bool = False
    moves: Moves | None = None
    rows_of: str | None = None
    mirrored: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.collate not in get_args(Collate) or self.moves not in (None, *get_args(Moves)):
            raise ConfigError(
                f'a field is declared with collate={self.collate!r} and moves={self.moves!r}',
                f'collate is one of {", ".join(get_args(Collate))}; moves is None or one of {", ".join(get_args(Moves))}.',
            )
        if self.rows_of is not None and self.collate != 'pad':
            raise ConfigError(f"a field has rows_of={self.rows_of!r}, and collate='{self.collate}'", "Write collate='pad'.")
        if self.mirrored and self.moves != 'mask':
            raise ConfigError(f'a field has mirrored={self.mirrored!r}, and moves={self.moves!r}', "Write moves='mask'.")


NONE_DECLARED: Mapping[str, Field] = MappingProxyType({})


class Sample(dict[str, Any]):
    """One sample of a dataset. Only ``id`` is required: a sample of tokens has no ``image``.

    ================== ==============================================================================
    field              value
    ================== ==============================================================================
    id                 text, stable and unique
    image              (H, W, 3) uint8
    category           class number
    text, path         text
    boxes              (N, 4) x1, y1, x2, y2 in pixels; the image is [0, W] x [0, H]
    box_categories     (N,) class numbers of the boxes
    mask               (H, W) integers, a label for each pixel
    points             (N, 2) x, y in pixels; the centre of the first pixel is (0.5, 0.5)
    points_inside      (N,) bool, from transforms: whether a point is inside the image
    tokens             (*tokens.shape) integers
    latent             (C, *cells)
    extra              dict of notes, which a batch has as lists by name
    ================== ==============================================================================

    Others are declared in ``fields`` of the dataset, and ``Dataset.make_sample`` gives a sample these declarations.
    """

    fields: Mapping[str, Field] = NONE_DECLARED

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f'the sample {self.get("id", "without an id")} has no {name}',
            'Take a dataset of images: datasets of tokens have none.'
            if name == 'image'
            else f'Take a dataset that gives {name}, or leave out what needs it.',
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, those of the image or of the mask."""
        height, width = self['mask' if self.get('image') is None and self.get('mask') is not None else 'image'].shape[:2]
        return int(height), int(width)

    def but(self, **changes: Any) -> Self:
        """A copy with changed fields."""
        changed = type(self)(self)
        changed.update(changes)
        if self.fields:
            changed.fields = self.fields
        return changed


class Dataset:
    """A split of a collection of images. ``load`` can raise ``vq.data.decode.BadImage``."""

    name: str
    split: str
    categories: Sequence[str] | None = None  # names of the classes of images, by number
    label_names: Sequence[str] | None = None  # names of the classes of boxes, or of the labels of masks, by number
    fields: Mapping[str, Field] = NONE_DECLARED  # of its samples, in addition to those of vq/data/fields.py

    def __len__(self) -> int:
        raise NotImplementedError

    def id_of(self, index: int) -> str:
        """Stable, unique, and known without opening the image."""
        raise NotImplementedError

    def load(self, index: int, stream: random.Random) -> Sample:
        """The transformed sample; every random choice is drawn from ``stream``."""
        raise NotImplementedError

    def path_of(self, index: int) -> str | None:
        """The path of the image, for messages; None if the image is not a file of its own."""
        return None

    def original(self, index: int) -> Sample:
        """The sample before any transform. A dataset around another one passes it on."""
        raise UserError(
            f'the dataset {type(self).__name__} does not give samples before their transform',
            f'Take a dataset of images; or, if it is one, add a method original(index) to {type(self).__name__}.',
        )

    def load_batch(self, indices: Sequence[int], reading: Callable[[int], object] = lambda index: None) -> Batch | None:
        """The batch of ``load`` of these samples, in a faster way than one by one; None: there is none for them.

        Only for samples that no random choice changes. It can raise ``BadImage``; then they are loaded one by one. ``reading``
        is told each index before its sample is read, so that the file at which a worker dies is known.
        """
        return None

    def encoded(self, index: int) -> bytes | None:
        """The bytes of the image file of a sample, whose decoded image is that of ``original``.

        None: there is no such file. Packing keeps these bytes, so that JPEG is not compressed a second time.
        """
        return None

    def size_of(self, index: int) -> tuple[int, int]:
        """(height, width) of the image before any transform, without decoding it. Aspect-ratio buckets need it."""
        raise UserError(
            f'the dataset {type(self).__name__} does not know the sizes of its images without decoding them',
            'Use a folder of images or packed images, or set aspect_buckets to None.',
        )

    def make_sample(self, **values: Any) -> Sample:
        """A sample that knows the declared fields of this dataset."""
        made = Sample(values)
        if self.fields:
            made.fields = self.fields
        return made

    def fingerprint(self) -> str:
        """A short digest of the contents of the split: it changes if files are added, removed or renamed."""
        raise NotImplementedError
