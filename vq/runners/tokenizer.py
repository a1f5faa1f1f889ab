"""Write the tokens of a split into shards: every sample exactly once, resumable, the same bytes for any number of ranks."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from vq.core import collectives
from vq.core.errors import ConfigError, RunFailure, UserError
from vq.core.random import python_stream
from vq.core.records import to_float
from vq.core.specs import plain_size, size_of
from vq.data.crops import check_views, view
from vq.data.loading import Loader, LoaderSettings
from vq.interfaces import Dataset, Metric, Strategy, Task, Tokenizer
from vq.io.ranks import run_on_all_ranks
from vq.io.shards import ShardRange, ShardWriter
from vq.io.spec import jsonable
from vq.registries import VQITRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.progress import ProgressBar
from vq.runners.protocol import ValidatorLike
from vq.runners.validator import Validator


@VQITRunnerRegistry.register_('Tokenizer')
class TokenWriter(Validator):
    """A validator that writes tokens to ``work_dir/tokens`` and computes nothing else.

    Each shard covers a fixed range of the dataset and is tokenised in its own batches, so neither the number of ranks nor a
    restart changes a byte. ``variants`` can add the mirror image of each sample, or name crops of ``crop_size`` pixels
    instead; see vq/data/crops.py.
    """

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
        shard_size: int = 8192,
        variants: tuple[str, ...] = ('center',),
        crop_size: int | None = None,
    ) -> None:
        super().__init__(model, dataset, dataloader, strategy, metrics, callbacks)
        check_views(tuple(variants), crop_size)
        self.shard_size, self.variants, self.crop_size = shard_size, tuple(variants), crop_size

    def about(self) -> dict[str, str]:
        return {'metrics': ''}  # none is computed

    def needs_loaded(self) -> list[nn.Module]:
        """The tokenizer alone: no perceptual network and no metric is used."""
        tokenizer = getattr(self.model, 'tokenizer', None)
        return super().needs_loaded() if tokenizer is None else [tokenizer]

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Write the missing shards. The results count all samples, and those tokenised now."""
        self.model.eval()
        started, producer = time.perf_counter(), self.describe()
        folder = self.work_dir / 'tokens'
        writer = ShardWriter(folder, kind='tokens', total=self.total, shard_size=self.shard_size, producer=producer)
        pending = writer.pending(collectives.rank(), collectives.size())
        written = 0
        with ProgressBar(
            'tokenising', sum(part.stop - part.start for part in pending), 'images', visible=collectives.is_main()
        ) as bar:
            for part in pending:
                written += self._write(writer, part, bar)
        collectives.barrier()
        run_on_all_ranks(lambda: writer.finish() if collectives.is_main() else None, 'completing the token shards')
        total = int(sum(collectives.all_gather_object(written)))
        seconds = time.perf_counter() - started
        return {
            'samples': self.total,
            'tokenised_now': total,
            'token_shape': producer['token_shape'],
            'folder': str(folder),
            'seconds': round(seconds, 3),
            'images_per_second': round(total / max(seconds, 1e-9), 2),
        }

    def describe(self) -> dict[str, Any]:
        """The ``producer`` entry of the manifest of the shards. The image size is that of the first sample."""
        tokenizer = getattr(self.model, 'tokenizer', None)
        if not isinstance(tokenizer, Tokenizer):
            raise UserError(
                f'{type(self.model).__name__} has no tokenizer to write tokens with',
                'Give the config of an image tokenization task.',
            )
        if not tokenizer.can_tokenize:
            raise UserError(
                f'{type(tokenizer).__name__} is continuous: it has no tokens to write',
                'Give the config of a discrete tokenizer.',
            )
        self.tokenizer = tokenizer
        height, width = self.dataset.load(0, python_stream('shape'))['image'].shape[:2]
        if self.crop_size is not None and self.crop_size > min(height, width):
            raise ConfigError(
                f'crops of {self.crop_size} pixels do not fit into samples of {width} x {height}',
                'Give the dataset a transform to a larger image_size, or the writer a smaller crop_size.',
            )
        size = size_of(self.crop_size or (height, width))
        tokens = tokenizer.token_spec(size)
        return {
            'tokenizer_config_hash': self.context.meta.get('tokenizer_config_hash', ''),
            'weights_hash': self.context.meta.get('tokens_hash', ''),
            'codebook_size': tokens.codebook_size,
            'token_shape': list(tokens.shape),
            'image_size': jsonable(plain_size(size)),
            'dataset': self.dataset.name,
            'split': self.dataset.split,
            'dataset_fingerprint': self.dataset.fingerprint(),
            'variants': list(self.variants),
            'random_weights': self.context.random_weights,
            **({} if self.crop_size is None else {'cropped_from': jsonable(plain_size((height, width)))}),
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
                    found = [self.tokenizer.tokenize(view(image, variant, self.crop_size)) for variant in self.variants]
                tokens.append(torch.stack(found, dim=1))  # (B, variants, *tokens.shape), on the device: copied once per shard
                categories.append(torch.full((len(batch),), -1) if host_batch.category is None else host_batch.category)
                ids += batch.id
                bar.advance(len(batch))
        seen = set(ids)
        skipped = [name for index in range(part.start, part.stop) if (name := self.dataset.id_of(index)) not in seen]
        if not ids:
            raise RunFailure(
                f'none of the {len(skipped)} images from {skipped[0]} on can be read', 'Check these files; see bad_images.'
            )
        columns = {'tokens': torch.cat(tokens).cpu().numpy(), 'category': torch.cat(categories).numpy()}
        writer.write(part, columns, ids, skipped)
        return len(ids)
