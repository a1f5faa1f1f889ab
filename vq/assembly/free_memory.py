"""The memory of a step against that of the machine, before a training: a killed process says nothing."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import torch

from vq.core import environment
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.io.spec import size_of
from vq.runners.trainer import Trainer

logger = logging.getLogger('vq')

# the estimate takes up to seconds, and smaller steps fit
WORTH_ESTIMATING = 5_000_000  # parameters
WORTH_PIXELS = 1_000_000  # pixels of the images of a rank in a micro-batch


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


def estimate(config: PyConfig, trainer: Trainer) -> Memory:
    """On the device of this process. Warns if a step probably needs more than is free."""
    memory = Memory(_needed(config, trainer), free_bytes(trainer))
    if memory.needed is not None and memory.free is not None and memory.needed > memory.free:
        logger.warning(
            'a step needs about %.1f GiB of memory and %.1f GiB are free: the system may kill the process. Lower batch_size, '
            'or split the batch with strategy.accumulate; python -m vq.config CONFIG --memory shows the parts.',
            memory.needed / 2**30,
            memory.free / 2**30,
        )
    return memory


def _needed(config: PyConfig, trainer: Trainer) -> int | None:
    pixels = trainer.dataloader.batch_size * size_of(config['trainer'].get('dataset', {})) ** 2
    small = sum(parameter.numel() for parameter in trainer.model.parameters()) < WORTH_ESTIMATING
    if small and pixels < WORTH_PIXELS:
        return None
    from vq.assembly.memory import footprints

    try:
        found = [
            one for one in footprints(config, [environment.number('WORLD_SIZE', 1)]) if one.strategy == trainer.strategy.name
        ]
    except UserError as error:
        logger.info('the memory of a step is not estimated: %s', error.message)
        return None
    return found[0].total if found else None


def free_bytes(trainer: Trainer) -> int | None:
    """Free memory of the device that the strategy will choose; None if unknown."""
    if torch.cuda.is_available() and getattr(trainer.strategy, 'device_name', 'auto') != 'cpu':
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        return int(lines['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
