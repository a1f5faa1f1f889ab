"""Tokens of a discrete tokenizer that are replaced by others in training, like the errors of a generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Coding, Perturbation, Quantizer
from vq.nn.perturbations.masks import random_ranks
from vq.nn.precision import no_autocast
from vq.registries import VQPerturbationRegistry


@VQPerturbationRegistry.register_()
class TokenSwap(Perturbation):
    """In a share of the ``images``, a ``share`` of the tokens is replaced by others;  z = c_k' + z - sg(z)  there.

    (RobusTok, Qiu et al. 2025: in a tenth of the images, among the 100 nearest, with a share that falls in training.) k' is
    uniform among the ``nearest`` other codes by |c_k - c_k'|, or among all other codes. Gradients pass straight through. A
    share that changes during training is an AnnealCallback with the setting tokenizer.perturbation.share.

    ``nearest`` compares the swapped images' codes with all codes in every step, as the search of a VectorQuantizer does.
    """

    def __init__(self, share: float = 0.5, images: float = 0.1, nearest: int | None = 100) -> None:
        super().__init__()
        if not 0 <= share <= 1 or not 0 <= images <= 1 or (nearest is not None and nearest < 1):
            raise ConfigError(
                f'share is {share}, images {images} and nearest {nearest}',
                'Give shares from 0 to 1, and a number of codes from 1 up.',
            )
        self.share, self.images, self.nearest = share, float(images), nearest

    def check(self, channels: int, quantizer: Quantizer | None) -> None:
        if quantizer is None:
            raise ConfigError('TokenSwap replaces tokens, and the tokenizer is continuous', 'Take another perturbation.')
        if quantizer.token_spec((3, 5)).shape != (3, 5):
            raise ConfigError(
                f'TokenSwap needs one token in each cell, and {type(quantizer).__name__} has others',
                'Take a quantizer with one codebook, or another perturbation.',
            )
        most = quantizer.codebook_size - 1
        if (self.nearest or 1) > most:
            raise ConfigError(f'TokenSwap chooses among {self.nearest} codes of {most} others', 'Choose fewer.')

    def forward(self, z: Tensor, coding: Coding | None = None) -> Tensor:
        count = math.ceil(self.images * len(z))
        if not self.training or not count:
            return z
        assert coding is not None and coding.tokens is not None and coding.quantizer is not None
        rows = torch.rand(len(z), device=z.device).argsort()[:count]
        tokens = coding.tokens[rows]  # (n, *cells)
        with torch.no_grad(), no_autocast(z.device):
            codes = coding.quantizer.lookup(self._others(tokens, coding.quantizer)).movedim(-1, 1)  # (n, C, *cells)
        ranks = random_ranks(z[:count])
        some = torch.rand(count, 1, device=z.device) < self.images * len(z) / count  # in small batches not every time
        chosen = ((ranks + 0.5 < self.share * ranks.shape[1]) & some).view(count, 1, *z.shape[2:])
        old = z[rows]
        return z.index_copy(0, rows, torch.where(chosen, codes.to(z.dtype) + (old - old.detach()), old))

    def _others(self, tokens: Tensor, quantizer: Quantizer) -> Tensor:
        """For each token another one."""
        size = quantizer.codebook_size
        if self.nearest is None:
            return (tokens + 1 + torch.randint(size - 1, tokens.shape, device=tokens.device)) % size
        table = quantizer.lookup(torch.arange(size, device=tokens.device)).float()  # (K, C)
        flat = tokens.flatten()
        distances = table.square().sum(-1) - 2 * table[flat] @ table.T  # (n, K), up to a constant of each row
        distances.scatter_(1, flat[:, None], torch.inf)
        found = distances.topk(self.nearest, largest=False, sorted=False).indices
        pick = torch.randint(self.nearest, (len(flat), 1), device=tokens.device)
        return found.gather(1, pick).view_as(tokens)
