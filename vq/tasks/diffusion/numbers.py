"""The random numbers of a training step, and those of validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.records import Batch
from vq.sampling.keyed import keyed_normals, keyed_uniforms
from vq.sampling.streams import normals, uniforms
from vq.sampling.times import stratified


class Numbers(NamedTuple):
    """Of B samples."""

    time: Tensor  # (B,) in [0, 1), for the law of times
    drop: Tensor  # (B,) or (B, n) in [0, 1), for the conditions that are dropped
    noise: Tensor  # (B, C, *cells) standard normal
    posterior: Tensor | None = None  # the shape of the tokenizer's latent, standard normal


def numbers_of(
    batch: Batch,
    seed: int,
    step: int,
    shape: tuple[int, ...],
    posterior: tuple[int, ...] | None = None,
    drops: int = 1,
) -> Numbers:
    """Of a training step, on the device of the batch. ``posterior``: the shape of numbers to sample latents with. ``drops``:
    how many numbers of a sample its conditioner takes.

    They are functions of the seed of the run, the step and the key of each sample, so the same on any device, on any number of
    ranks, and after a restart.
    """
    keys = batch.key
    time, drop = keyed_uniforms(keys, 2, purpose=(seed, step, 'time')).T
    if drops > 1:
        drop = keyed_uniforms(keys, drops, purpose=(seed, step, 'drops'))
    noise = keyed_normals(keys, *shape, purpose=(seed, step, 'noise'))
    of_latents = None if posterior is None else keyed_normals(keys, *posterior, purpose=(seed, step, 'posterior'))
    return Numbers(time, drop, noise, of_latents)


def over_the_batch(time: Tensor) -> Tensor:
    """Numbers (B,) of this rank -> one in each of the equal parts of [0, 1) that the rows of all ranks are."""
    rank, ranks, rows = collectives.rank(), collectives.size(), len(time)
    return stratified(time, torch.arange(rank * rows, (rank + 1) * rows, device=time.device), ranks * rows)


def fixed_numbers(seed: int, ids: Sequence[int], shape: tuple[int, ...], device: torch.device) -> Numbers:
    """Of validation: the same at every checkpoint, in any batch, on any rank."""
    time, drop = uniforms(seed, ids, 2, purpose='time').to(device).T
    return Numbers(time, drop, normals(seed, ids, *shape, purpose='noise').to(device))
