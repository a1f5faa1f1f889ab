"""Generators of continuous tokens: latents in place of codes, in an order, and the heads that make tokens of vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol

from torch import Tensor, nn

from vq.core.drawing import Watch
from vq.interfaces.conditions import Conditioned


class Streams(Protocol):
    """Random numbers for B rows, from a stream for each: see ``KeyedStreams``."""

    @property
    def shared(self) -> float:
        """One number in [0, 1) for all rows, on every rank."""
        raise NotImplementedError

    def uniforms(self, *shape: int, of: str) -> Tensor:
        """(B, *shape) in [0, 1). ``of``: other names give other numbers."""
        raise NotImplementedError

    def normals(self, *shape: int, of: str) -> Tensor:
        """(B, *shape), standard normal."""
        raise NotImplementedError


@dataclasses.dataclass
class TokenDrawing:
    """The settings that drawn latents depend on beside the weights.

    ``sampler``: of diffusion, for heads that have one. ``guidance``: scale by the share of tokens that are there, see
    ``vq/sampling/guidance.py``. ``temperature``: factor of the noise. ``num_iter``: iterations, for generators that fix
    several tokens at once. ``watch``: told of each of them; images do not depend on it.
    """

    sampler: Callable[..., Iterator[Tensor]] | None
    guidance: Callable[..., float]
    temperature: float = 1.0
    num_iter: int = 64
    watch: Watch | None = None


class TokenHead(nn.Module):
    """p(token | z): continuous tokens of ``channels`` numbers, given a vector z of ``dim`` numbers for each.

    ``takes``: the settings of drawing that it uses, of ``TokenDrawing``. ``joint``: tokens depend on one another, so drawing
    hands over the vectors of all hidden tokens; otherwise those of the tokens to draw.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    joint: ClassVar[bool] = False
    channels: int
    dim: int

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses that ``forward`` returns; 1 for the others."""
        return {}

    def forward(self, tokens: Tensor, z: Tensor, streams: Streams) -> dict[str, Tensor]:
        """Hidden tokens (B, n, channels), z (B, n, dim) -> name -> loss, a mean over all of them."""
        raise NotImplementedError

    def draw(
        self, z: Tensor, empty: Tensor | None, scale: float, drawing: TokenDrawing, noise: Callable[[str], Tensor]
    ) -> Tensor:
        """z (B, n, dim) -> tokens (B, n, channels). ``empty``: z without a condition, for guidance by ``scale``; None: no
        guidance. ``noise(purpose)``: standard normal numbers (B, n, channels), from a stream for each image."""
        raise NotImplementedError


class ContinuousGenerator(nn.Module):
    """Learns latents (B, channels, *cells) under a condition, and draws new ones.

    ``takes``: the settings of drawing that it uses, of ``TokenDrawing``; its ``head`` can add some.
    """

    takes: ClassVar[tuple[str, ...]] = ()
    compiles = ''  # the network inside has its own
    channels: int
    cells: tuple[int, ...]
    dim: int  # channels of ``Conditioned.vector``

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of the losses that ``forward`` returns; 1 for the others."""
        return {}

    def forward(self, latents: Tensor, condition: Conditioned | None, streams: Streams) -> dict[str, Tensor]:
        """Latents (B, channels, *cells) -> name -> loss, a mean over the batch. All random numbers but those of dropout are
        those of ``streams``."""
        raise NotImplementedError

    def generate(
        self,
        streams: Streams,
        condition: Conditioned | None,
        empty: Conditioned | None,
        drawing: TokenDrawing,
        given: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """New latents (B, channels, *cells). ``empty``: the null of the conditioner, for guidance; None: no guidance.
        ``given``: latents of which those cells stay where ``keep`` (*cells) is True."""
        raise NotImplementedError
