"""A warning before a training that probably needs more memory than there is: a killed process says nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vq.core import environment
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.io.spec import size_of
from vq.runners.trainer import Trainer

if TYPE_CHECKING:
    from vq.assembly.memory import Footprint

logger = logging.getLogger('vq')

WORTH_ESTIMATING = 5_000_000  # parameters; the estimate takes seconds, and smaller models fit
WORTH_PIXELS = 2**21  # of a batch; small models with fewer fit
TRIES = 4  # estimates of a smaller batch


def warn_of_memory(config: PyConfig, trainer: Trainer) -> None:
    """Compare the estimate of ``vq.config --memory`` with the free memory of the device of this process."""
    ranks, size = environment.number('WORLD_SIZE', 1), size_of(config['trainer'].get('dataset') or {})
    images = trainer.dataloader.batch_size // (ranks if trainer.dataloader.batch_size_in_total else 1)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    if parameters < WORTH_ESTIMATING and images * size**2 < WORTH_PIXELS:
        return
    try:
        found = estimate(config, ranks, trainer.strategy.name)
    except UserError as error:
        logger.info('the memory of a step is not estimated: %s', error.message)
        return
    needed, free = None if found is None else found.total, free_bytes(trainer)
    if found is None or needed is None or free is None or needed <= free:
        return
    logger.warning(
        'a step needs about %.1f GiB of memory and %.1f GiB are free: the system may kill the process. %s; '
        'python -m vq.config CONFIG --memory shows the parts.',
        needed / 2**30,
        free / 2**30,
        advice(config, found, free, ranks if trainer.dataloader.batch_size_in_total else 1),
    )


def estimate(config: PyConfig, ranks: int, strategy: str, images: int | None = None) -> Footprint | None:
    from vq.assembly.memory import footprints

    return next((one for one in footprints(config, [ranks], images) if one.strategy == strategy), None)


def advice(config: PyConfig, found: Footprint, free: int, factor: int) -> str:
    """The largest batch that fits. ``factor``: ``batch_size`` is this many times the images of a device."""
    try:
        largest = largest_batch(config, found, free)
    except UserError:  # a part that takes no batch of one image, such as a batch norm
        return 'Lower batch_size, or split the batch with accumulate'
    if largest == 0:
        return 'Not even one image fits: take a smaller model, or a smaller image_size'
    return f'Set batch_size to at most {largest * factor}, or split the batch with accumulate'


def largest_batch(config: PyConfig, found: Footprint, free: int) -> int:
    """Images of a device whose estimate fits into ``free`` bytes; 0 if one image does not.

    Activations grow with the images, the rest does not: each guess lies on the line through the largest batch that is known
    to fit and the smallest that is known not to.
    """

    def total(images: int) -> int:
        seen = estimate(config, found.devices, found.strategy, images)
        return (seen and seen.total) or 0

    low, high = (1, total(1)), (found.images or 1, found.total or 0)
    if low[1] > free:
        return 0
    for _ in range(TRIES):
        if high[0] - low[0] <= 1:
            break
        guess = low[0] + int((free - low[1]) * (high[0] - low[0]) / max(high[1] - low[1], 1))
        guess = min(max(guess, low[0] + 1), high[0] - 1)
        if (needed := total(guess)) <= free:
            low = guess, needed
        else:
            high = guess, needed
    return low[0]


def free_bytes(trainer: Trainer) -> int | None:
    """Free memory of the device that the strategy will choose; None if unknown."""
    if torch.cuda.is_available() and getattr(trainer.strategy, 'device_name', 'auto') != 'cpu':
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        return int(lines['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
