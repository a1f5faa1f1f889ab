"""The diffusion transformer, in its published form and with the choices of later ones."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.core.records import Prediction, PredictionKind
from vq.denoisers.blocks import (
    BottleneckPatches,
    FinalLayer,
    MLPKind,
    ModulatedBlock,
    NormKind,
    Patches,
    Positions,
    TimeKind,
    check_choices,
    check_sizes,
    reset,
    unpatched,
)
from vq.denoisers.times import FourierTime, SineTime
from vq.interfaces import Conditioned, Denoiser
from vq.nn.rope import RotaryTable
from vq.nn.sine_positions import SineGrid
from vq.nn.sizes import Size, size_named
from vq.registries import VQDenoiserRegistry

SIZES = {'S': Size(12, 384, 6), 'B': Size(12, 768, 12), 'L': Size(24, 1024, 16), 'XL': Size(28, 1152, 16)}


def dit_size(name: str) -> dict[str, int]:
    """``dim``, ``depth`` and ``heads`` of a published size, for the constructor of ``DiT``."""
    return size_named(name, SIZES)


def vector_of(condition: Conditioned | None, dim: int) -> Tensor | None:
    """(B, dim); None without a condition."""
    if condition is None:
        return None
    if condition.vector is None or condition.vector.shape[-1] != dim:
        given = 'none' if condition.vector is None else f'one of {condition.vector.shape[-1]} channels'
        raise ConfigError(
            f'the denoiser takes its condition as a vector of {dim} channels, and the conditioner gives {given}',
            "Take a conditioner of vectors, e.g. ClassConditioner, with the denoiser's dim.",
        )
    return condition.vector


@VQDenoiserRegistry.register_()
class DiT(Denoiser):
    """z_t (B, channels, H, W) -> patches of p x p cells -> ``depth`` transformer blocks -> an estimate of ``kind``.

    (Peebles and Xie 2023.) The blocks are modulated by  c = silu(time(t) + condition),  see ``ModulatedBlock``. Defaults are
    the published form: fixed sine-cosine positions, LayerNorm without parameters, GELU, estimates of the noise.

    - ``learned_variance``: as many channels again, the variance of the reverse process.
    - ``timesteps`` T: the network is told the index t T - 1 of T steps, as published networks are; None: t itself.
    - ``time``: 'sine', or 'fourier', random frequencies for t itself. ``time_period``: the longest period of sines is 2 pi
      times that.
    - ``positions``: 'sine' is added to the tokens, 'rope' rotates queries and keys, 'both' does both.
    - ``norm``: 'rms' instead of 'layer'; ``mlp``: 'swiglu' instead of 'gelu'; ``qk_norm`` normalises queries and keys.
    - ``bottleneck``: channels between a patch and its token, for large patches of pixels (JiT: patch 16, bottleneck 128,
      kind 'x0'; Li and He 2025).

    - ``context``: so many tokens of the condition stand before those of the image, from block ``context_from`` on; None: after
      a third of the blocks (JiT: 32 tokens, block 4 of 12, 8 of 24, 10 of 32).

    ``dit_size`` has the published sizes.
    """

    packs: ClassVar[bool] = True

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        dim: int,
        depth: int,
        heads: int,
        patch: int = 2,
        mlp_ratio: float = 4.0,
        learned_variance: bool = False,
        kind: PredictionKind = 'epsilon',
        timesteps: int | None = 1000,
        time: TimeKind = 'sine',
        time_period: float = 10000.0,
        positions: Positions = 'sine',
        norm: NormKind = 'layer',
        mlp: MLPKind = 'gelu',
        qk_norm: bool = False,
        bottleneck: int | None = None,
        context: int = 0,
        context_from: int | None = None,
    ) -> None:
        super().__init__()
        if depth < 1 or (bottleneck is not None and bottleneck < 1):
            raise ConfigError(f'depth is {depth} and bottleneck {bottleneck}', 'Give 1 block and 1 channel, or more.')
        check_choices(time=(time, TimeKind), positions=(positions, Positions), norm=(norm, NormKind), mlp=(mlp, MLPKind))
        rope = positions != 'sine'
        self.cells = check_sizes(cells, patch, ((dim, heads),), rope)
        self.channels, self.dim, self.depth, self.heads, self.patch = channels, dim, depth, heads, patch
        self.kind, self.learned_variance, self.mlp_ratio = kind, learned_variance, mlp_ratio
        self.published = (time, positions, norm, mlp) == ('sine', 'sine', 'layer', 'gelu') and not (
            qk_norm or bottleneck or context
        )
        self.grid = self.cells[0] // patch, self.cells[1] // patch
        self.patches = (
            Patches(channels, dim, patch) if bottleneck is None else BottleneckPatches(channels, dim, patch, bottleneck)
        )
        self.positions = SineGrid(*self.grid, dim) if positions != 'rope' else None
        count, width = self.grid[0] * self.grid[1], dim // heads
        self.rope = RotaryTable(count, width, self.grid) if rope else None
        self.context_from = depth // 3 if context_from is None else context_from
        if not (0 <= context < count and 0 <= self.context_from < depth):
            raise ConfigError(
                f'context is {context} and context_from {context_from}, with {count} tokens of the image and {depth} blocks',
                'Give fewer tokens than the image has, and the number of a block, from 0.',
            )
        self.context = nn.Parameter(torch.randn(1, context, dim) * 0.02) if context else None
        beside = RotaryTable(context + count, width, self.grid, prefix=context, still=True) if rope and context else self.rope
        ropes = [self.rope if number < self.context_from else beside for number in range(depth)]
        self.time = SineTime(dim, timesteps, time_period) if time == 'sine' else FourierTime(dim)
        self.blocks = nn.ModuleList(ModulatedBlock(dim, heads, mlp_ratio, norm, mlp, qk_norm, turns) for turns in ropes)
        self.final = FinalLayer(dim, patch * patch * channels * (2 if learned_variance else 1), norm)
        reset(self)
        self.time.mlp.reset_parameters()

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        x, c = self._tokens(z, t, condition)
        value = unpatched(self.final(x, c), self.patch, self.cells)
        if not self.learned_variance:
            return Prediction(value, self.kind)
        value, variance = value.chunk(2, dim=1)
        return Prediction(value, self.kind, variance)

    def features(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Tensor:
        """The tokens after the last block."""
        return self._tokens(z, t, condition)[0]

    def headless(self) -> int:
        del self.final
        return self.dim

    def _tokens(self, z: Tensor, t: Tensor, condition: Conditioned | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, dim), and the condition of the blocks (B, 1, dim)."""
        c, vector = self.time(t), vector_of(condition, self.dim)
        c = F.silu(c if vector is None else c + vector)[:, None]
        x = self.patches(z)
        if self.positions is not None:
            x = self.positions(x)
        for number, block in enumerate(self.blocks):
            if self.context is not None and number == self.context_from:
                tokens = self.context.expand(len(x), -1, -1)
                x = torch.cat([tokens if vector is None else tokens + vector[:, None], x], dim=1)
            x = block(x, c)
        return (x if self.context is None else x[:, self.context.shape[1] :]), c
