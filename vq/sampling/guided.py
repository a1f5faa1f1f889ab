"""Guidance of a denoiser: a better and a worse estimate, and a step along the line from one to the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Prediction
from vq.interfaces.denoisers import Denoise
from vq.sampling.guidance import guided


class Guided:
    """worse + s (better - worse), in the kind that the denoiser estimates. A ``Denoise``.

    Classifier-free guidance (Ho and Salimans 2022): the better estimate knows the condition, the worse does not. Both come
    from one pass over a doubled batch. With ``weak``, a weaker denoiser, both know the condition (autoguidance, Karras et al.
    2024).

    ``scale``: a schedule of ``guidance.py``; its progress goes from 0 at t = 1 to 1 at t = 0. Where the scale is 1, the worse
    estimate is not computed; where it is 0, the better one is not.
    ``channels``: guide only the first ones (the published DiT guides three of four). Learned variances are not guided.
    Energies are guided like their gradients, so that the guided energy is that of the guided estimate.
    """

    def __init__(
        self,
        denoise: Denoise,
        scale: Callable[[float, float], float],
        channels: int | None = None,
        weak: Denoise | None = None,
    ) -> None:
        if channels is not None and channels < 1:
            raise ConfigError(f'guidance of {channels} channels', 'Give the number of the first channels to guide, or None.')
        self.denoise, self.scale, self.channels, self.weak = denoise, scale, channels, weak
        self._forms: tuple[Condition, Condition, Condition] | None = None  # a condition, it doubled, it without itself

    def __call__(self, z: Tensor, t: float, condition: Condition | None, /) -> Prediction:
        scale = self.scale(1 - t, 2.0)
        if scale == 1:
            return self.denoise(z, t, condition)
        only_worse = scale == 0 and self.channels is None
        if self.weak is not None:
            worse = self.weak(z, t, condition)
            if only_worse:
                return worse
            better = self.denoise(z, t, condition)
            _require_one_kind(better, worse)
        elif condition is not None:
            doubled, empty = self._without(condition, z)
            if only_worse:
                return self.denoise(z, t, empty)
            return guided_halves(self.denoise(torch.cat([z, z]), t, doubled), scale, self.channels)
        else:
            return self.denoise(z, t, None)
        return _guided(better, worse, scale, self.channels)

    def _without(self, condition: Condition, z: Tensor) -> tuple[Condition, Condition]:
        """2 B rows, the second half without a condition; and B rows, all without one. Made once for all steps."""
        if self._forms is None or self._forms[0] is not condition:
            marked = condition.without(torch.zeros(len(z), dtype=torch.bool, device=z.device))
            empty = condition.without(torch.ones(len(z), dtype=torch.bool, device=z.device))
            self._forms = condition, marked.doubled(), empty
        return self._forms[1:]


def guided_halves(both: Prediction, scale: float, channels: int | None = None) -> Prediction:
    """From one pass over 2 B rows, those with a condition and then those without it: the guided estimate of B rows."""
    known, unknown = both.value.chunk(2)
    variance = None if both.variance is None else both.variance.chunk(2)[0]
    energies = (None, None) if both.energy is None else both.energy.chunk(2)
    better, worse = Prediction(known, both.kind, variance, energies[0]), Prediction(unknown, both.kind, energy=energies[1])
    return _guided(better, worse, scale, channels)


def _guided(better: Prediction, worse: Prediction, scale: float, channels: int | None) -> Prediction:
    """fp32, or fp64 if the estimates are. An energy is guided like its gradient, but not where some channels are guided."""
    precise = torch.promote_types(better.value.dtype, torch.float32)
    first, second = better.value.to(precise), worse.value.to(precise)
    if channels is None:
        known = better.energy is not None and worse.energy is not None
        energy = guided(better.energy, worse.energy, scale) if known else None  # type: ignore[arg-type]
        return Prediction(guided(first, second, scale), better.kind, better.variance, energy)
    if channels > first.shape[1]:
        raise ConfigError(f'guidance of {channels} channels of {first.shape[1]}', 'Leave channels out: all are guided then.')
    led, last = first.tensor_split([channels], dim=1)
    value = torch.cat([guided(led, second[:, :channels], scale), last], dim=1)
    return Prediction(value, better.kind, better.variance)


def _require_one_kind(better: Prediction, worse: Prediction) -> None:
    if better.kind != worse.kind:
        raise ConfigError(
            f'the denoiser estimates {better.kind}, and the weaker one that guides it estimates {worse.kind}',
            'Take a weaker model of the same kind of prediction: an earlier checkpoint, or a smaller network.',
        )
