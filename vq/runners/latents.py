"""Mean and deviation of a tokenizer's latents over a split, for the second stages that are trained on them."""

from __future__ import annotations

import time
from typing import Any, Literal

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.records import to_float
from vq.data.loading import LoaderSettings
from vq.interfaces import Dataset, Metric, Strategy, Task, Tokenizer
from vq.registries import VQITRunnerRegistry
from vq.runners.named import Callbacks
from vq.runners.protocol import ValidatorLike
from vq.runners.validator import Validator
from vq.tokenizers.with_decoder import TokenizerWithDecoder


@VQITRunnerRegistry.register_()
class LatentStatistics(Validator):
    """A validator that puts mean and deviation of z, the input of the decoder in evaluation, into the tokenizer.

        mean = E[z],  deviation = sqrt(E[(z - mean)^2]),  over images, and with ``per='channel'`` over cells

    Of a continuous tokenizer z is the mean of the latent, of a discrete one the code vectors. Sums are fp64, and each sample
    counts once for any number of ranks.
    """

    def __init__(
        self,
        model: Task,
        dataset: Dataset,
        dataloader: LoaderSettings,
        strategy: Strategy,
        metrics: dict[str, Metric] | None = None,
        callbacks: Callbacks[ValidatorLike] = None,
        per: Literal['channel', 'element'] = 'channel',
    ) -> None:
        super().__init__(model, dataset, dataloader, strategy, metrics, callbacks)
        self.per = per

    @torch.no_grad()
    def evaluate(self) -> dict[str, Any]:
        """The results describe the statistics; the values are in the tokenizer."""
        self.model.eval()
        tokenizer, started = self.tokenizer, time.perf_counter()
        tokenizer.statistics.clear()
        sums: Tensor | None = None  # (2, C) or (2, C, *cells): of z and z^2
        count = 0
        with self.open_loader() as loader, self._bar('measuring latents') as bar:
            for host_batch in loader:
                batch = self.strategy.to_device(host_batch)
                with self.strategy.autocast():
                    z = tokenizer.code(tokenizer.encode(to_float(batch.image)))[0]  # (B, C, *cells)
                z = z.cpu().double() if z.device.type == 'mps' else z.double()
                axes = (0, *range(2, z.ndim)) if self.per == 'channel' else (0,)
                found = torch.stack([z.sum(axes), z.square().sum(axes)])
                sums = found if sums is None else sums + found
                count += z.numel() // found[0].numel()
                bar.advance(len(batch))
        if sums is None:
            raise UserError('there are fewer images than ranks', 'Use fewer ranks, or a larger split.')
        total = collectives.all_reduce(torch.tensor([float(count)], dtype=torch.float64, device=sums.device))
        mean, square = collectives.all_reduce(sums) / total
        deviation = (square - mean.square()).clamp(min=0).sqrt()
        tokenizer.statistics.put(mean, deviation)
        return {
            'samples': self.total,
            'per': self.per,
            'latent': list(mean.shape),
            'mean': float(mean.mean()),
            'deviation': float(deviation.mean()),
            'constant': int((deviation == 0).sum()),
            'seconds': round(time.perf_counter() - started, 3),
        }

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        tokenizer = getattr(self.model, 'tokenizer', None)
        if not isinstance(tokenizer, Tokenizer) or isinstance(tokenizer, TokenizerWithDecoder):
            raise UserError(
                f'{type(self.model).__name__} has no tokenizer of its own to put statistics into',
                'Give the config and the weights of a tokenizer; of a new decoder, those of its frozen tokenizer.',
            )
        return tokenizer
