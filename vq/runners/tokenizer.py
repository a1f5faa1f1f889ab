"""Write the tokens of a split into shards: every sample exactly once, resumable, the same bytes for any number of ranks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.core.random import python_stream
from vq.core.specs import Size
from vq.data.crops import check_views, view
from vq.data.loading import LoaderSettings
from vq.interfaces import Dataset, Metric, Strategy, Task, Tokenizer
from vq.registries import VQITRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.protocol import ValidatorLike
from vq.runners.split_writer import SplitWriter


@VQITRunnerRegistry.register_('Tokenizer')
class TokenWriter(SplitWriter):
    """A validator that writes tokens to ``work_dir/tokens`` and computes nothing else: see ``SplitWriter``.

    ``variants`` can add the mirror image of each sample, or name crops of ``crop_size`` pixels instead; see vq/data/crops.py.
    """

    kind: ClassVar[str] = 'tokens'
    doing: ClassVar[tuple[str, str]] = ('tokenising', 'tokenised')

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

    def tokenizer_of(self) -> Tokenizer:
        tokenizer = super().tokenizer_of()
        if not tokenizer.can_tokenize:
            raise UserError(
                f'{type(tokenizer).__name__} is continuous: it has no tokens to write',
                'Give the config of a discrete tokenizer. Latents are written by vq data latents.',
            )
        if self.crop_size is not None:
            height, width = self.dataset.load(0, python_stream('shape'))['image'].shape[:2]
            if self.crop_size > min(height, width):
                raise ConfigError(
                    f'crops of {self.crop_size} pixels do not fit into samples of {width} x {height}',
                    'Give the dataset a transform to a larger image_size, or the writer a smaller crop_size.',
                )
        return tokenizer

    def describe_codes(self, size: Size) -> dict[str, Any]:
        tokens = self.tokenizer.token_spec(size)
        return {'codebook_size': tokens.codebook_size, 'token_shape': list(tokens.shape)}

    def columns(self, image: Tensor) -> dict[str, Tensor]:
        found = [self.tokenizer.tokenize(view(image, variant, self.crop_size)) for variant in self.variants]
        return {'tokens': torch.stack(found, dim=1)}  # (B, variants, *tokens.shape)
