"""Transformer blocks on the cells of a UNet, which attend to a sequence: texts, or any other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.unet.attention import cells_of, head_count, map_of
from vq.denoisers.unet.residual import norm_of
from vq.interfaces import ConditionBlock
from vq.interfaces.conditions import Conditioned
from vq.nn.recompute import Recomputed
from vq.registries import VQUNetBlockRegistry

EPS = 1e-6  # of the group norm, as in published networks


class Attending(nn.Module):
    """x (B, N, dim), context (B, L, context_dim) -> (B, N, dim).  ``mask`` (B, L) bool: the entries that are there."""

    def __init__(self, dim: int, context_dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.k, self.v = nn.Linear(context_dim, dim, bias=False), nn.Linear(context_dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(context), self.v(context))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        y: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return y


class GEGLU(nn.Module):
    """W2 (a gelu(g)),  (a, g) = W1 x  (Shazeer 2020)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(dim, 2 * width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.into(x).chunk(2, dim=-1)
        y: Tensor = self.out(value * F.gelu(gate))
        return y


class CrossBlock(nn.Module):
    """h = x + self(norm1(x)),  g = h + cross(norm2(h), context),  y = g + mlp(norm3(g))."""

    added = ('prompts', 'prompt_proj', 'image_proj')  # published networks have none of them

    def __init__(
        self, dim: int, sequence_dim: int, heads: int, prompts: int = 0, prompt_dim: int = 128, image_tokens: bool = False
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.own, self.cross = Attending(dim, dim, heads), Attending(dim, sequence_dim, heads)
        self.mlp = GEGLU(dim, 4 * dim)
        self.prompts = nn.Parameter(torch.randn(prompts, prompt_dim)) if prompts else None
        self.prompt_proj = nn.Linear(prompt_dim, sequence_dim, bias=False) if prompts else None
        self.image_proj = nn.Linear(dim, sequence_dim, bias=False) if image_tokens else None

    def forward(self, x: Tensor, sequence: Tensor | None, mask: Tensor | None) -> Tensor:
        normal = self.norm1(x)
        x = x + self.own(normal, normal)
        normal = self.norm2(x)
        context = [] if sequence is None else [sequence]
        if self.prompts is not None and self.prompt_proj is not None:
            context.append(self.prompt_proj(self.prompts).expand(len(x), -1, -1))
        if self.image_proj is not None:
            context.append(self.image_proj(normal))
        keys = torch.cat(context, dim=1)
        if mask is not None:  # what stands behind the sequence is always there
            mask = torch.cat([mask, mask.new_ones(len(x), keys.shape[1] - mask.shape[1])], dim=1)
        x = x + self.cross(normal, keys, mask)
        y: Tensor = x + self.mlp(self.norm3(x))
        return y


@VQUNetBlockRegistry.register_()
class SpatialTransformer(Recomputed, ConditionBlock):
    """y = x + proj(blocks(into(norm(x))))  on the cells of x, which attend to each other and to a sequence (latent diffusion,
    Rombach et al. 2022).

    ``depth``: number of ``CrossBlock``. ``prompts``: so many learned entries of ``prompt_dim`` channels stand behind those of
    the sequence, and with ``image_tokens`` the cells themselves behind these (the task prompt of LayoutDiffuse). With any of
    them it does without a sequence. ``proj`` starts at zero.
    """

    reads = ('sequence',)

    def __init__(
        self,
        channels: int,
        sequence_dim: int | None,
        groups: int = 32,
        heads: int = 8,
        head_dim: int | None = None,
        depth: int = 1,
        prompts: int = 0,
        prompt_dim: int = 128,
        image_tokens: bool = False,
    ) -> None:
        super().__init__()
        if sequence_dim is None or depth < 1 or prompts < 0:
            raise ConfigError(
                f'sequence_dim is {sequence_dim}, depth {depth} and prompts {prompts}',
                'A SpatialTransformer attends to a sequence: set sequence_dim of the UNet to its channels, e.g. 768 for '
                'CLIP, with 1 block or more.',
            )
        count, self.alone = head_count(channels, heads, head_dim), prompts > 0 or image_tokens
        self.norm = norm_of(channels, groups, EPS)
        self.into, self.proj = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            CrossBlock(channels, sequence_dim, count, prompts, prompt_dim, image_tokens) for _ in range(depth)
        )
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def compute(self, x: Tensor, condition: Conditioned | None) -> Tensor:
        if not self.alone and (condition is None or condition.sequence is None):
            raise ConfigError(
                'this UNet attends to a sequence, and the conditioner gives none',
                'Take a conditioner of sequences, or attn_block_type="SelfAttention".',
            )
        sequence, mask = (None, None) if condition is None else (condition.sequence, condition.sequence_mask)
        cells = self.into(cells_of(self.norm(x)))
        for block in self.blocks:
            cells = block(cells, sequence, mask)
        return x + map_of(self.proj(cells), x)
