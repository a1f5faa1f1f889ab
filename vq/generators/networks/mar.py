"""The masked autoencoder of MAR: an encoder of the visible tokens, and a decoder that makes a vector of each token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vq.generators.networks.bidirectional import BidirectionalBlock, make_blocks


class MARNetwork(nn.Module):
    """Continuous tokens x (B, L, C), the places of visible ones (B, V), and a condition (B, dim) -> z (B, L, decoder_dim).

        h = norm([c, ..., c, W x_1, ..., W x_L] + p),   b times c, the buffer
        y = W' norm(encoder(h of the buffer and the visible places))
        z = norm(decoder(y at its places, m elsewhere, + q))  without the buffer,  + r                (Li et al. 2024)

    p, q, r and m are learned. The buffer carries the condition, and gives the encoder room if few tokens are visible.
    """

    compiles = 'forward'

    def __init__(
        self,
        channels: int,
        length: int,
        dim: int,
        depth: int,
        heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        buffer: int = 64,
    ) -> None:
        super().__init__()
        self.length, self.buffer = length, buffer
        self.into, self.input_norm = nn.Linear(channels, dim), nn.LayerNorm(dim, eps=1e-6)
        self.positions = nn.Parameter(torch.empty(buffer + length, dim))
        self.blocks = make_blocks(dim, depth, heads, mlp_ratio, dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.to_decoder = nn.Linear(dim, decoder_dim)
        self.hidden_token = nn.Parameter(torch.empty(decoder_dim))
        self.decoder_positions = nn.Parameter(torch.empty(buffer + length, decoder_dim))
        self.decoder_blocks = make_blocks(decoder_dim, decoder_depth, decoder_heads, mlp_ratio, dropout)
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.head_positions = nn.Parameter(torch.empty(length, decoder_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear layers uniform by Xavier, the rest normal of deviation 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for parameter in (self.positions, self.decoder_positions, self.head_positions, self.hidden_token):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor, visible: Tensor, condition: Tensor) -> Tensor:
        return self.decode(self.encode(x, visible, condition), visible)

    def encode(self, x: Tensor, visible: Tensor, condition: Tensor) -> Tensor:
        """(B, buffer + V, dim): the buffer, then the visible tokens in the order of ``visible``."""
        of_class = condition[:, None].expand(-1, self.buffer, -1) + self.positions[: self.buffer]
        tokens = self.into(picked(x, visible)) + self.positions[self.buffer :][visible]
        return _through(self.blocks, self.norm, self.input_norm(torch.cat([of_class, tokens], 1)))

    def decode(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """(B, L, decoder_dim)."""
        y = self.to_decoder(encoded)
        hidden = self.hidden_token.to(y.dtype).expand(len(y), self.length, -1)
        tokens = hidden.scatter(1, visible[..., None].expand(-1, -1, y.shape[-1]), y[:, self.buffer :])
        z = torch.cat([y[:, : self.buffer], tokens], 1) + self.decoder_positions
        return _through(self.decoder_blocks, self.decoder_norm, z)[:, self.buffer :] + self.head_positions


def picked(rows: Tensor, places: Tensor) -> Tensor:
    """rows (B, L, C), places int64 (B, n) -> (B, n, C)."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))


def _through(blocks: nn.ModuleList, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    for block in blocks:
        assert isinstance(block, BidirectionalBlock)
        x = block(x)
    y: Tensor = norm(x)
    return y
