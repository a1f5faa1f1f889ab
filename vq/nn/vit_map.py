"""A vision transformer from a map to a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.nn.positions import resize_positions
from vq.nn.vit import EPS, STD, init_linear, make_blocks


class ViTMap(nn.Module):
    """x (B, in_channels, H, W) -> y (B, out_channels, H / patch, W / patch), as both networks of VQ-KD.

        t = (class token, patches of x) + position;  depth blocks without key bias;  n = norm(t without the class token)
        y = V tanh(U n), with U (dim, dim)

    (Peng et al. 2022, BEiT v2.) Positions are learned for ``grid`` x ``grid`` patches; for other grids they are resized,
    bicubic, by BEiT v2's factors: see ``resize_positions``. Initial weights: normal of deviation 0.02, see ``make_blocks``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        grid: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        if patch < 1 or grid < 1:
            raise ConfigError(f'patch is {patch} and grid is {grid}', 'Give 1 or more of each.')
        self.in_channels, self.out_channels, self.patch = in_channels, out_channels, patch
        self.stem = nn.Conv2d(in_channels, dim, patch, patch)
        self.class_token = nn.Parameter(torch.empty(dim))  # a vector, so without weight decay
        self.positions = nn.Embedding(1 + grid * grid, dim)  # an embedding, likewise; the class token's first
        self.blocks = make_blocks(depth, dim, heads, mlp_ratio, key_bias=False)
        self.norm_out = nn.LayerNorm(dim, eps=EPS)
        self.task_in = nn.Linear(dim, dim)
        self.task_out = nn.Linear(dim, out_channels)
        for table in (self.class_token, self.positions.weight):
            nn.init.trunc_normal_(table, std=STD, a=-2 * STD, b=2 * STD)
        for layer in (self.stem, self.task_in, self.task_out):
            init_linear(layer)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.blocks]

    def body(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> n (B, h, w, dim)."""
        if x.shape[-2] % self.patch or x.shape[-1] % self.patch:
            raise ConfigError(
                f'maps of {x.shape[-2]} x {x.shape[-1]} are no whole number of patches of {self.patch} x {self.patch}',
                'Give sides that are multiples of patch.',
            )
        patches = self.stem(x)
        height, width = patches.shape[-2:]
        positions = resize_positions(self.positions.weight[None], height, width).to(self.positions.weight.dtype)
        first = (self.class_token + positions[:, :1]).expand(len(patches), 1, -1)
        tokens = torch.cat((first, patches.flatten(2).transpose(1, 2) + positions[:, 1:]), 1)  # (B, 1 + h * w, dim)
        for block in self.blocks:
            tokens = block(tokens)
        found: Tensor = self.norm_out(tokens[:, 1:])
        return found.view(len(x), height, width, found.shape[-1])

    def head(self, features: Tensor) -> Tensor:
        """n (B, h, w, dim) -> y (B, out_channels, h, w)."""
        found: Tensor = self.task_out(torch.tanh(self.task_in(features)))
        return found.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
