"""Maps with an inverse between the latents of a tokenizer and those of a second stage; they compose by ``Chain``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.core.specs import LatentSpec, in_words
from vq.interfaces import LatentMap
from vq.nn.precision import no_autocast
from vq.registries import VQLatentMapRegistry


@VQLatentMapRegistry.register_()
class Reshape(LatentMap):
    """(B, C, *before) -> (B, C, *after), cells in row-major order. None: a sequence of all cells, (B, C, L)."""

    def __init__(self, before: Sequence[int] | None = None, after: Sequence[int] | None = None) -> None:
        super().__init__()
        before, after = (None if cells is None else tuple(cells) for cells in (before, after))
        if before is None and after is None:
            raise ConfigError('a Reshape has neither before nor after', 'Give the grid on one side: before=(16, 16).')
        count = math.prod(before or after or ())
        self.before, self.after = before or (count,), after or (count,)
        if math.prod(self.after) != count:
            raise ConfigError(
                f'a Reshape of {in_words(self.before)} cells to {in_words(self.after)}', 'Give as many cells on both sides.'
            )

    def forward(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:2], *self.after)

    def inverse(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:2], *self.before)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        if latent.cells != self.before:
            raise ConfigError(
                f'a Reshape takes {in_words(self.before)} cells, and the latent has {in_words(latent.cells)}',
                'Set its before to the cells of the latent: they follow from the image size.',
            )
        return dataclasses.replace(latent, cells=self.after)


def space_to_depth(z: Tensor, factor: int) -> Tensor:
    """(B, C, *cells) -> (B, C factor^n, *(cells / factor)) for n axes of cells; channels ordered as in ``pixel_unshuffle``."""
    axes = range(2, z.ndim)
    parts = z.reshape(*z.shape[:2], *(length for size in z.shape[2:] for length in (size // factor, factor)))
    parts = parts.permute(0, 1, *(2 * axis - 1 for axis in axes), *(2 * axis - 2 for axis in axes))
    return parts.flatten(1, z.ndim - 1)


def depth_to_space(z: Tensor, factor: int) -> Tensor:
    """The reverse of ``space_to_depth``."""
    count = z.ndim - 2
    parts = z.reshape(len(z), -1, *[factor] * count, *z.shape[2:])
    order = (axis for cell in range(2, 2 + count) for axis in (cell + count, cell))
    return parts.permute(0, 1, *order).reshape(len(z), -1, *(size * factor for size in z.shape[2:]))


@VQLatentMapRegistry.register_()
class SpaceToDepth(LatentMap):
    """Blocks of ``factor`` cells on each axis become channels: (B, C, h, w) -> (B, C f^2, h / f, w / f)."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = _checked_factor(factor)

    def forward(self, z: Tensor) -> Tensor:
        return space_to_depth(z, self.factor)

    def inverse(self, z: Tensor) -> Tensor:
        return depth_to_space(z, self.factor)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        if any(size % self.factor for size in latent.cells):
            raise ConfigError(
                f'{in_words(latent.cells)} cells do not divide into blocks of {self.factor}',
                'Choose a factor that divides them, or another image size.',
            )
        cells = tuple(size // self.factor for size in latent.cells)
        return dataclasses.replace(latent, channels=latent.channels * self.factor ** len(cells), cells=cells)


@VQLatentMapRegistry.register_()
class DepthToSpace(LatentMap):
    """Groups of channels become blocks of ``factor`` cells on each axis: (B, C f^2, h, w) -> (B, C, h f, w f)."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = _checked_factor(factor)

    def forward(self, z: Tensor) -> Tensor:
        return depth_to_space(z, self.factor)

    def inverse(self, z: Tensor) -> Tensor:
        return space_to_depth(z, self.factor)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        block = self.factor ** len(latent.cells)
        if latent.channels % block:
            raise ConfigError(
                f'{latent.channels} channels do not divide into blocks of {block}', 'Choose a factor whose power divides them.'
            )
        cells = tuple(size * self.factor for size in latent.cells)
        return dataclasses.replace(latent, channels=latent.channels // block, cells=cells)


def _checked_factor(factor: int) -> int:
    if factor < 1:
        raise ConfigError(f'the factor is {factor}', 'Give the cells of a block on each axis, from 1 up.')
    return factor


@VQLatentMapRegistry.register_()
class Affine(LatentMap):
    """y = (z - mean) / deviation,  of all latents, per channel (C,) or per element (C, *cells); computed in fp32.

    - ``mean``, ``deviation``: a number, or one for each channel.
    - ``shape``: (C,) or (C, *cells) if channels or elements have values of their own that a checkpoint or ``put`` gives.
    - ``trainable``: parameters, of which ``mean`` and ``deviation`` are the first values; the deviation as its logarithm.

    A tokenizer with statistics of its latents normalizes by itself: see ``Tokenizer.normalize``.
    """

    mean: Tensor
    log_deviation: Tensor

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        deviation: float | Sequence[float] = 1.0,
        shape: Sequence[int] | None = None,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        means, deviations = ([value] if isinstance(value, int | float) else list(value) for value in (mean, deviation))
        if not all(map(math.isfinite, [*means, *deviations])) or min(deviations) <= 0:
            raise ConfigError('an Affine has a mean that is not finite, or a deviation that is not positive', 'Change it.')
        channels = max(len(means), len(deviations))
        shape = tuple(shape) if shape is not None else (channels,) if channels > 1 else ()
        if not {len(means), len(deviations)} <= {1, *shape[:1]}:
            raise ConfigError(
                f'an Affine of the shape {shape} has {len(means)} means and {len(deviations)} deviations',
                'Give one number, or one for each channel.',
            )
        first, second = (_spread(values, shape) for values in (means, [math.log(value) for value in deviations]))
        if trainable:
            self.mean, self.log_deviation = nn.Parameter(first), nn.Parameter(second)
        else:
            self.register_buffer('mean', first)
            self.register_buffer('log_deviation', second)

    @torch.no_grad()
    def put(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the values to measured ones, of the ``shape`` of this map. A deviation of zero counts as one."""
        if mean.shape != self.mean.shape or deviation.shape != self.mean.shape:
            raise UserError(
                f'statistics of the shape {tuple(mean.shape)} for an Affine of the shape {tuple(self.mean.shape)}',
                'Give the Affine the shape of the statistics.',
            )
        self.mean.copy_(mean)
        self.log_deviation.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)).log())

    def forward(self, z: Tensor) -> Tensor:
        with no_autocast(z.device):
            return (z.float() - self._like(self.mean, z)) * torch.exp(-self._like(self.log_deviation, z))

    def inverse(self, z: Tensor) -> Tensor:
        with no_autocast(z.device):
            return z.float() * torch.exp(self._like(self.log_deviation, z)) + self._like(self.mean, z)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        shape = tuple(self.mean.shape)
        if shape not in ((), (latent.channels,), latent.shape):
            raise ConfigError(
                f'an Affine of the shape {shape} on latents of {latent.shape}',
                'Give it one number, one for each channel, or the shape of the latents.',
            )
        return latent

    @staticmethod
    def _like(value: Tensor, z: Tensor) -> Tensor:
        return value.float().view(-1, *[1] * (z.ndim - 2)) if value.ndim == 1 else value.float()


