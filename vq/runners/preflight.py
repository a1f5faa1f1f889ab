"""Checks before the first step: whatever would end a run hours later ends the run now.

Both data sets open and have samples, categories fit the model, two batches go through the model and all metrics, and a
checkpoint can be written. Afterwards the random generators, all buffers and all metrics are as before.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import python_stream, random_state, restore_random_state
from vq.data.decode import BadImage
from vq.interfaces import Dataset, Task
from vq.io.ranks import run_on_all_ranks
from vq.runners.belonging import check_belongs
from vq.runners.callbacks.checkpoint import CheckpointCallback
from vq.runners.callbacks.evaluate import EvalCallback

if TYPE_CHECKING:
    from vq.runners.trainer import Trainer

logger = logging.getLogger('vq')

BATCHES = 2
MOST_SAMPLES = 16  # of a rank in the two batches: enough for shapes, little for a slow model
LARGEST_WRITE = 256 * 2**20  # bytes of a checkpoint that is written on trial; of a larger one the free space is checked


def preflight(trainer: Trainer) -> None:
    """Raise a ``UserError`` for what cannot work. All ranks call this function, after ``before_run`` of the callbacks."""
    started = time.perf_counter()
    validators = [found.validator for found in trainer.callbacks.values() if isinstance(found, EvalCallback)]
    with _untouched(trainer.model):
        sets = [(trainer.dataset, 'training'), *((found.dataset, 'validation') for found in validators if found is not None)]
        for dataset, name in sets:
            run_on_all_ranks(functools.partial(_check_data, dataset, name, trainer.model), f'opening the {name} set')
        _warn_of_repeated_images(trainer)
        for callback in trainer.callbacks.values():
            if isinstance(callback, EvalCallback):
                callback.rehearse(BATCHES, MOST_SAMPLES)
        for callback in trainer.callbacks.values():
            if isinstance(callback, CheckpointCallback):
                callback.rehearse(LARGEST_WRITE)
    if collectives.is_main():
        logger.info('preflight passed in %.1f s: data, metrics, checkpoint', time.perf_counter() - started)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Restore random generators, buffers and training mode."""
    training, state = model.training, random_state()
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        model.train(training)
        restore_random_state(state)


def _check_data(dataset: Dataset, name: str, model: Task) -> None:
    if not len(dataset):  # file datasets raise their own error, with the folder
        raise UserError(f'the {name} set is empty', 'Check its path and split in the config.')
    check_belongs(dataset, model)
    classes, named = classes_of(model), getattr(dataset, 'categories', None)
    if classes and named is not None and len(named) > classes:
        raise UserError(
            f'the {name} set has {len(named)} classes and the model {classes}',
            f'Set classes of the model to {len(named)}, or choose another data set.',
        )
    if classes and named is not None and len(named) < classes and collectives.is_main():
        logger.warning(
            'the %s set has %d classes and the model %d: %d are never seen', name, len(named), classes, classes - len(named)
        )
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):  # labels that have no names
        try:
            category = dataset.load(index, python_stream('preflight', 0, 0, index)).get('category')
        except BadImage:
            continue  # the loader applies the policy for bad files
        if classes and category is None:
            raise UserError(
                f'the model learns {classes} classes, and {dataset.id_of(index)} of the {name} set has none',
                'Sort the images into one folder for each class, or train a model without classes (classes of the model: 0).',
            )
        if classes and category is not None and not 0 <= category < classes:
            raise UserError(
                f'{dataset.id_of(index)} of the {name} set has category {category}, and the model has the classes 0 to '
                f'{classes - 1}',
                'Set classes of the model to the number of classes of the data.',
            )


def _warn_of_repeated_images(trainer: Trainer) -> None:
    """A step of more images than the set has shows some of them several times."""
    count, batch = len(trainer.dataset), trainer.batch_size
    if batch <= count or not collectives.is_main():
        return
    split = trainer.strategy.world_size * trainer.strategy.accumulate
    largest = count if trainer.dataloader.batch_size_in_total else max(1, count // split)
    logger.warning(
        'a step takes %d images and the training set has %d, so that a step repeats images: set batch_size to at most %d',
        *(batch, count, largest),
    )


def classes_of(model: Task) -> int:
    """The number of classes of a generator or classifier; 0 of other models."""
    found = getattr(model, 'classes', getattr(getattr(model, 'generator', None), 'classes', 0))
    return found if isinstance(found, int) else 0
