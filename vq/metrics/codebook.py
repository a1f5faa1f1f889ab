"""Codebook usage over a whole validation pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.core.records import Batch, Outputs
from vq.interfaces import Metric
from vq.registries import VQMetricRegistry


@VQMetricRegistry.register_()
class CodebookMetric(Metric):
    """Counts n_k of all tokens of all distinct images, over all ranks; p_k = n_k / sum n.

    - 'codebook_usage': the share of codes with n_k > 0 (any hit over the pass).
    - 'codebook_entropy': -sum p log p, in nats; 'perplexity': exp of the entropy.
    - 'dead_codes': the number of codes with n_k = 0.

    ``codebook_size`` is a list if each entry of the last axis of the tokens has its own codebook (residual and grouped
    quantization). Usage and dead codes are then over all codebooks and the entropy is their mean. Each codebook also has
    its own figures, 'codebook_usage_1' and so on. A validator sets ``codebook_size`` from its model.

    An image with a repeated id is counted once. On one rank this needs the ids alone. With several ranks, tokens stay on
    the device until the end of the pass (4 bytes each, 51 MB for 50,000 images of 256 tokens), because only the exchange
    of keys at the end shows which images several ranks have seen.
    """

    def __init__(self, codebook_size: int | list[int]) -> None:
        self.sizes = (codebook_size,) if isinstance(codebook_size, int) else tuple(codebook_size)
        if not self.sizes or min(self.sizes) < 1:
            raise ConfigError(f'codebook_size {codebook_size}', 'Give the number of codes of the tokenizer.')
        self.codebook_size = sum(self.sizes)
        self.reset()

    def reset(self) -> None:
        self._counts: Tensor | None = None  # (K,) int64
        self._seen: set[str] = set()
        self._keys: list[Tensor] = []  # (b,) int64 each
        self._tokens: list[Tensor] = []  # (b, n) int32 each

    def update(self, batch: Batch, outputs: Outputs) -> None:
        if outputs.tokens is None:
            raise ConfigError(
                'codebook metrics need tokens, and this model has none',
                'Leave CodebookMetric out of the metrics of continuous tokenizers.',
            )
        new = self._new_rows(batch.id)
        tokens, key = number_codes(outputs.tokens, self.sizes).flatten(1), batch.key  # (B, n), (B,)
        if len(new) < len(tokens):
            rows = torch.tensor(new, dtype=torch.int64).to(tokens.device, non_blocking=True)
            tokens, key = tokens[rows], key[rows]
        if self._counts is None:
            self._counts = torch.zeros(self.codebook_size, dtype=torch.int64, device=tokens.device)
        add_counts(self._counts, tokens)
        if collectives.size() > 1:
            self._keys.append(key)
            self._tokens.append(tokens.int())

    def _new_rows(self, ids: list[str]) -> list[int]:
        """Rows of a batch with ids that are new on this rank."""
        rows = []
        for row, name in enumerate(ids):
            if name not in self._seen:
                self._seen.add(name)
                rows.append(row)
        return rows

    def compute(self) -> dict[str, float]:
        counts = torch.zeros(self.codebook_size, dtype=torch.int64) if self._counts is None else self._counts.cpu()
        if collectives.size() > 1:
            counts = sum(collectives.all_gather_object(counts - self._counted_elsewhere()), torch.zeros_like(counts))
        return usage(counts, self.sizes)

    def _counted_elsewhere(self) -> Tensor:
        """Counts (K,) of those images of this rank that a lower rank has counted, too."""
        keys = torch.cat(self._keys).cpu() if self._keys else torch.empty(0, dtype=torch.int64)
        lower = collectives.all_gather_object(keys)[: collectives.rank()]
        repeated = torch.isin(keys, torch.cat([*lower, keys.new_empty(0)]))
        counts = torch.zeros(self.codebook_size, dtype=torch.int64)
        start = 0
        for tokens in self._tokens:
            rows = repeated[start : start + len(tokens)]
            start += len(tokens)
            if rows.any():
                add_counts(counts, tokens.cpu()[rows])
        return counts


def add_counts(counts: Tensor, tokens: Tensor) -> None:
    """Add the histogram of tokens (B, n) to counts (K,)."""
    flat = tokens.reshape(-1).long()
    counts.scatter_add_(0, flat, torch.ones_like(flat))


def number_codes(tokens: Tensor, sizes: Sequence[int]) -> Tensor:
    """tokens (B, ..., n) of n codebooks -> indices into the concatenated codebooks."""
    if len(sizes) < 2:
        return tokens
    if tokens.shape[-1] != len(sizes):
        raise ConfigError(
            f'the last axis of tokens {tuple(tokens.shape)} does not match {len(sizes)} codebooks',
            'Give codebook_size as the list of the sizes of the codebooks, in the order of the last axis.',
        )
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return tokens + torch.tensor(starts, dtype=tokens.dtype).to(tokens.device, non_blocking=True)


def usage(counts: Tensor, sizes: Sequence[int] = ()) -> dict[str, float]:
    """The figures of counts (K,), in float64. Several ``sizes`` split the counts into codebooks."""
    figures = [_usage_of_one(count) for count in torch.split(counts, list(sizes) or [len(counts)])]
    entropy = sum(one['codebook_entropy'] for one in figures) / len(figures)
    dead = sum(one['dead_codes'] for one in figures)
    whole = {
        'codebook_usage': (len(counts) - dead) / len(counts),
        'perplexity': figures[0]['perplexity'] if len(figures) == 1 else math.exp(entropy),
        'codebook_entropy': entropy,
        'dead_codes': dead,
    }
    if len(figures) == 1:
        return whole
    return whole | {f'{name}_{number}': value for number, one in enumerate(figures, 1) for name, value in one.items()}


def _usage_of_one(counts: Tensor) -> dict[str, float]:
    share = counts.double() / counts.sum().clamp_min(1)
    entropy = -torch.xlogy(share, share).sum()
    return {
        'codebook_usage': int((counts > 0).sum()) / len(counts),
        'perplexity': entropy.exp().item(),
        'codebook_entropy': entropy.item(),
        'dead_codes': float((counts == 0).sum()),
    }
