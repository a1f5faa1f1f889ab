"""Statistics of a dataset for FID and related metrics: every image passes a feature network once; one file is written."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.random import key_of
from vq.data.loading import Loader, LoaderSettings
from vq.data.plan import evaluation_plan
from vq.interfaces import Dataset, FeatureNetwork, Runner, Strategy
from vq.io import atomic
from vq.io.digest import file_digest
from vq.io.plain import read_torch, write_plain
from vq.io.pretrained import pretrained_root
from vq.io.ranks import run_on_all_ranks
from vq.metrics.features.blocks import Blocks
from vq.metrics.features.raw import write_features
from vq.metrics.features.reference import Reference, dry_name, write_reference
from vq.metrics.features.store import Collected, FeatureStore
from vq.registries import VQRunnerRegistry
from vq.runners.context import RunContext
from vq.runners.progress import ProgressBar

logger = logging.getLogger('vq')


@VQRunnerRegistry.register_()
class StatisticsWriter(Runner):
    """Writes ``pretrained/fid/<dataset>_<split>.npz`` (``..._<network>.npz`` if the network is not FID's Inception): mean,
    covariance, count, and a description of dataset and network.

    Every ``save_every`` images each rank saves its sums and its position. A second call resumes from these files if dataset,
    network, batch size and number of ranks are the same. ``features`` also stores fp16 features and logits of every image,
    which kernel distances, precision and recall need. ``features_file`` is an ``.npz`` file of its own for the pooled
    features of every image in fp32, with ids (``vq/metrics/features/raw.py``). It is one or the other.
    """

    def __init__(
        self,
        network: FeatureNetwork,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        features: bool = False,
        features_file: str | None = None,
        save_every: int = 20_000,
    ) -> None:
        if features and features_file is not None:
            raise ConfigError('features would be kept twice, in fp16 and in fp32', 'Set features or features_file.')
        self.network, self.dataset, self.dataloader, self.strategy = network, dataset, dataloader, strategy
        self.model = network  # commands load pretrained files into ``model``
        self.features, self.save_every = features, save_every
        self.features_file = None if features_file is None else Path(features_file)

    def bind(self, context: RunContext) -> None:
        self.context, self.work_dir = context, context.work_dir

    @property
    def file(self) -> Path:
        if self.context.random_weights:  # must not be found in place of real ones
            return self.work_dir / f'{dry_name(self.context.name)}_{self.dataset.split}.npz'
        folder = pretrained_root() / 'fid'
        network = self.network.description['network']
        suffix = '' if network == 'FIDInception' else f'_{network.lower()}'
        return folder / f'{self.dataset.name}_{self.dataset.split}{suffix}.npz'

    def run(self) -> Reference:
        try:
            self.strategy.start()
            self.context.prepare()
            self.network.to(self.strategy.device)
            return self._measure()
        finally:
            self.strategy.stop()

    @torch.no_grad()
    def _measure(self) -> Reference:
        rank, world = self.strategy.rank, self.strategy.world_size
        size = self.dataloader.per_rank(world)
        has = self._fields()
        rows = tuple(name for name in ('pooled', 'logits') if name in has) if self.features else ()
        statistics = tuple(name for name in ('pooled', 'spatial') if name in has)
        keep, dtype = (rows, torch.float16) if self.features_file is None else (('pooled',), torch.float32)
        self.store = FeatureStore(statistics, keep, dtype, budget=0)
        self.image_size: list[int] | None = None
        blocks = Blocks(self.network, self.store)
        done = self._resume(world, size)
        plan = list(evaluation_plan(len(self.dataset), size, rank, world))[done:]
        started, saved = time.perf_counter(), done
        with Loader(self.dataset, plan, self.dataloader, self.context.seed, training=False) as loader:
            for host_batch in self._counted(loader, sum(map(len, plan))):
                batch = self.strategy.to_device(host_batch)
                image = batch.pixels()
                self.image_size = [int(image.shape[-2]), int(image.shape[-1])]
                blocks.add(batch.key, image)
                done += 1
                if (done - saved) * size * world >= self.save_every:
                    blocks.finish()
                    self._save(done, world, size)
                    saved = done
            skipped = len(loader.skipped)
        blocks.finish()
        collected = self.store.finish()
        seconds = time.perf_counter() - started
        reference = self._reference(collected, sum(collectives.all_gather_object(skipped)), rows)
        run_on_all_ranks(
            lambda: write_reference(self.file, reference) if collectives.is_main() else None, 'writing the statistics'
        )
        if self.features_file is not None:
            self._write_features(self.features_file, collected, reference.about)
        self._partial.unlink(missing_ok=True)
        if collectives.is_main():
            logger.info(
                '%d images in %.0f s (%.1f a second): %s', collected.count, seconds, len(plan) * size / seconds, self.file
            )
        return reference

    def _fields(self) -> tuple[str, ...]:
        """The kinds of features that the network returns, found with one black image."""
        black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=self.strategy.device)
        return tuple(name for name, value in self.network(black)._asdict().items() if value is not None)

    def _counted(self, loader: Loader, total: int) -> Iterator[Any]:
        with ProgressBar('features', total, 'images', visible=collectives.is_main()) as bar:
            for batch in loader:
                yield batch
                bar.advance(len(batch))

    def _about(self) -> dict[str, Any]:
        hashes = [file_digest(file)[:16] for file in self.network.pretrained_files() if file.is_file()]
        return {
            **self.network.description,
            'network_hash': 'random weights' if self.context.random_weights else '+'.join(hashes),
            'dataset': self.dataset.name,
            'split': self.dataset.split,
            'fingerprint': self.dataset.fingerprint(),
        }

    def _reference(self, collected: Collected, skipped: int, rows: tuple[str, ...]) -> Reference:
        sizes = [size for size in collectives.all_gather_object(self.image_size) if size is not None]
        about = {**self._about(), 'image_size': sizes[0], 'repeated': collected.repeated, 'skipped': skipped}
        kept = {name: collected.rows(name) for name in rows}
        found = {name: value for name, value in kept.items() if value is not None}
        return Reference(f'{self.dataset.name}_{self.dataset.split}', dict(collected.moments), about, found)

    def _write_features(self, file: Path, collected: Collected, about: dict[str, Any]) -> None:
        rows = collected.rows('pooled')  # on the main rank alone

        def write() -> None:
            if rows is not None:
                names = {key_of(name): name for name in map(self.dataset.id_of, range(len(self.dataset)))}
                write_features(file, rows, [names[key] for key in collected.keys.tolist()], about)
                logger.info('features of %d images: %s', len(rows), file)

        run_on_all_ranks(write, 'writing the features')

    # resuming

    @property
    def _partial(self) -> Path:
        return self.work_dir / f'partial_{self.strategy.rank}.pt'

    def _identity(self, world: int, size: int) -> str:
        return repr([self._about(), world, size, self.features, self.features_file is not None])

    def _save(self, done: int, world: int, size: int) -> None:
        state = {'identity': self._identity(world, size), 'done': done, 'store': self.store.state_dict()}
        with atomic.atomic_file(self._partial) as writer:
            write_plain(writer, {**state, 'image_size': self.image_size}, 'statistics')

    def _resume(self, world: int, size: int) -> int:
        """Load the sums of an interrupted call; returns the number of batches that this rank has done."""
        if not self._partial.is_file():
            return 0
        state = read_torch(self._partial)
        if state['identity'] != self._identity(world, size):
            logger.warning('%s is of another dataset, network or setting; all images are measured again', self._partial)
            return 0
        self.store.load_state_dict(state['store'])
        self.image_size = state['image_size']
        logger.info('resuming after %d batches', state['done'])
        return int(state['done'])
