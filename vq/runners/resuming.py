"""The state that a training run needs to resume to the same bits, and its restoration."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError, listing
from vq.core.random import derive_seed, random_state, restore_random_state, seed_everything
from vq.io.checkpoints import Checkpoint, model_state
from vq.io.frozen import check_parts
from vq.io.sharded import as_template
from vq.io.tensorfile import damaged
from vq.runners.averages import averages_of
from vq.strategies.optimizer_state import restore_state, split_state

if TYPE_CHECKING:
    from vq.runners.trainer import Trainer

logger = logging.getLogger('vq')


@dataclasses.dataclass
class Resume:
    """A checkpoint to resume from."""

    path: Path
    checkpoint: Checkpoint
    strict: bool = True  # False: weights that the checkpoint lacks keep their values


def training_state(trainer: Trainer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The state that all ranks share, without weights; and the optimizer states that are sharded over ranks."""
    optimizers: dict[str, Any] = {}
    shared_out: dict[str, Tensor] = {}
    for name, optimizer in trainer.optimizers.items():
        optimizers[name], parts = split_state(trainer.strategy, name, trainer.roots[name], optimizer)
        shared_out |= parts
    state = {
        'step': trainer.step,
        'samples_seen': trainer.samples_seen,
        'strategy': trainer.strategy.name,
        'optimizers': optimizers,
        'scaler': trainer.strategy.scaler.state_dict() if trainer.strategy.scaler else None,
        'callbacks': {name: callback.state_dict() for name, callback in trainer.callbacks.items()},
    }
    return state, shared_out


def rank_state(trainer: Trainer) -> dict[str, Any]:
    """The state that differs between ranks: random generators and callbacks."""
    callbacks = {name: callback.rank_state_dict() for name, callback in trainer.callbacks.items()}
    return {'random': random_state(), 'callbacks': callbacks}


def restore(trainer: Trainer, resume: Resume) -> None:
    """Load a checkpoint into a trainer whose parts are built and placed on the device."""
    checkpoint = resume.checkpoint
    check_parts(resume.path, checkpoint.frozen, checkpoint.frozen_parts, trainer.model)
    _load_weights(trainer, resume)
    state = checkpoint.training
    check_state(resume.path, state)
    for name, optimizer in trainer.optimizers.items():
        if name not in state['optimizers']:
            raise UserError(
                f"{resume.path} has no state of the optimizer '{name}'",
                'Resume with the config the run was started with, or start a new run with --load-model-from.',
            )
        root, saved = trainer.roots[name], state['optimizers'][name]
        restore_state(trainer.strategy, name, root, optimizer, saved, checkpoint.shards, resume.path)
    if trainer.strategy.scaler and state['scaler']:
        trainer.strategy.scaler.load_state_dict(state['scaler'])
    callbacks = dict(state['callbacks'])
    for name, callback in trainer.callbacks.items():
        if name in callbacks:
            callback.load_state_dict(callbacks.pop(name))
    lost = [name for name, values in callbacks.items() if values]
    if lost:
        logger.warning('the checkpoint has states of callbacks this config lacks: %s', listing(lost))
    for average in averages_of(trainer.callbacks.values()):
        if checkpoint.ema is not None:
            average.load_shadow(checkpoint.ema)
    trainer.step, trainer.samples_seen = int(state['step']), int(state['samples_seen'])
    trainer.journal.rewind(trainer.step)
    if checkpoint.per_rank is not None and checkpoint.world_size == collectives.size():
        own = checkpoint.per_rank['callbacks']
        for name, callback in trainer.callbacks.items():
            callback.load_rank_state_dict(own.get(name, callback.rank_state_dict()))
        restore_random_state(checkpoint.per_rank['random'])
    else:
        logger.warning(
            'the checkpoint was written by %d ranks and this run has %d: data and weights continue exactly, random '
            'generators get new seeds',
            checkpoint.world_size,
            collectives.size(),
        )
        seed_everything(derive_seed('resumed', trainer.context.seed, trainer.step), trainer.strategy.rank)
    if state.get('strategy', trainer.strategy.name) != trainer.strategy.name:
        logger.warning(
            "the checkpoint was written under the strategy '%s' and this run has '%s': the state is restored exactly, later "
            'steps differ by rounding',
            state['strategy'],
            trainer.strategy.name,
        )
    if collectives.is_main():
        logger.info('resumed %s at step %d, %d samples seen', resume.path, trainer.step, trainer.samples_seen)


def check_state(path: Path, state: Mapping[str, Any]) -> None:
    """Raise unless the training state of a checkpoint has the parts that ``training_state`` writes."""
    for name, kind in {'step': int, 'samples_seen': int, 'optimizers': dict, 'callbacks': dict}.items():
        if not isinstance(state.get(name), kind):
            raise damaged(path / 'training.pt', f"its '{name}' is missing, or no {kind.__name__}")


def _load_weights(trainer: Trainer, resume: Resume) -> None:
    own = trainer.model.state_dict()
    given = resume.checkpoint.model
    wanted = model_state(trainer.model)
    missing = [name for name in wanted if name not in given]
    unexpected = [name for name in given if name not in own]
    wrong = [name for name in given if name in own and given[name].shape != own[name].shape]
    if wrong or ((missing or unexpected) and resume.strict):
        found = [
            f'{len(names)} {what} ({listing(names, 3)})'
            for what, names in (('of another shape', wrong), ('missing', missing), ('unexpected', unexpected))
            if names
        ]
        raise UserError(
            f'{resume.path} is a checkpoint of another architecture: ' + '; '.join(found),
            'Resume with the config the run was started with (it is in the run folder).',
        )
    # copied in place, of sharded parameters this rank's shard; missing and unexpected keys were checked above
    trainer.model.load_state_dict(as_template(given, own), strict=False)
