"""A warning before a training that probably needs more memory than there is: a killed process says nothing."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vq.core import environment
from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.runners.trainer import Trainer

logger = logging.getLogger('vq')

WORTH_ESTIMATING = 5_000_000  # parameters; the estimate takes seconds, and smaller models fit


def warn_of_memory(config: PyConfig, trainer: Trainer) -> None:
    """Compare the estimate of ``vq.config --memory`` with the free memory of the device of this process."""
    if sum(parameter.numel() for parameter in trainer.model.parameters()) < WORTH_ESTIMATING:
        return
    from vq.assembly.memory import footprints

    ranks = environment.number('WORLD_SIZE', 1)
    try:
        found = [one for one in footprints(config, [ranks]) if one.strategy == trainer.strategy.name]
    except UserError as error:
        logger.info('the memory of a step is not estimated: %s', error.message)
        return
    needed, free = found[0].total if found else None, free_bytes(trainer)
    if needed is None or free is None or needed <= free:
        return
    logger.warning(
        'a step needs about %.1f GiB of memory and %.1f GiB are free: the system may kill the process. Lower batch_size, or '
        'split the batch with strategy.accumulate; python -m vq.config CONFIG --memory shows the parts.',
        needed / 2**30,
        free / 2**30,
    )


def free_bytes(trainer: Trainer) -> int | None:
    """Free memory of the device that the strategy will choose; None if unknown."""
    if torch.cuda.is_available() and getattr(trainer.strategy, 'device_name', 'auto') != 'cpu':
        return int(torch.cuda.mem_get_info()[0])
    try:
        lines = dict(line.split(':', 1) for line in Path('/proc/meminfo').read_text().splitlines())
        return int(lines['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
