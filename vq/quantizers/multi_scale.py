"""VAR's multi-scale residual quantization: one codebook quantizes a map from coarse to fine scales."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.core.records import Quantized
from vq.core.specs import TokenSpec
from vq.interfaces import Quantizer
from vq.nn.precision import no_autocast
from vq.registries import VQQuantizerRegistry

OWN = ('codebook', 'commitment')


@VQQuantizerRegistry.register_()
class MultiScaleQuantizer(Quantizer):
    """f_0 = 0,  k_s = Q(down_s(f - f_(s-1))),  f_s = f_(s-1) + phi_s(up(c[k_s])),  z = f_S, straight-through.

    (Tian et al. 2024, VAR, algorithms 1 and 2.) ``down`` averages areas to s x s cells, ``up`` is bicubic to the full map,
    phi_s(h) = (1 - r) h + r conv(h). Scale number i of S uses the convolution whose tick is nearest to i / (S - 1); ticks are
    spread evenly over 0 to 1. Maps must be square, (B, h, h, C), with h the last of ``scales``. Tokens are flat,
    (B, sum s^2): scale after scale, each in row-major order.

    Losses are means over scales and elements: 'codebook' = mse(f_s, sg(f)), the only loss that trains the convolutions,
    and 'commitment' = mse(sg(f_s), f). Q is any quantizer with one token per cell. Losses of Q with these two names are
    dropped, its other losses are averaged over the scales.

    - ``convolutions``: the number of convolutions that the scales share; None for one per scale.
    - ``residual``: r.
    """

    def __init__(
        self,
        quantizer: Quantizer,
        scales: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        convolutions: int | None = 4,
        residual: float = 0.5,
        codebook_weight: float = 1.0,
        commitment_weight: float = 0.25,
    ) -> None:
        super().__init__()
        if not scales or scales[0] < 1 or any(before >= after for before, after in pairwise(scales)):
            raise ConfigError(f'scales are {tuple(scales)}', 'Give growing whole numbers from 1 on, for example (1, 2, 4, 8).')
        if quantizer.token_spec(()).shape:
            raise ConfigError(
                f'{type(quantizer).__name__} has several tokens per cell', 'Use a quantizer with one token per cell.'
            )
        if quantizer.feature_dim != quantizer.embedding_dim:
            raise ConfigError(
                f'{type(quantizer).__name__} takes {quantizer.feature_dim} channels and gives {quantizer.embedding_dim}',
                'Use a quantizer whose feature_dim and embedding_dim are equal.',
            )
        if convolutions is not None and convolutions < 1:
            raise ConfigError(f'convolutions is {convolutions}', 'Give a number from 1 on, or None for one per scale.')
        self.quantizer = quantizer
        self.scales = tuple(scales)
        self.residual = float(residual)
        self.embedding_dim = quantizer.embedding_dim
        self.codebook_size = quantizer.codebook_size
        self.updates_in_forward = quantizer.updates_in_forward
        self.own_weights = {'codebook': codebook_weight, 'commitment': commitment_weight}
        count = len(scales) if convolutions is None else convolutions
        self.blends = nn.ModuleList(
            nn.Conv2d(self.embedding_dim, self.embedding_dim, 3, padding=1, dtype=torch.float32) for _ in range(count)
        )
        self.chosen = nearest_ticks(len(scales), count)
        idle = sorted(set(range(count)) - set(self.chosen))
        if idle:
            raise ConfigError(
                f'of {count} convolutions for {len(scales)} scales, {len(idle)} would never be used',
                'Give fewer convolutions, or None for one per scale.',
            )

    @property
    def loss_weights(self) -> Mapping[str, float]:  # type: ignore[override]
        return {**self.quantizer.loss_weights, **self.own_weights}

    @property
    def bits(self) -> float:
        return self.quantizer.bits

    @property
    def size(self) -> int:
        """Rows and columns of the map."""
        return self.scales[-1]

    def token_spec(self, cells: tuple[int, ...]) -> TokenSpec:
        if cells != (self.size, self.size):
            raise ConfigError(
                f'features come as {" x ".join(map(str, cells)) or "single vectors"}, and scales {self.scales} need maps of '
                f'{self.size} x {self.size}',
                f'Choose image_size so that the encoder gives {self.size} x {self.size} cells, or other scales.',
            )
        return TokenSpec((sum(scale * scale for scale in self.scales),), self.codebooks)

    def reset_parameters(self) -> None:
        """New random codes and convolutions; also called after a move off the meta device."""
        self.quantizer.reset_parameters()  # type: ignore[operator]
        for blend in self.blends:
            blend.reset_parameters()  # type: ignore[operator]

    def update(self, ok: Tensor | None = None) -> None:
        self.quantizer.update(ok)

    def forward(self, features: Tensor) -> Quantized:
        if features.ndim != 4 or features.shape[1:3] != (self.size, self.size):
            raise UserError(
                f'features have the shape {tuple(features.shape)}, and scales {self.scales} quantize maps '
                f'(B, {self.size}, {self.size}, {self.embedding_dim})',
                f'Use images of the size for which the encoder gives {self.size} x {self.size} cells.',
            )
        with no_autocast(features.device):
            f = features.float().permute(0, 3, 1, 2)  # (B, C, h, w)
            fixed = f.detach()
            so_far, rest = torch.zeros_like(fixed), fixed
            tokens, terms = [], []
            for index, scale in enumerate(self.scales):
                quantized: Quantized = self.quantizer(self._down(rest, scale).permute(0, 2, 3, 1))  # takes (B, s, s, C)
                tokens.append(quantized.tokens.flatten(1))
                explained = self._explained(quantized.tokens, index)
                so_far, rest = so_far + explained, rest - explained.detach()
                terms.append(
                    {name: value for name, value in quantized.losses.items() if name not in OWN}
                    | {'codebook': F.mse_loss(so_far, fixed), 'commitment': F.mse_loss(f, so_far.detach())}
                )
            losses = {name: torch.stack([term[name] for term in terms]).mean() for name in terms[0]}
            z = (so_far.detach() + (f - fixed)).permute(0, 2, 3, 1)
            return Quantized(z, torch.cat(tokens, dim=1), losses)

    def lookup(self, tokens: Tensor) -> Tensor:
        """tokens (B, sum s^2) -> z (B, h, w, C)."""
        return self.partial_maps(tokens)[-1]

    # for generators of the tokens

    def split(self, tokens: Tensor) -> list[Tensor]:
        """tokens (B, sum s^2) -> (B, s, s) for each scale. Tokens of only the first scales are allowed."""
        pieces: list[Tensor] = []
        start = 0
        for scale in self.scales:
            if start == tokens.shape[1]:
                break
            pieces.append(tokens[:, start : start + scale * scale])
            start += scale * scale
        if not pieces or start != tokens.shape[1]:
            raise UserError(
                f'{tokens.shape[1]} tokens are not a whole number of the scales {self.scales}',
                f'All scales together have {sum(scale * scale for scale in self.scales)} tokens.',
            )
        return [piece.reshape(-1, scale, scale) for piece, scale in zip(pieces, self.scales, strict=False)]

    def partial_maps(self, tokens: Tensor) -> list[Tensor]:
        """f_s after each scale in ``tokens``, (B, h, w, C) each: the maps that can be decoded so far."""
        maps: list[Tensor] = []
        with no_autocast(tokens.device):
            pieces = self.split(tokens)
            so_far = torch.zeros(len(tokens), self.embedding_dim, self.size, self.size, device=tokens.device)
            for index, piece in enumerate(pieces):
                so_far = so_far + self._explained(piece, index)
                maps.append(so_far.permute(0, 2, 3, 1))
        return maps

    def next_input(self, so_far: Tensor, index: int) -> Tensor:
        """f_s (B, h, w, C), averaged to s x s cells: the generator's input for scale ``index`` (from 0), (B, s^2, C)."""
        with no_autocast(so_far.device):
            return self._down(so_far.permute(0, 3, 1, 2), self.scales[index]).flatten(2).transpose(1, 2)

    def teacher_forcing(self, tokens: Tensor) -> Tensor:
        """tokens (B, sum s^2) -> the generator's inputs for all scales but the first, (B, sum s^2 - s_1^2, C)."""
        maps = self.partial_maps(tokens)[:-1]
        return torch.cat([self.next_input(so_far, index) for index, so_far in enumerate(maps, 1)], dim=1)

    def _down(self, rest: Tensor, scale: int) -> Tensor:
        """(B, C, h, w) -> (B, C, s, s)."""
        return rest if scale == self.size else F.interpolate(rest, size=(scale, scale), mode='area')

    def _explained(self, tokens: Tensor, index: int) -> Tensor:
        """tokens (B, s, s) -> f_s - f_(s-1) (B, C, h, w). The only implementation, so equal tokens give equal bits."""
        codes = self.quantizer.lookup(tokens).permute(0, 3, 1, 2)  # (B, C, s, s)
        if codes.shape[-1] != self.size:
            codes = F.interpolate(codes, size=(self.size, self.size), mode='bicubic')
        blended: Tensor = codes * (1 - self.residual) + self.blends[self.chosen[index]](codes) * self.residual
        return blended

    def extra_repr(self) -> str:
        return f'scales={self.scales}, residual={self.residual}, own_weights={self.own_weights}'


def nearest_ticks(scales: int, count: int) -> list[int]:
    """For each scale the index of its convolution, below ``count``. With 4 convolutions VAR's ticks lie further out."""
    edge = 1 / 3 / count if count == 4 else 1 / 2 / count
    ticks = np.linspace(edge, 1 - edge, count)
    places = [index / max(scales - 1, 1) for index in range(scales)]
    return [int(np.argmin(np.abs(ticks - place))) for place in places]
