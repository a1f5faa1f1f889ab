"""Writes the token shards that a generator learns from, if they are missing."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

from vq.core import collectives
from vq.core.errors import ConfigError, UserError
from vq.data.datasets.tokens import TokenDataset
from vq.data.loading import LoaderSettings
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Callback, Task, Tokenizer
from vq.registries import VQCallbackRegistry
from vq.runners.belonging import check_belongs
from vq.runners.protocol import TrainerLike
from vq.runners.tokenizer import TokenWriter
from vq.tokenizers.hashing import tokens_hash

logger = logging.getLogger('vq')


@VQCallbackRegistry.register_()
class TokensCallback(Callback[TrainerLike]):
    """Before a run on a ``TokenDataset``: write its shards if they are missing, and check that this tokenizer made them.

    Images come from the dataset's ``source`` and pass through the tokenizer of the task once, split over all ranks. Shards of
    an interrupted start are kept. ``variants``: the views of each image that are tokenised; see the TokenWriter. After the
    first epoch the log says what comparing the checksums of the shards cost.
    """

    phase = 'tokens'

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 0,
        variants: tuple[str, ...] = ('center',),
        shard_size: int = 8192,
    ) -> None:
        self.settings = LoaderSettings(batch_size, num_workers)
        self.variants, self.shard_size = tuple(variants), shard_size
        self._told = False

    def before_run(self) -> None:
        dataset = self.runner.dataset
        if not isinstance(dataset, TokenDataset):
            raise ConfigError(
                f'TokensCallback makes tokens for a TokenDataset, and the trainer has a {type(dataset).__name__}',
                'Leave the callback out to tokenise images on the fly.',
            )
        tokenizer = tokenizer_of(self.runner.model)
        if dataset.folder is None:
            dataset.folder = self.runner.work_dir / 'tokens' / 'train'
        if not dataset.is_there():
            self._write(dataset, dataset.folder, tokenizer)
        check_belongs(dataset, self.runner.model)
        self._shards = dataset.shards
        self._epoch_ends = self.runner.samples_seen + len(dataset)
        self._started = time.perf_counter()

    def after_step(self) -> None:
        if not self._told and self.runner.samples_seen >= self._epoch_ends:
            self._tell_costs()

    def after_run(self) -> None:
        if not self._told:
            self._tell_costs()

    def _tell_costs(self) -> None:
        """Say once, after the first epoch or at the end of a shorter run, what the check of the shards took."""
        self._told = True
        costs, seconds = self._shards.checked.costs(), time.perf_counter() - self._started
        if costs.shards and collectives.is_main():
            logger.info(
                'compared the SHA-256 of token shards: %d files, %.1f MB, %.2f s of processor time, %.1f %% of %.1f s so far',
                costs.shards,
                costs.size / 1e6,
                costs.seconds,
                100 * costs.seconds / max(seconds, 1e-9),
                seconds,
            )

    def _write(self, dataset: TokenDataset, folder: Path, tokenizer: Tokenizer) -> None:
        if dataset.source is None:
            raise UserError(
                f'there are no token shards in {folder}, and no images to make them of',
                'Write them with vq.tasks.image_tokenization.tokenize, or give the dataset its images as source.',
            )
        holder = Task()
        holder.tokenizer = tokenizer
        context = dataclasses.replace(self.runner.context, work_dir=folder, meta=dict(self.runner.context.meta))
        context.meta |= {'tokenizer_config_hash': '', 'tokens_hash': tokens_hash(tokenizer)}
        writer = TokenWriter(
            holder,
            dataset.source,
            self.settings,
            self.runner.strategy,
            shard_size=self.shard_size,
            variants=self.variants,
        )
        writer.bind(context)
        logger.info('tokenising %d images of %s, once', len(dataset.source), dataset.source.name)
        made = writer.evaluate()
        logger.info('%d images a second; the tokens are in %s', made['images_per_second'], made['folder'])


def tokenizer_of(task: Task) -> Tokenizer:
    """The frozen tokenizer of a task that is trained on tokens."""
    held = getattr(task, 'tokenizer', None)
    if not isinstance(held, FrozenTokenizer):
        raise ConfigError(f'{type(task).__name__} has no frozen tokenizer', 'TokensCallback is for generators of tokens.')
    return held.tokenizer