def _spread(values: list[float], shape: tuple[int, ...]) -> Tensor:
    """One value, or one for each of the first axis -> a tensor of ``shape``."""
    row = torch.tensor(values).view(-1, *[1] * (len(shape) - 1)) if shape else torch.tensor(values[0])
    return row.expand(shape).clone()


class _ClassToken(LatentMap):
    """The two directions between sequences with and without class tokens in front."""

    token: Tensor | None

    def __init__(self, count: int, vector: Sequence[float] | None, channels: int | None, trainable: bool) -> None:
        super().__init__()
        if count < 1:
            raise ConfigError(f'{type(self).__name__} has a count of {count}', 'Give the number of class tokens, from 1 up.')
        size = len(vector) if vector is not None else channels
        if size is None and trainable:
            raise ConfigError(f'{type(self).__name__} is trainable and knows no channels', 'Give its channels, or its vector.')
        self.count = count
        start = None if size is None else _spread(list(vector or [0.0]), (size,))
        if start is not None and trainable:
            self.token = nn.Parameter(start)
        else:
            self.register_buffer('token', start)

    def _dropped(self, z: Tensor) -> Tensor:
        return z[:, :, self.count :]

    def _appended(self, z: Tensor) -> Tensor:
        if self.token is None:
            front = z.new_zeros(*z.shape[:2], self.count)
        else:
            front = self.token.to(z.dtype).view(1, -1, 1).expand(len(z), -1, self.count)
        return torch.cat([front, z], 2)

    def _moved(self, latent: LatentSpec, by: int) -> LatentSpec:
        if len(latent.cells) != 1 or latent.cells[0] + by < 1:
            raise ConfigError(
                f'{type(self).__name__} takes a sequence, and the latent has {in_words(latent.cells)} cells',
                'Put a Reshape to a sequence before it.',
            )
        if self.token is not None and len(self.token) != latent.channels:
            raise ConfigError(
                f'{type(self).__name__} has a vector of {len(self.token)} channels, and the latent {latent.channels}',
                'Give a vector of as many channels.',
            )
        return dataclasses.replace(latent, cells=(latent.cells[0] + by,))


