"""A transformer with full attention over the tokens of an image, some of them hidden."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.nn.recompute import Recomputed

Positions = Literal['flat', 'grid']


class BidirectionalBlock(Recomputed):
    """h = x + attention(norm(x)),  y = h + mlp(norm(h)).  x (B, T, dim); attention has no mask."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.random = dropout > 0
        self.attention_norm = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        self.up = nn.Linear(dim, mlp_dim)
        self.down = nn.Linear(mlp_dim, dim)

    def compute(self, x: Tensor) -> Tensor:
        # (B, T, 3 dim) -> three of (B, heads, T, dim / heads)
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        x = x + self._drop(self.proj(mixed.transpose(1, 2).flatten(2)))
        return x + self._drop(self.down(F.gelu(self.up(self.mlp_norm(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class HiddenTokens(nn.Module):
    """The input of masked networks:  x = [class, e_1 + p_1, ..., e_L + p_L],  (B, 1 + L, dim).

    e_i is the embedding of token i, or one learned vector for all hidden tokens, so that these cannot be read. That vector is
    not a row of the token embeddings, so it has no logit and is never drawn. The vector for "no category" is not a row of the
    class embeddings either. With ``classes=0`` there are none.

    ``positions``: 'flat' learns a vector for each of the L positions, 'grid' one for each row and each column.
    """

    def __init__(
        self, cells: tuple[int, ...], codebook_size: int, classes: int, dim: int, dropout: float, positions: Positions
    ) -> None:
        super().__init__()
        if positions not in ('flat', 'grid'):
            raise ConfigError(f"positions is '{positions}'", "Write 'flat' or 'grid'.")
        if positions == 'grid' and len(cells) != 2:
            raise ConfigError(f"positions='grid' needs tokens (h, w), and these are {tuple(cells)}", "Use positions='flat'.")
        self.length = math.prod(cells)
        self.dim = dim
        self.tokens = nn.Embedding(codebook_size, dim)
        self.hidden_token = nn.Parameter(torch.empty(dim))
        self.categories = nn.Embedding(classes, dim) if classes else None
        self.no_category = nn.Parameter(torch.empty(dim))
        sizes = cells if positions == 'grid' else (self.length,)
        self.positions = nn.ParameterList(torch.empty(size, dim) for size in sizes)
        self.input_dropout = nn.Dropout(dropout)

    def reset_parameters(self) -> None:
        """Truncated normal, std 0.02. Layers that add to the residual stream get a std that shrinks with their number."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for parameter in (self.hidden_token, self.no_category, *self.positions):
            nn.init.trunc_normal_(parameter, std=0.02)

    def embed(self, tokens: Tensor, hidden: Tensor, category: Tensor | None, dropped: Tensor | None) -> Tensor:
        """(B, 1 + L, dim). Rows that are ``dropped``, or all rows if ``category`` is None, get the "no category" vector."""
        embedded = torch.where(hidden[:, :, None], self.hidden_token, self.tokens(tokens)) + self._position()
        return torch.cat([self._category(category, dropped, len(tokens))[:, None], embedded], 1)

    def _position(self) -> Tensor:
        """(L, dim)."""
        first, *columns = self.positions
        position: Tensor = (first[:, None] + columns[0]).flatten(0, 1) if columns else first
        return position

    def _category(self, category: Tensor | None, dropped: Tensor | None, rows: int) -> Tensor:
        """(B, dim)."""
        if category is None or self.categories is None:
            return self.no_category.expand(rows, -1)
        embedded: Tensor = self.categories(category)
        return embedded if dropped is None else torch.where(dropped[:, None], self.no_category, embedded)


class BidirectionalNetwork(HiddenTokens):
    """Tokens (B, *cells), hidden where the mask says so, and a category -> logits (B, L, K) of all L tokens.

    x = [class, e_1 + p_1, ..., e_L + p_L] -> blocks -> norm -> head, after Chang et al. 2022 (MaskGIT) with norms before
    attention and MLP.  ``tied``: logits are products with the embeddings of the tokens, after a small transform (MaskGIT);
    otherwise they come from a separate linear layer.
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
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        positions: Positions = 'flat',
        tied: bool = True,
    ) -> None:
        super().__init__(cells, codebook_size, classes, dim, dropout, positions)
        self.blocks = make_blocks(dim, depth, heads, mlp_ratio, dropout)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = TiedHead(dim, codebook_size) if tied else nn.Linear(dim, codebook_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        reset_blocks(self.blocks)

    def forward(self, tokens: Tensor, hidden: Tensor, category: Tensor | None, dropped: Tensor | None = None) -> Tensor:
        """tokens int64 and hidden bool (B, L), category int64 and dropped bool (B,) -> logits (B, L, K)."""
        x = self.input_dropout(self.embed(tokens, hidden, category, dropped))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, 1:])
        logits: Tensor = self.head(x, self.tokens.weight) if isinstance(self.head, TiedHead) else self.head(x)
        return logits


def make_blocks(dim: int, depth: int, heads: int, mlp_ratio: float, dropout: float) -> nn.ModuleList:
    if dim % heads:
        raise ConfigError(f'{heads} heads cannot share {dim} channels', 'Choose dim as a multiple of heads.')
    return nn.ModuleList(BidirectionalBlock(dim, heads, round(mlp_ratio * dim), dropout) for _ in range(depth))


def reset_blocks(blocks: nn.ModuleList) -> None:
    """Truncated normal of the layers that add to the residual stream, std 0.02 / sqrt(2 depth)."""
    scale = 0.02 / math.sqrt(2 * max(len(blocks), 1))
    for block in blocks:
        assert isinstance(block, BidirectionalBlock)
        nn.init.trunc_normal_(block.proj.weight, std=scale)
        nn.init.trunc_normal_(block.down.weight, std=scale)


class TiedHead(nn.Module):
    """logits = E norm(gelu(W x)) + b, where E (K, dim) are the embeddings of the tokens, and x has ``in_dim`` channels."""

    def __init__(self, dim: int, codebook_size: int, in_dim: int | None = None) -> None:
        super().__init__()
        self.transform = nn.Linear(in_dim or dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.bias = nn.Parameter(torch.zeros(codebook_size))

    def forward(self, x: Tensor, embeddings: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.transform(x))), embeddings, self.bias)
