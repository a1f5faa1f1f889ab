"""Laws of the times at which a denoiser is trained.

A law maps uniform numbers to times. On a path without a grid they become times in [0, 1] and then those of the path (its
shift). On a path of T times they are k / T, k = 1 .. T.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Path, TimeLaw
from vq.registries import VQTimeLawRegistry

BELOW_ONE = 1 - 2**-24  # the largest fp32 number below 1
FIRST = 1e-3  # below this time the field of equilibrium matching is that of this time: at t = 0 it vanishes


def stratified(uniforms: Tensor, positions: Tensor, count: int) -> Tensor:
    """Uniform numbers (B,) of the rows at ``positions`` (B,) of a global batch of ``count`` rows -> one number in each of
    ``count`` equal parts of [0, 1):  (position + uniform) / count  (Kingma et al. 2021, appendix I.1).

    The mean of a loss over the batch varies less, and its expectation is the same as long as the order of rows is random.
    """
    upper = (positions + 1) / count * (1 - 2**-23)  # rounding could reach the next part
    return torch.minimum((positions + uniforms) / count, upper)


def _on_path(t: Tensor, path: Path) -> Tensor:
    """Times in [0, 1) of the uniform path -> times of this path."""
    if path.steps is None:
        return path.shifted(t)
    return ((t * path.steps).floor() + 1).clamp(max=path.steps) / path.steps


@VQTimeLawRegistry.register_()
class UniformTimes(TimeLaw):
    """All times alike."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, uniforms: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        return _on_path(uniforms, path), torch.ones_like(uniforms)


@VQTimeLawRegistry.register_()
class LogitNormalTimes(TimeLaw):
    """log(t / (1 - t)) is normal with this mean and deviation: more times in the middle (Esser et al. 2024, equation 19)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        if not std > 0:
            raise ConfigError(f'std is {std}', 'Give a number above 0.')
        self.mean, self.std = float(mean), float(std)

    def forward(self, uniforms: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        normal = torch.special.ndtri(uniforms.float().clamp(1 - BELOW_ONE, BELOW_ONE))
        return _on_path((self.mean + self.std * normal).sigmoid(), path), torch.ones_like(uniforms)


@VQTimeLawRegistry.register_()
class LossSecondMomentTimes(TimeLaw):
    """p_k ~ sqrt(mean of L_k^2 over the last ``history`` losses at k), with weights 1 / (T p_k)  (Nichol and Dhariwal 2021,
    equation 18): of a loss whose size differs much between times, such as the variational bound.

    Uniform until each time has ``history`` losses. ``uniform_share`` of the probability is always uniform, so that none is
    forgotten. ``steps``: T of the path.
    """

    losses: Tensor  # (T, history), a ring for each time
    counts: Tensor  # (T,) int64, losses seen

    def __init__(self, steps: int = 1000, history: int = 10, uniform_share: float = 1e-3) -> None:
        super().__init__()
        if steps < 1 or history < 1 or not 0 <= uniform_share <= 1:
            raise ConfigError(
                f'steps {steps}, history {history}, uniform_share {uniform_share}',
                'Give steps and history from 1 up, and a share from 0 to 1.',
            )
        self.uniform_share = float(uniform_share)
        self.register_buffer('losses', torch.zeros(steps, history))
        self.register_buffer('counts', torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """(T,)."""
        steps, history = self.losses.shape
        sizes = self.losses.square().mean(1).sqrt()
        learned = sizes / sizes.sum().clamp(min=torch.finfo(sizes.dtype).tiny)
        share = torch.where(sizes.sum() > 0, self.uniform_share, 1.0)
        learned = learned * (1 - share) + share / steps
        return torch.where((self.counts >= history).all(), learned, torch.full_like(learned, 1 / steps))

    def forward(self, uniforms: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        steps = len(self.counts)
        if path.steps != steps:
            raise ConfigError(
                f'the law of times has {steps} steps, and the path {path.steps or "no grid of times"}',
                'Give LossSecondMomentTimes the steps of the path. A path without a grid needs another law.',
            )
        chances = self.probabilities()
        ends = chances.cumsum(0)
        index = (uniforms.unsqueeze(1) * ends[-1] >= ends).sum(1).clamp(max=steps - 1)  # (B, T) compared: the first end above
        return (index + 1) / steps, 1 / (steps * chances[index])

    @torch.no_grad()
    def observe(self, t: Tensor, losses: Tensor, ok: Tensor | None = None) -> None:
        """Times and losses (B,) of this rank; all ranks keep those of all, in the order of ranks and rows."""
        steps, history = self.losses.shape
        t, losses = (torch.cat(collectives.all_gather(value.detach().float().contiguous())) for value in (t, losses))
        index = (t * steps).round().long().clamp(1, steps) - 1
        same = index.unsqueeze(0) == index.unsqueeze(1)  # (N, N)
        earlier, later = same.tril(-1).sum(1), same.triu(1).sum(1)
        kept = later < history  # of more losses at one time than the ring holds, the last
        if ok is not None:
            kept = kept & ok
        slot = index * history + (self.counts[index] + earlier) % history
        ring = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])  # what is not kept goes behind the end
        ring = ring.scatter(0, torch.where(kept, slot, steps * history), losses)
        self.losses.copy_(ring[:-1].view_as(self.losses))
        seen = torch.ones_like(index) if ok is None else ok.long().expand_as(index)
        self.counts.scatter_add_(0, index, seen)


def strength(t: Tensor, decay: float) -> Tensor:
    """c(t) = min(1, t / (1 - decay)) of equilibrium matching: whole from noise on, and then falling to 0 at data."""
    return (t.clamp(min=FIRST) / (1 - decay)).clamp(max=1.0)


@VQTimeLawRegistry.register_()
class EquilibriumTimes(TimeLaw):
    """All times alike, with the weights c(t)^2 / mean c^2, which turn errors of the velocity into those of the field of an
    ``Equilibrium`` of the same ``decay``."""

    def __init__(self, decay: float = 0.8) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f'decay is {decay}', 'Give a number from 0 to below 1, that of the denoiser.')
        self.decay = float(decay)

    def forward(self, uniforms: Tensor, path: Path) -> tuple[Tensor, Tensor]:
        t = _on_path(uniforms, path)
        return t, strength(t, self.decay).square() / (self.decay + (1 - self.decay) / 3)
