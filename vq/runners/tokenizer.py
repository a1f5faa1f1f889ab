"""Turn a split into token shards: every sample exactly once, resumable, the same bytes whatever the number of ranks."""

from __future__ import annotations

import time
from typing import Any

import torch

from vq.core import collectives
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import python_stream
from vq.core.records import to_float
from vq.data.loading import Loader, LoaderSettings
from vq.interfaces import Callback, Dataset, Metric, Strategy, Task, Tokenizer
from vq.io.ranks import together
from vq.io.shards import ShardRange, ShardWriter
from vq.registries import VQITRunnerRegistry
from vq.runners.progress import ProgressBar
from vq.runners.validator import Validator

VARIANTS = ('center', 'flip')


@VQITRunnerRegistry.register_('Tokenizer')
class TokenWriter(Validator):
    """A validator that keeps tokens and computes nothing else. Its files lie in ``work_dir/tokens``.

    Each shard covers a fixed range of the dataset and is tokenised in batches of its own, so that neither ranks nor a
    restart change a byte. ``variants`` may add the mirror image of each sample.
    """

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: list[Callback] | None = None,
        shard_size: int = 8192,
        variants: tuple[str, ...] = ('center',),
    ) -> None:
        super().__init__(model, dataset, dataloader, strategy, metrics, callbacks)
        unknown = [variant for variant in variants if variant not in VARIANTS]
        if unknown or not variants:
            raise ConfigError(f'token variants are {variants}', f'Choose from {VARIANTS}.')
        self.shard_size, self.variants = shard_size, tuple(variants)

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Write what is not written yet; the results say how much there is."""
        self.model.eval()
        tokenizer = getattr(self.model, 'tokenizer', None)
        if not isinstance(tokenizer, Tokenizer):
            raise UserError(
                f'{type(self.model).__name__} has no tokenizer to write tokens with',
                'Give the config of an image tokenization task.',
            )
        if not tokenizer.codebook_size:
            raise UserError(
                f'{type(tokenizer).__name__} is continuous: it has no tokens to write',
                'Give the config of a discrete tokenizer.',
            )
        self.tokenizer, started = tokenizer, time.perf_counter()
        first = self.dataset.load(0, python_stream('shape'))['image']
        shape = tokenizer.token_shape(first.shape[0])
        folder = self.work_dir / 'tokens'
        writer = ShardWriter(
            folder, kind='tokens', total=self.total, shard_size=self.shard_size, producer=self._producer(first.shape[0], shape)
        )
        pending = writer.pending(collectives.rank(), collectives.size())
        written = 0
        with ProgressBar(
            'tokenising', sum(part.stop - part.start for part in pending), 'images', visible=collectives.is_main()
        ) as bar:
            for part in pending:
                written += self._write(writer, part, bar)
        collectives.barrier()
        together(lambda: writer.finish() if collectives.is_main() else None, 'completing the token shards')
        total = int(sum(collectives.all_gather_object(written)))
        seconds = time.perf_counter() - started
        return {
            'samples': self.total,
            'tokenised_now': total,
            'token_shape': list(shape),
            'folder': str(folder),
            'seconds': round(seconds, 3),
            'images_per_second': round(total / max(seconds, 1e-9), 2),
        }

    def _producer(self, image_size: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            **{name: self.context.meta.get(name, '') for name in ('tokenizer_config_hash', 'weights_hash')},
            'codebook_size': self.tokenizer.codebook_size,
            'token_shape': list(shape),
            'image_size': image_size,
            'dataset': self.dataset.name,
            'split': self.dataset.split,
            'dataset_fingerprint': self.dataset.fingerprint(),
            'variants': list(self.variants),
            'random_weights': self.context.random_weights,
        }

    def _write(self, writer: ShardWriter, part: ShardRange, bar: ProgressBar) -> int:
        size = self.dataloader.per_rank(self.strategy.world_size)
        plan = (
            [(0, index) for index in range(start, min(start + size, part.stop))]
            for start in range(part.start, part.stop, size)
        )
        tokens, categories, ids = [], [], []
        with Loader(self.dataset, plan, self.dataloader, self.context.seed, training=False) as loader:
            for host_batch in loader:
                batch = self.strategy.to_device(host_batch)
                image = to_float(batch.image)
                with self.strategy.autocast():
                    found = [
                        self.tokenizer.tokenize(image.flip(-1) if variant == 'flip' else image) for variant in self.variants
                    ]
                tokens.append(torch.stack(found, dim=1))  # (B, variants, *token_shape); read once per shard, not per batch
                categories.append(torch.full((len(batch),), -1) if host_batch.category is None else host_batch.category)
                ids += batch.id
                bar.advance(len(batch))
        seen = set(ids)
        skipped = [name for index in range(part.start, part.stop) if (name := self.dataset.id_of(index)) not in seen]
        if not ids:
            raise RunFailure(
                f'none of the {len(skipped)} images from {skipped[0]} on can be read', 'Look at these files; see bad_images.'
            )
        columns = {'tokens': torch.cat(tokens).cpu().numpy(), 'category': torch.cat(categories).numpy()}
        writer.write(part, columns, ids, skipped)
        return len(ids)