@VQLatentMapRegistry.register_()
class DropClassToken(_ClassToken):
    """(B, C, count + L) -> (B, C, L). The inverse puts in front zeros, or a stored ``vector`` (C,)."""

    def __init__(
        self,
        count: int = 1,
        vector: Sequence[float] | None = None,
        channels: int | None = None,
        trainable: bool = False,
    ) -> None:
        """``channels``: of a vector of zeros to be learned, or to be loaded from a checkpoint."""
        super().__init__(count, vector, channels, trainable)

    def forward(self, z: Tensor) -> Tensor:
        return self._dropped(z)

    def inverse(self, z: Tensor) -> Tensor:
        return self._appended(z)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        return self._moved(latent, -self.count)


@VQLatentMapRegistry.register_()
class AppendClassToken(_ClassToken):
    """(B, C, L) -> (B, C, count + L): zeros in front, or a stored ``vector`` (C,). The inverse drops them."""

    def __init__(
        self,
        count: int = 1,
        vector: Sequence[float] | None = None,
        channels: int | None = None,
        trainable: bool = False,
    ) -> None:
        """``channels``: of a vector of zeros to be learned, or to be loaded from a checkpoint."""
        super().__init__(count, vector, channels, trainable)

    def forward(self, z: Tensor) -> Tensor:
        return self._appended(z)

    def inverse(self, z: Tensor) -> Tensor:
        return self._dropped(z)

    def spec(self, latent: LatentSpec) -> LatentSpec:
        return self._moved(latent, self.count)


@VQLatentMapRegistry.register_()
class Chain(LatentMap):
    """``maps`` one after another; the inverse runs their inverses from the last to the first."""

    def __init__(self, maps: list[LatentMap]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, z: Tensor) -> Tensor:
        for part in self.maps:
            z = part(z)
        return z

    def inverse(self, z: Tensor) -> Tensor:
        for part in reversed(self.maps):
            assert isinstance(part, LatentMap)
            z = part.inverse(z)
        return z

    def spec(self, latent: LatentSpec) -> LatentSpec:
        for part in self.maps:
            assert isinstance(part, LatentMap)
            latent = part.spec(latent)
        return latent
