"""The records that travel between parts. B images, C channels, H x W pixels, h x w cells, K codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from vq.core.errors import UserError


def require_image(image: Tensor | None) -> Tensor:
    """The images of a batch; an error if it has none."""
    if image is None:
        raise UserError(
            'images are needed here, and the batch has none',
            'Take a dataset of images: datasets of tokens or latents have none.',
        )
    return image


def to_float(image: Tensor | None) -> Tensor:
    """uint8 (..., H, W) -> float in [-1, 1]. ``image`` of a batch can be None, which is an error here."""
    image = require_image(image)
    if image.dtype == torch.uint8:  # the same operations in the memory of the first: on CPUs new memory takes most of the time
        return image.float().div_(127.5).sub_(1)
    return image.float() / 127.5 - 1


def to_uint8(image: Tensor) -> Tensor:
    """Float in [-1, 1] -> uint8, by rounding (truncation would darken every picture by half a level)."""
    return ((image.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


@dataclasses.dataclass
class Batch:
    """A batch of samples. ``image`` stays uint8 until it is on the device.

    M: the most boxes or points of a sample. The other samples have rows of zeros, and their ``_mask`` is False there.
    """

    image: Tensor | None  # (B, 3, H, W) uint8
    id: list[str]  # stable and unique within a dataset split
    key: Tensor  # (B,) int64, core.random.key_of(id), which metrics compare across ranks
    category: Tensor | None = None  # (B,) int64
    text: list[str] | None = None
    boxes: Tensor | None = None  # (B, M, 4) x1, y1, x2, y2 in pixels
    mask: Tensor | None = None  # (B, H, W)
    path: list[str] | None = None
    tokens: Tensor | None = None  # (B, *tokens.shape) int64, from datasets of tokens
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)  # declared fields, and notes of the samples
    boxes_mask: Tensor | None = None  # (B, M) bool
    box_categories: Tensor | None = None  # (B, M) int64
    points: Tensor | None = None  # (B, M, 2) x, y in pixels
    points_mask: Tensor | None = None  # (B, M) bool
    points_inside: Tensor | None = None  # (B, M) bool: those inside the image after a transform
    latent: Tensor | None = None  # (B, C, *cells)
    on_host: frozenset[str] = frozenset()  # fields declared to stay there

    def __len__(self) -> int:
        return len(self.id)

    def pixels(self) -> Tensor:
        """The images as uint8; an error if the batch has none."""
        image = require_image(self.image)
        return image if image.dtype == torch.uint8 else to_uint8(image)

    def to(self, device: torch.device | str, channels_last: bool = False) -> Self:
        """The batch on a device, images in the memory format of models; copies from pinned memory are asynchronous."""
        moved = self._tensors(lambda tensor: tensor.to(device, non_blocking=True))
        if self.image is not None:
            order = torch.channels_last if channels_last else torch.contiguous_format
            moved['image'] = moved['image'].contiguous(memory_format=order)
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Self:
        """Called by torch's DataLoader when it pins batches."""
        return dataclasses.replace(self, **self._tensors(Tensor.pin_memory))

    def _tensors(self, change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """``change`` applied to every tensor that goes to the device, in fields and in ``extra``."""
        changed: dict[str, Any] = {
            field.name: change(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor) and field.name not in self.on_host
        }
        extra = {
            key: change(value) if isinstance(value, Tensor) and key not in self.on_host else value
            for key, value in self.extra.items()
        }
        return {**changed, 'extra': extra}


@dataclasses.dataclass
class Latent:
    """The output of an encoder: a point, or the mean and log variance of a Gaussian."""

    mean: Tensor  # (B, C, h, w)
    logvar: Tensor | None = None  # (B, C, h, w)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Quantized:
    """The output of a quantizer: code vectors (straight-through in training), tokens, named losses."""

    z: Tensor  # quantizers: (..., C); tokenizers: (B, C, h, w)
    tokens: Tensor  # int64 (...,) or (..., n); tokenizers: (B, *tokens.shape)
    losses: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


PredictionKind = Literal['epsilon', 'x0', 'v', 'velocity', 'score']


class Prediction(NamedTuple):
    """The output of a denoiser. ``kind`` says what ``value`` is an estimate of: see vq/sampling/predictions.py.

    A tuple, because DDP and FSDP search the output of ``forward`` for tensors and do not look into custom classes.
    """

    value: Tensor  # the shape of z
    kind: PredictionKind
    variance: Tensor | None = None  # the shape of z: of a learned reverse process
    energy: Tensor | None = None  # (B,) fp32: ``value`` is its gradient by z; minus that for x0 and score


class Predicted(NamedTuple):
    """The output of a generator for given tokens. L positions in the order of the sequence, V logits each.

    A tuple, because DDP and FSDP search the output of ``forward`` for tensors and do not look into custom classes.
    """

    logits: Tensor  # (B, L, V)
    targets: Tensor  # (B, L) int64, below V
    mask: Tensor | None = None  # (B, L) bool: masked positions, those with a loss; None: all


@dataclasses.dataclass
class Losses:
    """Named scalar losses with their weights. ``total`` is their weighted sum."""

    values: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # without weights
    weights: dict[str, float | Tensor] = dataclasses.field(default_factory=dict)
    notes: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # scalars for the log only, not in the total
    gradient_terms: list[Tensor] = dataclasses.field(default_factory=list)  # zeros, each with a given gradient
    # kept until a term is added, because guard, log and backward ask for them
    _weighted: dict[str, Tensor] | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _total: Tensor | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _joined: Tensor | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def add(self, name: str, value: Tensor, weight: float | Tensor = 1.0) -> None:
        if name in self.values:
            raise KeyError(f"two losses are called '{name}'")
        self.values[name] = value
        self.weights[name] = weight
        self._weighted = self._total = self._joined = None

    def add_gradient(self, tensor: Tensor, gradient: Tensor) -> None:
        """Make backward add ``gradient`` at ``tensor``. For values added detached, with a gradient computed by the caller."""
        self.gradient_terms.append(_GradientTerm.apply(tensor, gradient))  # type: ignore[no-untyped-call]
        self._total = self._joined = None

    @property
    def weighted(self) -> dict[str, Tensor]:
        """The terms of ``total``, fp32: these are logged, and add up."""
        if self._weighted is None:
            self._weighted = {name: _times(value, self.weights[name]).float() for name, value in self.values.items()}
        return self._weighted

    @property
    def total(self) -> Tensor:
        if self._total is None:
            self._joined = torch.stack([*self.weighted.values(), *self.gradient_terms])
            self._total = self._joined.sum()
        return self._total

    @property
    def joined(self) -> Tensor:
        """The weighted terms, and zeros for ``gradient_terms``, (n,) fp32, without gradients."""
        self._joined = (
            self._joined if self._joined is not None else torch.stack([*self.weighted.values(), *self.gradient_terms])
        )
        return self._joined.detach()


def _times(value: Tensor, weight: float | Tensor) -> Tensor:
    return value if not isinstance(weight, Tensor) and weight == 1 else value * weight  # one operation less, there and back


class _GradientTerm(torch.autograd.Function):
    """A zero with the derivative ``gradient`` with respect to ``tensor``."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = tensor.dtype
        return torch.zeros((), device=tensor.device)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (outer[0] * gradient).to(ctx.dtype), None


@dataclasses.dataclass
class Outputs:
    """The results of one validation step, for metrics and pictures."""

    reconstruction: Tensor | None = None  # (B, 3, H, W) float in [-1, 1]
    tokens: Tensor | None = None  # (B, *tokens.shape) int64
    losses: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # scalars, means over the batch
    logits: Tensor | None = None  # (B, classes)
    predicted: Predicted | None = None  # for the tokens of the images
    pictures: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # name -> (B, 3, H, W) float in [-1, 1]
    labels: Tensor | None = None  # (B, H, W) int64, of a segmenter
