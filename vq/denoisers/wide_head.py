"""The diffusion transformer with a wide head, for latents of many channels."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.denoisers.blocks import FinalLayer, ModulatedBlock, Patches, check_sizes, reset, unpatched
from vq.denoisers.dit import vector_of
from vq.denoisers.times import FourierTime
from vq.interfaces import Conditioned, Denoiser
from vq.nn.rope import RotaryTable
from vq.nn.sine_positions import SineGrid
from vq.nn.sizes import Size, size_named
from vq.registries import VQDenoiserRegistry

SIZES = {  # depth, dim and heads of the trunk; the head is the same for all (S and XL as in the key lists of RAE's files)
    'S': Size(12, 384, 6),
    'B': Size(12, 768, 12),
    'L': Size(24, 1024, 16),
    'XL': Size(28, 1152, 16),
}


def wide_head_size(name: str) -> dict[str, int]:
    """``dim``, ``depth`` and ``heads`` of a published size, for the constructor of ``WideHeadDiT``."""
    return size_named(name, SIZES)


@VQDenoiserRegistry.register_()
class WideHeadDiT(Denoiser):
    """A trunk that reads the condition, and a head, shallow and wide, that reads the trunk (DiT-DH of RAE, 2025; DDT, 2025):

    s = trunk(patches(z_t) | c),  c = silu(time(t) + condition);   u = W silu(time(t) + s);   value = head(patches'(z_t) | u)

    A latent of n channels needs a network wider than n: the head is, and it has few blocks. Trunk and head have patches of
    their own; every token of the head is modulated by the token of the trunk at its place. Blocks have rotary positions,
    RMSNorm and SwiGLU; tokens of the trunk also get sine-cosine positions. Time is told by random frequencies.
    """

    packs: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        dim: int,
        depth: int,
        heads: int,
        head_dim: int = 2048,
        head_depth: int = 2,
        head_heads: int = 16,
        patch: int = 1,
        mlp_ratio: float = 4.0,
        kind: PredictionKind = 'velocity',
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or head_depth < 1:
            raise ConfigError(f'depth is {depth} and head_depth {head_depth}', 'Give 1 block or more to both.')
        self.cells = check_sizes(cells, patch, ((dim, heads), (head_dim, head_heads)), rope=True)
        self.channels, self.dim, self.depth, self.heads, self.patch = channels, dim, depth, heads, patch
        self.head_dim, self.head_depth, self.head_heads = head_dim, head_depth, head_heads
        self.kind, self.mlp_ratio, self.qk_norm = kind, mlp_ratio, qk_norm
        self.grid = self.cells[0] // patch, self.cells[1] // patch
        count = self.grid[0] * self.grid[1]
        self.patches, self.positions = Patches(channels, dim, patch), SineGrid(*self.grid, dim)
        self.time = FourierTime(dim)
        self.blocks = _blocks(depth, dim, heads, mlp_ratio, qk_norm, RotaryTable(count, dim // heads, self.grid))
        self.head_patches = Patches(channels, head_dim, patch)
        self.bridge = nn.Linear(dim, head_dim) if dim != head_dim else nn.Identity()
        rope = RotaryTable(count, head_dim // head_heads, self.grid)
        self.head_blocks = _blocks(head_depth, head_dim, head_heads, mlp_ratio, qk_norm, rope)
        self.final = FinalLayer(head_dim, patch * patch * channels, 'rms')
        reset(self)
        self.time.mlp.reset_parameters()

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        x, u = self._tokens(z, t, condition)
        return Prediction(unpatched(self.final(x, u), self.patch, self.cells), self.kind)

    def features(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Tensor:
        """The tokens of the head after its last block."""
        return self._tokens(z, t, condition)[0]

    def headless(self) -> int:
        del self.final
        return self.head_dim

    def _tokens(self, z: Tensor, t: Tensor, condition: Conditioned | None) -> tuple[Tensor, Tensor]:
        """Tokens of the head, and what modulates them, both (B, N, head_dim)."""
        time, vector = self.time(t)[:, None], vector_of(condition, self.dim)
        c = F.silu(F.silu(time if vector is None else time + vector[:, None]))  # (B, 1, dim)
        s = self.positions(self.patches(z))
        for block in self.blocks:
            s = block(s, c)
        u = F.silu(self.bridge(F.silu(time + s)))  # (B, N, head_dim)
        x = self.head_patches(z)
        for block in self.head_blocks:
            x = block(x, u)
        return x, u


def _blocks(depth: int, dim: int, heads: int, mlp_ratio: float, qk_norm: bool, rope: RotaryTable) -> nn.ModuleList:
    return nn.ModuleList(ModulatedBlock(dim, heads, mlp_ratio, 'rms', 'swiglu', qk_norm, rope) for _ in range(depth))
