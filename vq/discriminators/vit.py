"""A small vision transformer as a discriminator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.interfaces import Discriminator
from vq.nn.positions import resize_positions
from vq.nn.vit import EPS, STD, init_linear, make_blocks
from vq.registries import VQDiscriminatorRegistry


@VQDiscriminatorRegistry.register_()
class ViTDiscriminator(Discriminator):
    """image (B, 3, H, W) -> logits (B, 1) of whole images, or (B, h * w) of patches.

        t = (class token, patches of x) + position;  depth blocks;  logits = v . norm(t_0), or v . norm(t_i) for every patch

    No image of a batch influences another: there are no batch statistics. The defaults have 11 million parameters.

    - ``logits``: 'image', of the class token; or 'patches'.
    - ``grid``: positions are learned for ``grid`` x ``grid`` patches. For other grids they are resized, bicubic.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: int = 6,
        heads: int = 6,
        patch: int = 16,
        grid: int = 16,
        mlp_ratio: float = 4.0,
        logits: Literal['image', 'patches'] = 'image',
    ) -> None:
        super().__init__()
        if patch < 1 or grid < 1 or logits not in ('image', 'patches'):
            raise ConfigError(
                f"patch is {patch}, grid {grid}, logits '{logits}'",
                "Give 1 or more for the first two, and 'image' or 'patches' for the last.",
            )
        self.patch, self.logits = patch, logits
        self.stem = nn.Conv2d(3, dim, patch, patch)
        self.class_token = nn.Parameter(torch.empty(dim))  # a vector, so without weight decay
        self.positions = nn.Embedding(1 + grid * grid, dim)  # an embedding, likewise; the class token's first
        self.blocks = make_blocks(depth, dim, heads, mlp_ratio)
        self.norm_out = nn.LayerNorm(dim, eps=EPS)
        self.out = nn.Linear(dim, 1)
        for table in (self.class_token, self.positions.weight):
            nn.init.trunc_normal_(table, std=STD, a=-2 * STD, b=2 * STD)
        for layer in (self.stem, self.out):
            init_linear(layer)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.blocks]

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if height % self.patch or width % self.patch:
            raise UserError(
                f'images of {height} x {width} pixels are no whole number of patches of {self.patch} pixels',
                'Give ViTDiscriminator a patch that divides the sides of the images.',
            )
        patches = self.stem(image)
        positions = resize_positions(self.positions.weight[None], patches.shape[-2], patches.shape[-1], offset=0.0)
        tokens = torch.cat([self.class_token.expand(len(image), 1, -1), patches.flatten(2).transpose(1, 2)], 1) + positions
        for block in self.blocks:
            tokens = block(tokens)
        rows = tokens[:, :1] if self.logits == 'image' else tokens[:, 1:]
        logits: Tensor = self.out(self.norm_out(rows))
        return logits.squeeze(-1)
