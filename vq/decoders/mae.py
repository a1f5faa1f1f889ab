"""The decoder of masked autoencoders, which is also that of representation autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError, UserError
from vq.decoders.vit import patch_gradients
from vq.interfaces import Decoder
from vq.nn.positions import resize_positions
from vq.nn.sine_positions import sine_grid
from vq.nn.vit import STD, init_linear, make_blocks
from vq.registries import VQDecoderRegistry

EPS = 1e-12  # of the norms


@VQDecoderRegistry.register_()
class MAEDecoder(Decoder):
    """latents (B, in_channels, h, w) -> image (B, 3, h * patch, w * patch); every latent becomes a patch of pixels.

        x_i = W z_i  (m where cell i is masked),  x_0 = class token;  depth blocks of x + positions;  norm
        patch_i = V x_i;  pixels in [0, 1] = pixel_deviation * patch + pixel_mean

    (He et al. 2022; representation autoencoders, RAE, 2025.) Positions are sines and cosines, not trained; that of the class
    token is zero. RAE's sizes on DINOv2-B are B, the default, and XL: ``dim=1152, depth=28, heads=16, mlp_ratio=32/9``.

    - ``grid``: positions are those of ``grid`` x ``grid`` cells. For other grids they are resized, bicubic.
    - ``class_token``: 'learned', a vector of this decoder; or 'given', the first cell of z (B, in_channels, 1 + h * w), as in
      ViT-MAE. Such a sequence has no shape, so its grid is taken to be a square.
    - ``masked``: z has one channel more, 1 where a cell is masked and else 0; m is learned. Without that channel, no cell is.
    - ``pixel_mean``, ``pixel_deviation``: of the normalisation of the encoder's images, for values in [0, 1].
    """

    positions: Tensor  # (1, 1 + grid^2, dim)
    scale: Tensor  # (1, 3, 1, 1), like shift: from the encoder's normalisation to [-1, 1]
    shift: Tensor

    def __init__(
        self,
        in_channels: int,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        grid: int = 16,
        mlp_ratio: float = 4.0,
        class_token: Literal['learned', 'given'] = 'learned',
        masked: bool = False,
        pixel_mean: Sequence[float] = (0.5, 0.5, 0.5),
        pixel_deviation: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        if patch < 1 or grid < 1 or class_token not in ('learned', 'given'):
            raise ConfigError(
                f"patch is {patch}, grid {grid}, class_token '{class_token}'",
                "Give 1 or more for the first two, and 'learned' or 'given' for the last.",
            )
        if len(pixel_mean) != 3 or len(pixel_deviation) != 3 or min(pixel_deviation) <= 0:
            raise ConfigError(
                f'pixel_mean is {tuple(pixel_mean)} and pixel_deviation {tuple(pixel_deviation)}',
                'Give three numbers of each, and deviations above 0.',
            )
        self.in_channels, self.out_channels, self.grid, self.masked = in_channels, 3, grid, masked
        self.upsampling = self.patch = patch
        self.stem = nn.Linear(in_channels, dim)
        # vectors, so without weight decay
        self.class_token = nn.Parameter(torch.empty(dim)) if class_token == 'learned' else None
        self.mask_token = nn.Parameter(torch.empty(dim)) if masked else None
        self.blocks = make_blocks(depth, dim, heads, mlp_ratio, eps=EPS)
        self.norm_out = nn.LayerNorm(dim, eps=EPS)
        self.out = nn.Linear(dim, 3 * patch * patch)
        fixed = F.pad(sine_grid(grid, grid, dim), (0, 0, 1, 0))[None].to(torch.get_default_device())
        self.register_buffer('positions', fixed, persistent=False)
        scale, mean = (torch.tensor(tuple(values)).view(1, 3, 1, 1) for values in (pixel_deviation, pixel_mean))
        self.register_buffer('scale', 2 * scale, persistent=False)
        self.register_buffer('shift', 2 * mean - 1, persistent=False)
        for layer in (self.stem, self.out):
            init_linear(layer)
        for vector in (self.class_token, self.mask_token):
            if vector is not None:
                nn.init.trunc_normal_(vector, std=STD, a=-2 * STD, b=2 * STD)

    def shard_blocks(self) -> list[nn.Module]:
        """The blocks that sharding strategies gather one at a time."""
        return [*self.blocks]

    def features(self, z: Tensor) -> Tensor:
        """(B, in_channels, h, w) or (B, in_channels, 1 + h * w), or with the channel of masks -> (B, h, w, dim)."""
        height, width = self._grid_of(z)
        cells = z.flatten(2).transpose(1, 2)  # (B, N, in_channels), or one channel more
        x = self.stem(cells[..., : self.in_channels])
        if self.mask_token is not None and cells.shape[-1] > self.in_channels:
            hidden = cells[..., self.in_channels :] > 0.5
            x = torch.where(hidden, self.mask_token.to(x.dtype), x)
        if self.class_token is not None:
            x = torch.cat([self.class_token.to(x.dtype).expand(len(x), 1, -1), x], 1)
        x = x + resize_positions(self.positions, height, width, offset=0.0)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm_out(x[:, 1:])
        return found.view(len(z), height, width, -1)

    def _grid_of(self, z: Tensor) -> tuple[int, int]:
        """(h, w)."""
        wanted = 4 if self.class_token is not None else 3
        if z.ndim == wanted and z.shape[1] - self.in_channels in ((0, 1) if self.masked else (0,)):
            if wanted == 4:
                return z.shape[-2], z.shape[-1]
            side = round((z.shape[-1] - 1) ** 0.5)
            if side > 0 and side * side + 1 == z.shape[-1]:
                return side, side
        cells = 'h, w' if wanted == 4 else '1 + h * h'
        raise UserError(
            f'MAEDecoder was given latents of the shape {tuple(z.shape)}', f'Give (B, {self.in_channels}, {cells}).'
        )

    def project(self, features: Tensor) -> Tensor:
        patches = F.pixel_shuffle(self.out(features).permute(0, 3, 1, 2), self.patch)
        return patches * self.scale + self.shift

    @torch.no_grad()
    def last_layer_gradients(self, features: Tensor, image: Tensor, gradients: Tensor) -> Tensor:
        return patch_gradients(features, gradients * self.scale, self.patch)
