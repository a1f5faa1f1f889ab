"""The memory of a step against that of the machine, before a training: a killed process says nothing."""

from __future__ import annotations

import dataclasses
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

# the estimate takes up to seconds, and smaller steps fit
WORTH_ESTIMATING = 5_000_000  # parameters
WORTH_PIXELS = 2**20  # pixels of the images of a rank in a micro-batch
TRIES = 4  # estimates of a smaller batch


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes that a step needs, by the estimate of ``vq.config --memory``, and that are free; None if unknown."""

    needed: int | None
    free: int | None

    def __str__(self) -> str:
        free = '' if self.free is None else f'{self.free / 2**30:.1f} GiB free'
        if self.needed is None:
            return free and f'{free}; the step is too small to need an estimate'
        return f'about {self.needed / 2**30:.2f} GiB in a step' + (free and f', {free}')


def look(config: PyConfig, trainer: Trainer) -> Memory:
    """On the device of this process. Warns if a step probably needs more than is free."""
    ranks = environment.number('WORLD_SIZE', 1)
    factor = ranks if trainer.dataloader.batch_size_in_total else 1
    found, free = _footprint(config, trainer, ranks, factor), free_bytes(trainer)
    memory = Memory(None if found is None else found.total, free)
    if found is None or memory.needed is None or free is None or memory.needed <= free:
        return memory
    logger.warning(
        'a step needs about %.1f GiB of memory and %.1f GiB are free: the system may kill the process. %s; '
        'python -m vq.config CONFIG --memory shows the parts.',
        memory.needed / 2**30,
        free / 2**30,
        advice(config, found, free, factor),
    )
    return memory


def _footprint(config: PyConfig, trainer: Trainer, ranks: int, factor: int) -> Footprint | None:
    images, sides = trainer.dataloader.batch_size // factor, size_of(config['trainer'].get('dataset') or {})
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    if parameters < WORTH_ESTIMATING and images * sides[0] * sides[1] < WORTH_PIXELS:
        return None
    try:
        return estimate(config, ranks, trainer.strategy.name)
    except (UserError, KeyError, AttributeError, TypeError) as error:  # the task reads fields that only its own data have
        logger.info('the memory of a step is not estimated: %s', getattr(error, 'message', f'{type(error).__name__}: {error}'))
        return None


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
