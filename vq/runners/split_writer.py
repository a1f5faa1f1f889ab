"""What writers of tokens and latents share: a split goes into shards, every sample exactly once, resumable, the same bytes for
any number of ranks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.core import collectives
from vq.core.errors import RunFailure, UserError
from vq.core.random import python_stream
from vq.core.records import to_float
from vq.core.specs import Size, plain_size, size_of
from vq.data.loading import Loader
from vq.interfaces import Tokenizer
from vq.io.ranks import run_on_all_ranks
from vq.io.shards import ShardRange, ShardWriter
from vq.io.spec import jsonable
from vq.runners.progress import ProgressBar
from vq.runners.validator import Validator

OF_A_TOTAL = 64  # samples per batch where the config gives the batch size of all ranks together


class SplitWriter(Validator):
    """A validator that writes shards to ``work_dir/KIND`` and computes nothing else.

    Each shard covers a fixed range of the split and is computed in its own batches, so neither the number of ranks nor a
    restart changes a byte.
    """

    kind: ClassVar[str]  # of the shards: tokens, latents
    doing: ClassVar[tuple[str, str]]  # words for the progress bar, and for the number of samples in the results
    shard_size: int
    variants: tuple[str, ...]
    crop_size: int | None = None

    def about(self) -> dict[str, str]:
        return {'metrics': ''}  # none is computed

    def needs_loaded(self) -> list[nn.Module]:
        """The tokenizer alone: no perceptual network and no metric is used."""
        tokenizer = getattr(self.model, 'tokenizer', None)
        return super().needs_loaded() if tokenizer is None else [tokenizer]

    def tokenizer_of(self) -> Tokenizer:
        """The model's tokenizer; an error if it has none, or one that cannot make what is written."""
        tokenizer = getattr(self.model, 'tokenizer', None)
        if not isinstance(tokenizer, Tokenizer):
            raise UserError(
                f'{type(self.model).__name__} has no tokenizer to write {self.kind} with',
                'Give the config of an image tokenization task.',
            )
        return tokenizer

    def rows(self) -> Sequence[int]:
        """The samples of the dataset that are written, in order."""
        return range(self.total)

    def columns(self, image: Tensor) -> dict[str, Tensor]:
        """What is written of images (B, 3, H, W) float, with an axis of variants: (B, variants, ...), on any device."""
        raise NotImplementedError

    def notes(self, columns: Mapping[str, Tensor]) -> dict[str, str]:
        """What a shard says of its columns, besides what it is."""
        return {}

    def sum_up(self, notes: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
        """The notes of the set, of those of its shards."""
        return {}

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """Write the missing shards. The results count all samples, and those written now."""
        self.model.eval()
        started, producer, rows = time.perf_counter(), self.describe(), self.rows()
        folder, (doing, done) = self.work_dir / self.kind, self.doing
        writer = ShardWriter(folder, self.kind, len(rows), self.shard_size, producer)
        pending = writer.pending(collectives.rank(), collectives.size())
        written = 0
        with ProgressBar(doing, sum(map(len, pending)), 'images', visible=collectives.is_main()) as bar:
            for part in pending:
                written += self._write(writer, part, rows, bar)
        collectives.barrier()
        run_on_all_ranks(
            lambda: writer.finish(self.sum_up) if collectives.is_main() else None, f'completing the shards of {self.kind}'
        )
        total = int(sum(collectives.all_gather_object(written)))
        seconds = time.perf_counter() - started
        return {
            'samples': len(rows),
            f'{done}_now': total,
            **{name: value for name, value in producer.items() if name in ('token_shape', 'latent_shape')},
            'folder': str(folder),
            'seconds': round(seconds, 3),
            'images_per_second': round(total / max(seconds, 1e-9), 2),
        }

    def describe(self) -> dict[str, Any]:
        """The ``producer`` entry of the manifest of the shards. The image size is that of the first sample."""
        self.tokenizer = self.tokenizer_of()
        height, width = self.dataset.load(0, python_stream('shape'))['image'].shape[:2]
        size = size_of(self.crop_size or (height, width))
        return {
            'tokenizer_config_hash': self.context.meta.get('tokenizer_config_hash', ''),
            'weights_hash': self.context.meta.get('tokens_hash', ''),
            **self.describe_codes(size),
            'image_size': jsonable(plain_size(size)),
            'dataset': self.dataset.name,
            'split': self.dataset.split,
            'dataset_fingerprint': self.dataset.fingerprint(),
            'variants': list(self.variants),
            'random_weights': self.context.random_weights,
            **({} if self.crop_size is None else {'cropped_from': jsonable(plain_size((height, width)))}),
        }

    def describe_codes(self, size: Size) -> dict[str, Any]:
        """What the producer says of the tokens or latents of an image of this size."""
        raise NotImplementedError

    def _write(self, writer: ShardWriter, part: ShardRange, rows: Sequence[int], bar: ProgressBar) -> int:
        own, size = rows[part.start : part.stop], self.dataloader.batch_size
        if self.dataloader.batch_size_in_total:  # the share of a rank would change with their number, and low bits of latents
            size = min(size, OF_A_TOTAL)
        plan = [[(0, index) for index in own[start : start + size]] for start in range(0, len(own), size)]
        found: list[dict[str, Tensor]] = []
        categories, ids = [], []
        with Loader(self.dataset, plan, self.dataloader, self.context.seed, training=False) as loader:
            for host_batch in loader:
                batch = self.strategy.to_device(host_batch)
                with self.strategy.autocast():
                    found.append(self.columns(to_float(batch.image)))
                categories.append(torch.full((len(batch),), -1) if host_batch.category is None else host_batch.category)
                ids += batch.id
                bar.advance(len(batch))
        seen = set(ids)
        skipped = [name for index in own if (name := self.dataset.id_of(index)) not in seen]
        if not ids:
            raise RunFailure(
                f'none of the {len(skipped)} images from {skipped[0]} on can be read', 'Check these files; see bad_images.'
            )
        columns = {name: torch.cat([batch[name] for batch in found]).cpu() for name in found[0]}
        category = torch.cat(categories)
        writer.write(part, {**columns, 'category': category}, ids, skipped, self.notes(columns))
        return len(ids)
