"""Mean and deviation of a tokenizer's latents: second stages see latents of zero mean and unit variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import UserError
from vq.core.specs import Statistics

NAMES = ('mean', 'deviation')


class LatentStatistics(nn.Module):
    """n(z) = (z - mean) / deviation, with one mean and deviation per channel (C,), or per element (C, *cells).

    The buffers exist only once they are computed, so weights of before have no keys for them. Without buffers n is the
    identity. A tokenizer whose weights are loaded from a file without them clears its own.
    """

    mean: Tensor
    deviation: Tensor

    @property
    def kind(self) -> Statistics | None:
        """What has a mean of its own; None without statistics."""
        return None if not self.present else 'channel' if self.mean.ndim == 1 else 'element'

    @property
    def present(self) -> bool:
        return 'mean' in self._buffers

    def put(self, mean: Tensor, deviation: Tensor) -> None:
        """Set both, in fp32. A deviation of zero, of a channel that never changes, counts as one."""
        if mean.shape != deviation.shape or not mean.ndim:
            raise UserError(
                f'the mean of latents has the shape {tuple(mean.shape)} and the deviation {tuple(deviation.shape)}',
                'Give both per channel (C,), or both per element (C, *cells).',
            )
        deviation = deviation.float()
        self.register_buffer('mean', mean.float())
        self.register_buffer('deviation', torch.where(deviation > 0, deviation, torch.ones_like(deviation)))

    def clear(self) -> None:
        """Back to the identity."""
        for name in NAMES:
            self._buffers.pop(name, None)

    def normalize(self, z: Tensor) -> Tensor:
        """Latents (B, C, *cells) as decoders take them -> of zero mean and unit variance."""
        return (z - self._like(self.mean, z)) / self._like(self.deviation, z) if self.present else z

    def denormalize(self, z: Tensor) -> Tensor:
        """The reverse of ``normalize``."""
        return z * self._like(self.deviation, z) + self._like(self.mean, z) if self.present else z

    def _like(self, value: Tensor, z: Tensor) -> Tensor:
        if (value.ndim > 1 and value.shape != z.shape[1:]) or value.shape[0] != z.shape[1]:
            raise UserError(
                f'latents have the shape {tuple(z.shape[1:])}, and their statistics are for {tuple(value.shape)}',
                'Use images of the size for which the statistics were computed, or statistics per channel.',
            )
        return value if value.ndim > 1 else value.view(-1, *[1] * (z.ndim - 2))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        given = [value for name in NAMES if isinstance(value := state_dict.get(prefix + name), Tensor)]
        if len(given) == len(NAMES):
            self._check(*given)
            self.put(*(value.clone() for value in given))
        elif given:
            raise UserError('latents have a mean or a deviation, and not both', 'Compute their statistics again.')
        super()._load_from_state_dict(state_dict, prefix, *others)  # type: ignore[no-untyped-call]

    def _check(self, mean: Tensor, deviation: Tensor) -> None:
        if not bool(mean.isfinite().all() & deviation.isfinite().all() & (deviation > 0).all()):
            raise UserError(
                'statistics of latents hold numbers that are not finite, or deviations that are not positive',
                'The file is damaged: compute the statistics again.',
            )


def optional_keys(module: nn.Module) -> tuple[str, ...]:
    """The keys that weights of a module can have or lack: those of latent statistics."""
    parts = [name for name, part in module.named_modules() if isinstance(part, LatentStatistics)]
    return tuple(f'{name}.{key}' for name in parts for key in NAMES)
