"""The encoder and decoder of MAGE: the encoder is given only some of the positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.generators.networks.bidirectional import HiddenTokens, TiedHead, make_blocks, reset_blocks


class MAGENetwork(HiddenTokens):
    """Tokens (B, *cells), hidden where the mask says so, and a category -> logits (B, L, K) of all L tokens.

    x = norm([class, e_1 + p_1, ..., e_L + p_L])
    [c, y_k] = W norm(encoder([x_0, x_k])),          k in ``kept``, n of the L positions
    z_i = q_i + (y_i if i is kept and visible, else c),          z_0 = q_0 + c
    logits_i = head(norm(decoder([z_0, ..., z_L])))_i          (Li et al. 2023)

    Places without a visible token are filled with c, what the encoder made of the class. Hidden tokens among the kept ones
    are read by the encoder as hidden, so that all images of a batch have n + 1 inputs whatever their mask ratio. The cost of
    the encoder is that of n + 1 positions.

    Logits are products with the embeddings of the tokens (``TiedHead``). The authors stop the gradient of these embeddings
    there; here it is kept, as in MaskGIT.
    """

    compiles = 'forward'

    def __init__(
        self,
        cells: tuple[int, ...],
        codebook_size: int,
        classes: int,
        dim: int,
        depth: int,
        heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(cells, codebook_size, classes, dim, dropout, 'flat')
        self.input_norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = make_blocks(dim, depth, heads, mlp_ratio, dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.to_decoder = nn.Linear(dim, decoder_dim)
        self.decoder_positions = nn.Parameter(torch.empty(1 + self.length, decoder_dim))
        self.decoder_blocks = make_blocks(decoder_dim, decoder_depth, decoder_heads, mlp_ratio, dropout)
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.head = TiedHead(dim, codebook_size, decoder_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.trunc_normal_(self.decoder_positions, std=0.02)
        reset_blocks(self.blocks)
        reset_blocks(self.decoder_blocks)

    def forward(
        self,
        tokens: Tensor,
        hidden: Tensor,
        category: Tensor | None,
        dropped: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        """tokens int64 and hidden bool (B, L), category int64 and dropped bool (B,), kept int64 (B, n) -> logits (B, L, K).

        ``kept``: different positions, among them all visible ones; None: all positions.
        """
        encoded = self.to_decoder(self.encode(tokens, hidden, category, dropped, kept))
        of_class, y = encoded[:, :1], encoded[:, 1:]
        fill = of_class.expand(-1, self.length, -1)
        if kept is not None:
            y = fill.scatter(1, kept[:, :, None].expand_as(y), y)
        z = torch.cat([of_class, torch.where(hidden[:, :, None], fill, y)], 1) + self.decoder_positions
        for block in self.decoder_blocks:
            z = block(z)
        logits: Tensor = self.head(self.decoder_norm(z[:, 1:]), self.tokens.weight)
        return logits

    def encode(
        self, tokens: Tensor, hidden: Tensor, category: Tensor | None, dropped: Tensor | None, kept: Tensor | None
    ) -> Tensor:
        """The normed output of the encoder, (B, 1 + n, dim): the class, then the positions in the order of ``kept``."""
        x = self.input_norm(self.embed(tokens, hidden, category, dropped))
        if kept is not None:
            places = F.pad(kept + 1, (1, 0))  # the class is at place 0
            x = x.gather(1, places[:, :, None].expand(-1, -1, self.dim))
        x = self.input_dropout(x)
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.norm(x)
        return encoded
