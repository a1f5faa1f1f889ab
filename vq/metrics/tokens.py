"""How well a generator predicts the tokens of validation images."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.interfaces import Metric
from vq.metrics.accuracy import place_of
from vq.metrics.samples import first_of_each
from vq.registries import VQMetricRegistry


@VQMetricRegistry.register_()
class TokenMetric(Metric):
    """Over all predicted positions of distinct images:

    'token_loss'        mean of -log p(token), nats
    'token_perplexity'  exp of the mean loss
    'token_bits'        -log2 p of all tokens of an image, mean over images: the length of an ideal code
    'token_top1', 'token_top5'   the share of tokens among the k most likely ones

    ``describe`` returns the mean loss of each position, in the order of the sequence. With a masked generator only masked
    tokens count. 'token_bits' is then left out, since tokens are not predicted one after the other.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._keys: list[Tensor] = []
        self._parts: list[Tensor] = []  # (B, 4, L) fp32 each: loss, top1, top5, and 1 if predicted
        self.position_loss: list[float] = []
        self._hidden = False

    def update(self, batch: Batch, outputs: Outputs) -> None:
        predicted = outputs.predicted
        if predicted is None:
            raise ConfigError('TokenMetric needs a model that predicts tokens', 'Leave TokenMetric out of the metrics.')
        shape = predicted.targets.shape
        logits, targets = predicted.logits.flatten(0, 1).float(), predicted.targets.flatten()
        loss = F.cross_entropy(logits, targets, reduction='none')
        place = place_of(logits, targets)
        counts = torch.ones_like(loss) if predicted.mask is None else predicted.mask.flatten().to(loss.dtype)
        self._hidden |= predicted.mask is not None
        self._keys.append(batch.key)
        self._parts.append(
            torch.stack([part.view(shape) for part in (loss, (place < 1).float(), (place < 5).float(), counts)], dim=1)
        )

    def compute(self) -> dict[str, float]:
        own = (torch.cat(self._keys).cpu(), torch.cat(self._parts).cpu()) if self._keys else None
        parts = [part for part in collectives.all_gather_object(own) if part is not None]
        keys = torch.cat([part[0] for part in parts])
        rows = torch.cat([part[1] for part in parts])[first_of_each(keys)].double()  # (N, 4, L), in the order of the keys
        counts = rows[:, 3]
        seen = counts.sum(0)
        self.position_loss = ((rows[:, 0] * counts).sum(0) / seen).tolist()
        loss, top1, top5 = ((rows[:, which] * counts).sum().item() / counts.sum().item() for which in range(3))
        figures = {'token_loss': loss, 'token_perplexity': math.exp(min(loss, 700)), 'token_top1': top1, 'token_top5': top5}
        if not self._hidden:
            figures['token_bits'] = loss * rows.shape[2] / math.log(2)
        return figures

    def describe(self) -> dict[str, Any]:
        return {'position_loss': [round(value, 5) for value in self.position_loss]}
