"""A head that makes tokens by descending an energy of all of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.blocks import FinalLayer, reset
from vq.denoisers.energy import SMALLEST, gradient_at
from vq.denoisers.mlp import MLPBlock
from vq.interfaces import Streams, TokenDrawing, TokenHead
from vq.registries import VQTokenHeadRegistry


@VQTokenHeadRegistry.register_()
class EnergyTokenHead(TokenHead):
    """x_0 ~ N(0, 1),  x_(k+1) = x_k - a dE/dx_k,  loss = mean |x_K - x|^2 over hidden tokens: the energy head of MAR's fork.

    E is one number for the hidden tokens of an image: blocks of each token, modulated by its z; then the mean over tokens, a
    layer modulated by the mean of what z was made into, and one output.

    - ``steps`` K, and ``step_size`` a, which is learned and at least 1e-4. Gradients pass through the last step alone.
    - Guidance has the fork's own form: the gradient is  (1 + s) g_c - s g_u,  where g_u is that of a trajectory without the
      condition; none at a scale of 1 or less. ``temperature`` scales x_0.

    The fork's loss is a mean over all tokens, also those that the encoder saw, and its drawing starts from zeros; here the
    loss is that of hidden tokens, and drawing starts as training does.
    """

    takes = ('guidance', 'temperature')
    joint = True

    def __init__(
        self, channels: int, dim: int, width: int = 1024, depth: int = 6, steps: int = 2, step_size: float = 0.01
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1 or steps < 1 or not step_size >= SMALLEST:
            raise ConfigError(
                f'width is {width}, depth {depth}, steps {steps} and step_size {step_size}',
                f'Give 1 channel, block and step, or more, and a step size of at least {SMALLEST}.',
            )
        self.channels, self.dim, self.steps = channels, dim, steps
        self.step_size = nn.Parameter(torch.tensor(float(step_size)))
        self.into, self.condition = nn.Linear(channels, width), nn.Linear(dim, width)
        self.blocks = nn.ModuleList(MLPBlock(width) for _ in range(depth))
        self.final = FinalLayer(width, 1)
        reset(self)
        self.final.linear.bias.requires_grad_(False)  # a constant has no slope, and DDP waits for every gradient
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)  # type: ignore[union-attr, arg-type]

    def energy(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, n, channels), z (B, n, dim) -> (B,)."""
        h, c = self.into(x), self.condition(z)
        for block in self.blocks:
            h = block(h, F.silu(c))
        found: Tensor = self.final(h.mean(1), F.silu(c.mean(1)))[:, 0]
        return found

    def slope(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """dE/dx, and x without its history. The gradient keeps a graph if parameters are to be learned from it."""
        return gradient_at(self.energy, x, z, learns=self.training and torch.is_grad_enabled())

    def forward(self, tokens: Tensor, z: Tensor, streams: Streams) -> dict[str, Tensor]:
        x = streams.normals(*tokens.shape[1:], of='start of the head')
        size = self.step_size.clamp(min=SMALLEST)
        for _ in range(self.steps):
            gradient, x = self.slope(x, z)
            x = x - size * gradient
        return {'distance': (x.float() - tokens.float()).square().mean()}

    def draw(
        self, z: Tensor, empty: Tensor | None, scale: float, drawing: TokenDrawing, noise: Callable[[str], Tensor]
    ) -> Tensor:
        x = drawing.temperature * noise('start')
        other = drawing.temperature * noise('start without a condition')
        return self.descend(x, z, other, empty, scale)

    def descend(self, x: Tensor, z: Tensor, other: Tensor, empty: Tensor | None, scale: float) -> Tensor:
        """From x, and from ``other`` without a condition, to tokens (B, n, channels)."""
        size = self.step_size.detach().clamp(min=SMALLEST)
        for _ in range(self.steps):
            gradient, x = self.slope(x, z)
            if empty is not None and scale > 1:
                outer, other = self.slope(other, empty)
                gradient = (1 + scale) * gradient - scale * outer
                other = other - size * outer
            x = x - size * gradient
        return x.detach()
