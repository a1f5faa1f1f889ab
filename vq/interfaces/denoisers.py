"""Diffusion: networks that estimate noise, paths between data and noise, laws of the training times, samplers.

Time t is in [0, 1]: 0 is data, 1 is the end with the most noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from vq.core.conditions import Condition
from vq.core.errors import ConfigError, listing
from vq.core.records import Prediction, PredictionKind
from vq.interfaces.conditions import FORMS, Conditioned, Conditioner


class Denoiser(nn.Module):
    """z_t (B, C, *cells) at time t (B,), and what a conditioner made of the condition -> an estimate of ``kind``."""

    kind: PredictionKind
    dim: int  # channels of ``Conditioned.vector``
    sequence_dim: int | None = None  # of the entries of ``Conditioned.sequence``; None: any, or it takes none
    layout_dim: int | None = None  # of the class vectors of ``Conditioned.layout``, likewise
    takes: tuple[str, ...] = ('vector',)  # the forms of a condition that it reads: 'vector', 'sequence', 'maps'
    compiles = 'forward'
    packs: ClassVar[bool] = False  # linear layers are only called, so that drawing can pack their weights: vq/nn/packed.py
    timeless = False  # whether the estimate, but for its size, is the same at all times

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        raise NotImplementedError

    def features(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Tensor:
        """(B, N, width): what a head of another kind reads, such as that of an energy. Here the cells of the estimate."""
        prediction: Prediction = self(z, t, condition)
        return prediction.value.flatten(2).transpose(1, 2)

    def headless(self) -> int | None:
        """Take off the layers that ``features`` does not use, for good. Returns the width; None: the channels of z."""
        return None


def conditioned(
    denoiser: Denoiser, conditioner: Conditioner | None, condition: Condition | None, rows: int
) -> Conditioned | None:
    """What a conditioner makes for a denoiser; an error if the denoiser would leave a part of it unread."""
    if conditioner is None:
        return None
    found: Conditioned = conditioner(condition, rows)
    unread = [form for form in FORMS if getattr(found, form) is not None and form not in denoiser.takes]
    if unread:
        raise ConfigError(
            f"{type(conditioner).__name__} gives conditions of the form '{unread[0]}', which {type(denoiser).__name__} does "
            'not take',
            f'It takes: {listing(denoiser.takes)}. Change the conditioner, or take a denoiser whose ``takes`` has this.',
        )
    return found


Number = Tensor | float


class Level(NamedTuple):
    """alpha and sigma of  z_t = alpha x0 + sigma eps,  and their derivatives by t; (B,) each, or numbers for one time."""

    alpha: Number
    sigma: Number
    alpha_rate: Number
    sigma_rate: Number


class Path:
    """How data becomes noise:  z_t = alpha(t) x0 + sigma(t) eps.  Holds numbers only: no tensors, no device.

    ``steps``: the number T of times k / T, k = 1 .. T, that training uses; None: all times.
    """

    steps: int | None = None

    def shifted(self, t: Tensor) -> Tensor:
        """Times of a law of the uniform path -> times of this path. Paths with ``steps`` do not shift."""
        return t

    def level(self, t: Tensor) -> Level:
        """At times t (B,), on their device, fp32."""
        raise NotImplementedError

    def level_at(self, t: float) -> Level:
        """At one time, in double precision on the host, for samplers. At t = 0 alpha is 1 and sigma 0."""
        raise NotImplementedError

    def times(self, steps: int, spacing: str = 'uniform') -> list[float]:
        """``steps`` + 1 falling times from 1 to 0. Where training has a grid, all are on it, and a spacing can begin below 1,
        end above 0, or have another number of steps: see vq/sampling/spacing.py."""
        raise NotImplementedError


class TimeLaw(nn.Module):
    """How training draws its times."""

    def forward(self, uniforms: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        """Numbers (B,) in [0, 1) -> times t (B,), and the weights (B,) of their losses, of mean 1 over the law."""
        raise NotImplementedError

    def observe(self, t: Tensor, losses: Tensor, ok: Tensor | None = None) -> None:
        """Called once per optimizer step with the times (B,) and losses (B,) of this rank, for laws that follow the losses. A
        law gathers those of all ranks itself. ``ok``: a bool on the device; nothing is learned where it is false."""


class Denoise(Protocol):
    """What samplers call: a denoiser with guidance and thresholds around it. ``t`` is one time for all rows."""

    def __call__(self, z: Tensor, t: float, condition: Condition | None, /) -> Prediction: ...


@dataclasses.dataclass
class Drive:
    """What a sampler is given beside z_1. A sampler is a function  (z (B, C, *cells), drive, **settings) -> Iterator[Tensor]:
    it yields z after each of its steps, the last one at time 0."""

    denoise: Denoise
    path: Path
    condition: Condition | None
    noise: Callable[[int], Tensor]  # number of the step -> standard normal numbers (B, C, *cells), a stream for each image
    corrected: Callable[[Tensor, float], Tensor] = lambda z, t: z  # applied to z after each step, with its new time
    inner_step: Number | None = None  # the step size that the denoiser keeps for its inner loop
    observe: Callable[[Any], None] = lambda found: None  # is given what an inner loop did, a ``Descent``
    timeless: bool = False  # of the denoiser


Sampler = Callable[..., Iterator[Tensor]]
