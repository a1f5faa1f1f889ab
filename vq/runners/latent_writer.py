"""Write the latents of a split into shards, with their statistics: ``vq data latents``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from vq.core.errors import ConfigError, UserError
from vq.core.specs import Size
from vq.data.crops import check_views, view
from vq.data.loading import LoaderSettings
from vq.interfaces import Dataset, Metric, Strategy, Task, Tokenizer
from vq.io import latent_statistics
from vq.registries import VQITRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.protocol import ValidatorLike
from vq.runners.split_writer import SplitWriter
from vq.tokenizers.with_decoder import TokenizerWithDecoder

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@VQITRunnerRegistry.register_()
class LatentWriter(SplitWriter):
    """A validator that writes latents to ``work_dir/latents`` and computes nothing else: see ``SplitWriter``.

    Columns: ``mean`` (n, variants, C, *cells), the input of the decoder in evaluation, which is the mean of a Gaussian or the
    code vectors; ``logvar`` of the same shape if the tokenizer has one; ``category``, ``id``. Both are before normalization.

    - ``variants``: 'center', and 'flip' for the latent of the mirror image, which is not the mirrored latent.
    - ``dtype``: 'float32' or 'bfloat16'.
    - ``classes``: numbers of the classes that are written; None: all samples.
    """

    kind: ClassVar[str] = 'latents'
    doing: ClassVar[tuple[str, str]] = ('encoding', 'encoded')

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
        shard_size: int = 1024,
        variants: tuple[str, ...] = ('center', 'flip'),
        dtype: Literal['float32', 'bfloat16'] = 'float32',
        classes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(model, dataset, dataloader, strategy, metrics, callbacks)
        check_views(tuple(variants), None)
        if dtype not in DTYPES:
            raise ConfigError(f"the dtype of latents is '{dtype}'", f'Choose from: {", ".join(DTYPES)}.')
        self.shard_size, self.variants = shard_size, tuple(variants)
        self.dtype, self.classes = dtype, None if classes is None else sorted(set(classes))

    def tokenizer_of(self) -> Tokenizer:
        tokenizer = super().tokenizer_of()
        return tokenizer.frozen.tokenizer if isinstance(tokenizer, TokenizerWithDecoder) else tokenizer

    def rows(self) -> Sequence[int]:
        if self.classes is None:
            return super().rows()
        category_of = getattr(self.dataset, 'category_of', None)
        if category_of is None or self.dataset.categories is None:
            raise UserError(
                f'{self.dataset.name} ({self.dataset.split}) has no classes to choose from', 'Leave --classes out.'
            )
        wanted = set(self.classes)
        return [index for index in range(self.total) if category_of(index) in wanted]

    def describe_codes(self, size: Size) -> dict[str, Any]:
        latent = self.tokenizer.spec(size).latent
        if latent is None:
            raise UserError(
                f'{type(self.tokenizer).__name__} has no latents to write', 'Its tokens can be written: vq tokenize.'
            )
        return {
            'latent_shape': list(latent.shape),
            'dtype': self.dtype,
            'precision': getattr(self.strategy, 'precision', 'fp32'),  # of the encoder
            'transform': self.context.preprocessing.get('transform'),
            **({} if self.classes is None else {'classes': self.classes}),
        }

    def columns(self, image: Tensor) -> dict[str, Tensor]:
        means, logvars = [], []
        for variant in self.variants:
            latent = self.tokenizer.encode(view(image, variant))
            means.append(self.tokenizer.code(latent)[0])
            if latent.logvar is not None:
                logvars.append(latent.logvar)
        found = {'mean': means, 'logvar': logvars} if logvars else {'mean': means}
        return {name: torch.stack(values, dim=1).to(DTYPES[self.dtype]) for name, values in found.items()}

    def notes(self, columns: Mapping[str, Tensor]) -> dict[str, str]:
        """Sums over the images themselves, as the statistics in tokenizers are, not over their mirror images."""
        return {latent_statistics.KEY: json.dumps(latent_statistics.of(columns['mean'][:, 0].double().numpy()))}

    def sum_up(self, notes: Sequence[Mapping[str, str]]) -> Mapping[str, Any]:
        merged = latent_statistics.merged([json.loads(note[latent_statistics.KEY]) for note in notes])
        categories = self.dataset.categories
        return {'statistics': merged, **({} if categories is None else {'categories': list(categories)})}
