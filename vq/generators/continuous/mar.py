"""Masked autoregressive generation of continuous tokens (MAR)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from vq.core.bindings import Source
from vq.core.errors import ConfigError
from vq.generators.continuous.tokens import LatentTokens, condition_vector, token_channels
from vq.generators.networks.mar import MARNetwork, picked
from vq.interfaces import Conditioned, ContinuousGenerator, Streams, TokenDrawing, TokenHead
from vq.nn.sizes import Size, size_named
from vq.registries import VQContinuousGeneratorRegistry
from vq.sampling.masked import hidden_counts, truncated_normal_mask_ratio

# depth of encoder and of decoder, dim, heads: B, L and H as published, 2XS of its fork
SIZES = {'2XS': Size(3, 384, 6), 'B': Size(12, 768, 12), 'L': Size(16, 1024, 16), 'H': Size(20, 1280, 16)}


def mar_size(name: str) -> dict[str, int]:
    """``depth``, ``dim`` and ``heads`` of a published size, for the constructor of ``MAR``."""
    return size_named(name, SIZES)


def _head_dim(settings: Mapping[str, Any]) -> int | None:
    found: int | None = settings.get('decoder_dim') or settings.get('dim')
    return found


@VQContinuousGeneratorRegistry.register_()
class MAR(ContinuousGenerator):
    """p(hidden tokens | visible tokens, condition) by a head for each token:  sum_(i hidden) loss(x_i, z_i(x_visible, c)).

    (Li et al. 2024, Autoregressive Image Generation without Vector Quantization.) See ``MARNetwork`` for z, and
    ``DiffusionHead`` for the loss.

    Training. A share r of the tokens is hidden,  r ~ N(mask_mean, mask_std^2) truncated to [mask_min, 1],  one r for all
    images of a step on all ranks: encoders read as many tokens of each. Which ones is drawn for each image. The loss is the
    mean over hidden tokens.

    Drawing. Tokens are fixed in a random order of each image, in ``num_iter`` iterations; after iteration t of T,
    floor(L cos(pi t / 2 T)) of L are hidden. Guidance is called with the number of tokens that are then there, of L + 1: a
    schedule that is linear in it is the published one, which ends at 1 + (scale - 1) (L - 1) / L.

    ``decoder_dim``, ``decoder_depth``, ``decoder_heads``: None for those of the encoder. ``mar_size``: the published sizes.
    """

    takes = ('cfg_schedule', 'guidance', 'num_iter')
    network: MARNetwork
    head: TokenHead
    binds: ClassVar[dict[str, Source]] = {'head.channels': token_channels, 'head.dim': _head_dim}

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        dim: int,
        depth: int,
        heads: int,
        head: TokenHead,
        decoder_dim: int | None = None,
        decoder_depth: int | None = None,
        decoder_heads: int | None = None,
        patch: int = 1,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        buffer: int = 64,
        mask_mean: float = 1.0,
        mask_std: float = 0.25,
        mask_min: float = 0.7,
    ) -> None:
        super().__init__()
        if not 0 <= mask_min < 1 or not mask_std > 0 or buffer < 1:
            raise ConfigError(
                f'mask_min is {mask_min}, mask_std {mask_std} and buffer {buffer}',
                'Choose a share of at least 0 and below 1, a deviation above 0, and 1 place or more for the condition.',
            )
        self.channels, self.cells, self.dim, self.depth, self.heads = channels, tuple(cells), dim, depth, heads
        self.layout = LatentTokens(channels, self.cells, patch)
        self.mask_mean, self.mask_std, self.mask_min = mask_mean, mask_std, mask_min
        decoder = (decoder_dim or dim, decoder_depth or depth, decoder_heads or heads)
        if (head.channels, head.dim) != (self.layout.width, decoder[0]):
            raise ConfigError(
                f'the head makes {head.channels} numbers of vectors of {head.dim}; tokens have {self.layout.width} numbers '
                f'and vectors of {decoder[0]}',
                'Leave channels and dim of the head out.',
            )
        self.network = MARNetwork(
            self.layout.width, self.layout.length, dim, depth, heads, *decoder, mlp_ratio, dropout, buffer
        )
        self.head = head

    @property
    def loss_weights(self) -> dict[str, float]:
        return self.head.loss_weights

    def hidden_count(self, uniform: float) -> int:
        """ceil(r L), at least 1, for a number in [0, 1)."""
        drawn = torch.tensor(uniform, dtype=torch.float64, device='cpu')
        ratio = float(truncated_normal_mask_ratio(drawn, self.mask_mean, self.mask_std, self.mask_min))
        return min(max(math.ceil(ratio * self.layout.length), 1), self.layout.length)

    def forward(self, latents: Tensor, condition: Conditioned | None, streams: Streams) -> dict[str, Tensor]:
        x = self.layout.tokens(latents)
        order = streams.uniforms(self.layout.length, of='order').argsort(dim=1, stable=True)
        count = self.hidden_count(streams.shared)
        z = self.network(x, order[:, count:], condition_vector(condition, x, self.dim))
        hidden = order[:, :count]
        found: dict[str, Tensor] = self.head(picked(x, hidden), picked(z, hidden), streams)
        return found

    def generate(
        self,
        streams: Streams,
        condition: Conditioned | None,
        empty: Conditioned | None,
        drawing: TokenDrawing,
        given: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        order = streams.uniforms(self.layout.length, of='order')
        hidden, x = self.layout.length, order.new_zeros(*order.shape, self.layout.width)
        if given is not None and keep is not None:
            kept = self.layout.kept(keep)
            x = torch.where(kept[:, None], self.layout.tokens(given), x)
            order, hidden = order + kept, hidden - int(kept.sum())  # kept ones come last: they are never hidden
        order = order.argsort(dim=1, stable=True)
        vector = condition_vector(condition, x, self.dim)
        null = None if empty is None else condition_vector(empty, x, self.dim)
        counts = hidden_counts(hidden, drawing.num_iter)
        for step, left in enumerate(counts):
            # the first of an order are hidden longest; places in raster order, so that sums are those of the published code
            fixed, visible = order[:, left:hidden].sort(1).values, order[:, hidden:].sort(1).values
            asked = order[:, :hidden].sort(1).values if self.head.joint else fixed
            scale = float(drawing.guidance(self.layout.length - max(left, 1), self.layout.length + 1))
            z, without = self._vectors(x, visible, vector, null if scale != 1 else None, asked)

            def noise(purpose: str, step: int = step, count: int = asked.shape[1]) -> Tensor:
                return streams.normals(count, self.layout.width, of=f'iteration {step} {purpose}')

            drawn = self.head.draw(z, without, scale, drawing, noise)
            if self.head.joint:
                drawn = picked(drawn, torch.searchsorted(asked, fixed))
            x = x.scatter(1, fixed[..., None].expand_as(drawn), drawn.to(x.dtype))
            hidden = left
            if drawing.watch is not None:
                drawing.watch(step + 1, len(counts), None)
        return self.layout.latents(x)

    def _vectors(
        self, x: Tensor, visible: Tensor, vector: Tensor, null: Tensor | None, asked: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """z (B, n, decoder_dim) of the tokens asked for, with and without the condition, from one pass."""
        if null is None:
            return picked(self.network(x, visible, vector), asked), None
        both = self.network(x.repeat(2, 1, 1), visible.repeat(2, 1), torch.cat([vector, null]))
        known, unknown = picked(both, asked.repeat(2, 1)).chunk(2)
        return known, unknown
