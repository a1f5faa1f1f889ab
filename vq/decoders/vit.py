"""A vision transformer that turns code vectors into pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.interfaces import Decoder
from vq.nn.vit import EPS, STD, init_linear, make_blocks
from vq.registries import VQDecoderRegistry


@VQDecoderRegistry.register_()
class ViTDecoder(Decoder):
    """code vectors (B, in_channels, h, w) -> image (B, 3, h * patch, w * patch): every token becomes a patch of pixels.

        y = W z + position;  depth blocks;  norm;  patch = V y, with V (3 * patch^2, dim)

    The defaults are the base size. The large one, as in the pixel decoders of VQ-KD, is ``dim=1280, depth=32, heads=16``.

    - ``grid``: positions are learned for ``grid`` x ``grid`` cells. For other grids they are resized, bicubic.
    """

    def __init__(
        self,
        in_channels: int,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        grid: int = 16,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        if patch < 1 or grid < 1:
            raise ConfigError(f'patch is {patch} and grid is {grid}', 'Give 1 or more of each.')
        self.in_channels, self.out_channels = in_channels, 3
        self.upsampling = self.patch = patch
        self.grid = grid
        self.stem = nn.Conv2d(in_channels, dim, 1)
        self.positions = nn.Embedding(grid * grid, dim)  # an embedding, so without weight decay
        self.blocks = make_blocks(depth, dim, heads, mlp_ratio)
        self.norm_out = nn.LayerNorm(dim, eps=EPS)
        self.out = nn.Linear(dim, 3 * patch * patch)
        nn.init.trunc_normal_(self.positions.weight, std=STD, a=-2 * STD, b=2 * STD)
        for layer in (self.stem, self.out):
            init_linear(layer)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.blocks]

    def features(self, z: Tensor) -> Tensor:
        """(B, in_channels, h, w) -> (B, h, w, dim)."""
        x = self.stem(z)
        height, width = x.shape[-2:]
        x = (x + self._positions(height, width)).flatten(2).transpose(1, 2)  # (B, h * w, dim)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm_out(x)
        return found.view(x.shape[0], height, width, x.shape[-1])

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, dim, height, width)."""
        learned = self.positions.weight.t().reshape(1, -1, self.grid, self.grid)
        if (height, width) == (self.grid, self.grid):
            return learned
        return F.interpolate(learned.float(), (height, width), mode='bicubic')

    def project(self, features: Tensor) -> Tensor:
        return F.pixel_shuffle(self.out(features).permute(0, 3, 1, 2), self.patch)

    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        return patch_gradients(features, gradients, self.patch)


@torch.no_grad()
def patch_gradients(features: Tensor, gradients: Tensor, patch: int) -> Tensor:
    """V acts on each cell separately: its gradient is the sum over cells of (gradient at the patch) times (features).

    features (B, h, w, dim), gradients of n losses at the image (n, B, 3, H, W) -> (n, 3 * patch^2, dim), fp32.
    """
    n = gradients.shape[0]
    patches = F.pixel_unshuffle(gradients.flatten(0, 1), patch)  # (n * B, 3 * patch^2, h, w)
    patches = patches.view(n, -1, *patches.shape[1:]).transpose(1, 2).flatten(2)  # (n, 3 * patch^2, B * h * w)
    rows = features.flatten(0, 2)  # (B * h * w, dim)
    return torch.matmul(patches.to(rows.dtype), rows).float()
