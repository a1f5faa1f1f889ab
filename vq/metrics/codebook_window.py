"""Codebook usage within windows of tokens: the figure that some papers call codebook usage."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.interfaces import Metric
from vq.metrics.codebook import number_codes
from vq.metrics.samples import first_of_each
from vq.registries import VQMetricRegistry


@VQMetricRegistry.register_()
class WindowedCodebookMetric(Metric):
    """'codebook_usage_65536': the share of codes with a hit in a window of 65,536 tokens, mean over windows.

    LlamaGen's definition, on evaluation images: 65,536 tokens are 256 images of 16 x 16. LlamaGen reports the last window
    of a training run on one rank. Here distinct images are sorted by key (the hash of their id), and their tokens are
    split into consecutive windows. An incomplete last window is dropped, unless it is the only one. If the codebook has
    more than ``window`` codes, the usage stays below 1. 'codebook_usage' of ``CodebookMetric`` is the share over the whole
    pass, which is never less.

    ``codebook_size`` is a list if each entry of the last axis of the tokens has its own codebook. A window then holds
    ``window`` tokens of each codebook. A validator sets ``codebook_size`` from its model. Tokens stay on the device until
    the end of the pass, 4 bytes each.
    """

    def __init__(self, codebook_size: int | list[int], window: int = 65536) -> None:
        self.sizes = (codebook_size,) if isinstance(codebook_size, int) else tuple(codebook_size)
        if not self.sizes or min(self.sizes) < 1:
            raise ConfigError(f'codebook_size {codebook_size}', 'Give the number of codes of the tokenizer.')
        if window < 1:
            raise ConfigError(f'a window of {window} tokens', 'Give 1 or more; papers use 65536.')
        self.window = window
        self.reset()

    def reset(self) -> None:
        self._keys: list[Tensor] = []  # (B,) int64 each
        self._tokens: list[Tensor] = []  # (B, n) int32 each

    def update(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.tokens is None:
            raise ConfigError(
                'codebook metrics need tokens, and this model has none',
                'Leave WindowedCodebookMetric out of the metrics of continuous tokenizers.',
            )
        self._keys.append(batch.key)
        self._tokens.append(number_codes(outputs.tokens, self.sizes).flatten(1).int())

    def compute(self) -> dict[str, float]:
        keys = torch.cat(self._keys).cpu() if self._keys else torch.empty(0, dtype=torch.int64)
        tokens = torch.cat(self._tokens).cpu() if self._tokens else torch.empty(0, 0, dtype=torch.int32)
        parts = collectives.all_gather_object((keys, tokens))
        keys = torch.cat([part[0] for part in parts])
        tokens = torch.cat([part[1] for part in parts if len(part[0])] or [tokens])
        return {f'codebook_usage_{self.window}': self._mean_usage(tokens[first_of_each(keys)].flatten())}

    def _mean_usage(self, tokens: Tensor) -> float:
        """Mean usage of the consecutive windows of tokens (n,)."""
        length = self.window * len(self.sizes)
        windows = [part for part in torch.split(tokens, length) if len(part) == length] or [tokens]
        return sum(len(torch.unique(window)) for window in windows) / (len(windows) * sum(self.sizes))
