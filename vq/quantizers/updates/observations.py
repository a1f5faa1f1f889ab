"""Statistics of the features of one optimizer step: counts and sums per code, and a few vectors drawn at random."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.quantizers.updates.base import accept
from vq.quantizers.updates.draw import join, keep_best, places_of, priorities, split


@dataclasses.dataclass
class Totals:
    """Totals over all ranks and micro-batches of a step, bitwise equal on every rank."""

    counts: Tensor  # (K,) vectors per code
    sums: Tensor  # (K, C) sums of the vectors per code, or (0, C) if not needed
    candidates: Tensor  # (R, C) vectors drawn at random, in the order of the draw
    valid: Tensor  # (R,) bool: which candidates exist, as a step can have fewer than R vectors
    images: Tensor  # () number of images

    def acceptable(self, ok: Tensor | None) -> Tensor:
        """() bool: ``ok`` holds, and at least one vector was observed."""
        seen = self.counts.sum() > 0
        return seen if ok is None else seen & ok


class Observations(nn.Module):
    """Accumulators of one step on one rank. They are zero between steps, so only ``number`` is saved."""

    counts: Tensor  # (K,) fp32; whole numbers, exact up to 2^24 vectors per code and step
    sums: Tensor  # (K, C), or (0, C)
    images: Tensor  # () fp32
    pool: Tensor  # (R, C) candidates so far
    priority: Tensor  # (R,) int64, 0 where the pool is still empty
    seen: Tensor  # () int64, vectors observed on this rank
    number: Tensor  # () int64, number of updates so far: each draws different candidates

    def __init__(self, codebook: Tensor, *, with_sums: bool, candidates: int = 0, seed: int = 0) -> None:
        super().__init__()
        codes, channels = codebook.shape
        self.with_sums = with_sums
        self.candidates = candidates
        self.seed = seed
        weight = codebook.detach()
        self.register_buffer('counts', torch.zeros_like(weight[:, 0]), persistent=False)
        self.register_buffer('sums', weight.new_zeros(codes if with_sums else 0, channels), persistent=False)
        self.register_buffer('images', weight.new_zeros(()), persistent=False)
        self.register_buffer('pool', weight.new_zeros(candidates, channels), persistent=False)
        self.register_buffer('priority', weight.new_zeros(candidates, dtype=torch.int64), persistent=False)
        self.register_buffer('seen', weight.new_zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer('number', weight.new_zeros((), dtype=torch.int64), persistent=candidates > 0)

    @torch.no_grad()
    def add(self, features: Tensor, tokens: Tensor, images: int = 0) -> None:
        """features (N, C) of ``images`` images, tokens (N,); N must be the same on all ranks, for the draw."""
        self.images.add_(images)
        # added to the accumulators directly, so that two micro-batches are summed in the order of one large batch
        self.counts.index_add_(0, tokens, torch.ones_like(features[:, 0]))
        if self.with_sums:
            self.sums.index_add_(0, tokens, features)
        if self.candidates:
            places = places_of(len(features), self.seen, features.device)
            drawn = priorities(places, self.seed, self.number)
            pool, priority = keep_best(self.pool, self.priority, features, drawn)
            self.pool.copy_(pool)
            self.priority.copy_(priority)
            self.seen.add_(len(features))

    @torch.no_grad()
    def collect(self) -> Totals:
        """Totals over ranks by one all-reduce. Empties the accumulators.

        The all-reduce also gathers the candidates: every rank fills its own slot and leaves the other slots zero.
        """
        codes, channels = len(self.counts), self.pool.shape[1]
        slots = self.pool.new_zeros(collectives.size(), self.candidates, channels + 2)
        slots[collectives.rank()] = torch.cat([self.pool, split(self.priority)], dim=1)
        flat = collectives.all_reduce(torch.cat([self.counts, self.sums.flatten(), self.images[None], slots.flatten()]))
        sums_end = codes + self.sums.numel()
        gathered = flat[sums_end + 1 :].view(-1, channels + 2)  # (world * R, C + 2)
        best, index = join(gathered[:, channels:]).topk(self.candidates)
        sums = flat[codes:sums_end].view(self.sums.shape)
        totals = Totals(flat[:codes], sums, gathered[index, :channels], best > 0, flat[sums_end])
        self.clear()
        return totals

    def advance(self, ok: Tensor) -> None:
        """Count an update, if ``ok``."""
        accept(self.number, self.number + 1, ok)

    def clear(self) -> None:
        for accumulator in (self.counts, self.sums, self.images, self.pool, self.priority, self.seen):
            accumulator.zero_()

    def reset(self) -> None:
        self.clear()
        self.number.zero_()
