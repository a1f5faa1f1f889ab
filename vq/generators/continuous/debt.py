"""Autoregressive generation of continuous tokens by an energy transformer (DEBT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.denoisers.energy import SMALLEST, gradient_at
from vq.generators.continuous.tokens import LatentTokens, condition_vector
from vq.generators.networks.energies import EnergyTransformer
from vq.interfaces import Conditioned, ContinuousGenerator, Streams, TokenDrawing
from vq.nn.sizes import Size, size_named
from vq.registries import VQContinuousGeneratorRegistry
from vq.sampling.guidance import guided

# depth, dim and heads
SIZES = {'2XS': Size(6, 384, 6), 'B': Size(24, 768, 12), 'L': Size(32, 1024, 16), 'H': Size(40, 1280, 16)}


def debt_size(name: str) -> dict[str, int]:
    """``depth``, ``dim`` and ``heads`` of a size of the fork, for the constructor of ``DEBT``."""
    return size_named(name, SIZES)


@VQContinuousGeneratorRegistry.register_()
class DEBT(ContinuousGenerator):
    """y_0 ~ N(0, 1),  y_(k+1) = y_k - a dE_j/dy_k,  loss = mean |y_K - x_j|^2,  E_j = E(y | start, x_0 .. x_(j-1), condition).

    The token-autoregressive energy transformer of MAR's fork: tokens in raster order, each from ``steps`` K gradient steps on
    its energy. Training judges a candidate for every token in one pass. The step size a is learned, and at least 1e-4.
    Gradients pass through the last step alone. The fork descends in the width of the network and maps the result to a token;
    here the descent is on the tokens themselves.

    Drawing: one token after the other, keys and values of tokens before are kept. Guidance is of the gradients,
    g_u + s (g_c - g_u), by the number of the token; ``temperature`` scales y_0. ``debt_size`` has the sizes of the fork.
    """

    takes = ('cfg_schedule', 'guidance', 'temperature')

    def __init__(
        self,
        channels: int,
        cells: tuple[int, ...],
        dim: int,
        depth: int,
        heads: int,
        patch: int = 1,
        mlp_ratio: float = 4.0,
        steps: int = 2,
        step_size: float = 0.01,
    ) -> None:
        super().__init__()
        if steps < 1 or not step_size >= SMALLEST:
            raise ConfigError(
                f'steps is {steps} and step_size {step_size}', f'Give 1 step or more, and a size of at least {SMALLEST}.'
            )
        self.channels, self.cells, self.dim, self.depth, self.heads = channels, tuple(cells), dim, depth, heads
        self.layout, self.steps = LatentTokens(channels, self.cells, patch), steps
        self.network = EnergyTransformer(self.layout.width, self.layout.length, dim, depth, heads, mlp_ratio)
        self.step_size = nn.Parameter(torch.tensor(float(step_size)))

    def forward(self, latents: Tensor, condition: Conditioned | None, streams: Streams) -> dict[str, Tensor]:
        x = self.layout.tokens(latents)
        y = self.refined(x, streams.normals(*x.shape[1:], of='candidates'), condition_vector(condition, x, self.dim))
        return {'distance': (y.float() - x.float()).square().mean()}

    def refined(self, x: Tensor, y: Tensor, vector: Tensor) -> Tensor:
        """Tokens and candidates (B, L, C) -> candidates after the descent. A graph is built only where it is needed."""
        learns, size = self.training and torch.is_grad_enabled(), self.step_size.clamp(min=SMALLEST)
        for _ in range(self.steps):
            gradient, y = gradient_at(self._of_candidates, y, x, vector, learns=learns)  # each energy is of its own candidate
            y = y - size * gradient
        return y if learns else y.detach()

    def _of_candidates(self, y: Tensor, x: Tensor, vector: Tensor) -> Tensor:
        energies: Tensor = self.network(x, y, vector)
        return energies

    def generate(
        self,
        streams: Streams,
        condition: Conditioned | None,
        empty: Conditioned | None,
        drawing: TokenDrawing,
        given: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        y = drawing.temperature * streams.normals(self.layout.length, self.layout.width, of='candidates')
        rows = len(y)
        scales = [float(drawing.guidance(place, self.layout.length)) for place in range(self.layout.length)]
        vector = condition_vector(condition, y, self.dim)
        if empty is not None and any(scale != 1 for scale in scales):
            vector = torch.cat([vector, condition_vector(empty, y, self.dim)])
        kept = [False] * len(scales) if keep is None else self.layout.kept(keep).tolist()
        known = None if given is None else self.layout.tokens(given)
        cache, found = None, list[Tensor]()
        for place, scale in enumerate(scales):
            last = torch.stack(found[-1:], 1) if found else y[:, :0]
            cache = self.network.extended(cache, last.repeat(len(vector) // rows, 1, 1), vector)
            if known is not None and kept[place]:
                found.append(known[:, place])
                continue
            token = y[:, place : place + 1]
            for _ in range(self.steps):
                token = token - self.step_size.clamp(min=SMALLEST) * self._slope(token, vector, cache, scale)
            found.append(token[:, 0])
            if drawing.watch is not None:
                drawing.watch(place + 1, len(scales), None)
        return self.layout.latents(torch.stack(found, 1))

    def _slope(self, token: Tensor, vector: Tensor, cache: list[tuple[Tensor, Tensor]], scale: float) -> Tensor:
        """(B, 1, C): the gradient at candidates for one place, guided if there are twice as many conditions."""
        pairs = len(vector) // len(token)
        gradient, _ = gradient_at(self.network.energies, token.repeat(pairs, 1, 1), vector, cache, learns=False)
        return gradient if pairs == 1 else guided(gradient[: len(token)], gradient[len(token) :], scale)
