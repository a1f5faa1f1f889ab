"""Residual quantization: every stage quantizes the residual of the stages before it."""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import no_autocast
from vq.quantizers.composite import Composite
from vq.registries import VQQuantizerRegistry


@VQQuantizerRegistry.register_()
class ResidualQuantizer(Composite):
    """r_1 = x,  q_i = Q_i(r_i),  r_(i+1) = r_i - sg(q_i),  z = sum_i q_i;  tokens (..., n), the coarsest first.

    (Zeghidour et al. 2021, SoundStream; Lee et al. 2022, RQ-VAE.) The Q_i are any quantizers of equal width. Each is
    straight-through, so the gradient of z reaches x once per stage: n times the gradient through one quantizer.

    - ``quantizer``: one quantizer, copied for each of the ``stages`` with codes of its own, or used by all of them if
      ``shared``; or a list of quantizers.
    - ``dropout``: the fraction of training examples (along the first axis) for which z sums only the first stages. Their
      number is drawn uniformly from 1 to n, so that any prefix of the tokens can be decoded. All stages still train on
      their residuals. ``lookup`` accepts prefixes whatever the dropout.
    """

    def __init__(
        self,
        quantizer: Quantizer | list[Quantizer],
        stages: int | None = None,
        shared: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(quantizer, stages, shared, 'stages')
        widths = sorted({part.embedding_dim for part in self.used()})
        if len(widths) > 1:
            raise ConfigError(f'the stages quantize {widths} channels', 'Give all of them the same embedding_dim.')
        if not 0 <= dropout <= 1:
            raise ConfigError(f'dropout is {dropout}', 'It is the fraction of examples that lose stages: from 0 to 1.')
        self.embedding_dim = widths[0]
        self.dropout = dropout

    def lookup(self, tokens: Tensor) -> Tensor:
        pieces = self.split(tokens)
        if not pieces or sum(self.widths[: len(pieces)]) != tokens.shape[-1]:
            raise ConfigError(
                f'tokens have the shape {tuple(tokens.shape)}, and the stages have {self.widths} tokens',
                'The last axis must have the tokens of all stages; only whole stages at its end can be left out.',
            )
        codes = [part.lookup(piece) for part, piece in zip(self.used(), pieces, strict=False)]
        return self._sum(codes)

    @staticmethod
    def _sum(codes: list[Tensor]) -> Tensor:
        """The sum in the order of the stages, so that forward and lookup give equal bits."""
        total = codes[0]
        for code in codes[1:]:
            total = total + code
        return total

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            rest = features.float()  # (..., C)
            found = []
            for part in self.used():
                quantized: Quantized = part(rest)
                rest = rest - quantized.z.detach()
                found.append(quantized)
            parts = [quantized.z for quantized in found]
            if self.training and self.dropout:
                kept = self._kept_stages(features)
                parts = [z * (kept > index) for index, z in enumerate(parts)]
            return self.join(found, self._sum(parts))

    def _kept_stages(self, features: Tensor) -> Tensor:
        """The number of stages that each example keeps, (B, 1, ..., 1)."""
        shape = (len(features),) + (1,) * (features.ndim - 1)
        some = torch.randint(1, self.count + 1, shape, device=features.device)
        return torch.where(torch.rand(shape, device=features.device) < self.dropout, some, self.count)

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, dropout={self.dropout}'
