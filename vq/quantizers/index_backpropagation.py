"""Index backpropagation (IBQ): the softmax over codes is differentiated, so every code gets gradients from every feature."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vq.core.records import Quantized
from vq.interfaces import Quantizer
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers.codebook import Codebook, Init
from vq.quantizers.entropy import EntropyLoss
from vq.quantizers.soft_assignment import SoftmaxGradients, default_budget, row_tiles
from vq.registries import VQQuantizerRegistry


def _choose(rows: Tensor, table: Tensor, budget_bytes: int) -> Tensor:
    """argmax_k x . c_k, (N,); ties go to the lowest index."""
    with torch.no_grad(), no_autocast(rows.device), exact_matmul():
        tiles = row_tiles(len(rows), len(table), budget_bytes)
        chosen = [(rows[tile] @ table.t()).max(dim=1).indices for tile in tiles]
        return torch.cat(chosen) if chosen else rows.new_empty(0, dtype=torch.int64)


def _backward(rows: Tensor, table: Tensor, tokens: Tensor, outer: Tensor, budget_bytes: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), no_autocast(rows.device), exact_matmul():
        gradients = SoftmaxGradients(rows, table)
        for tile in row_tiles(len(rows), len(table), budget_bytes):
            p = torch.softmax(rows[tile] @ table.t(), dim=1)  # (n, K)
            gradients.add(rows[tile], p, outer[tile] @ table.t())
        gradients.codes.index_add_(0, tokens, outer)
        by_rows, by_table, _ = gradients.result(rows)
        return by_rows, by_table


# custom operators, so that torch.compile does not trace into them
_choose_operator = torch.library.custom_op('vq::largest_product', _choose, mutates_args=())
_backward_operator = torch.library.custom_op('vq::index_backpropagation_backward', _backward, mutates_args=())


@_choose_operator.register_fake
def _(rows: Tensor, table: Tensor, budget_bytes: int) -> Tensor:
    return rows.new_empty(rows.shape[0], dtype=torch.int64)


@_backward_operator.register_fake
def _(rows: Tensor, table: Tensor, tokens: Tensor, outer: Tensor, budget_bytes: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(table)


def largest_product(rows: Tensor, table: Tensor, budget_bytes: int | None = None) -> Tensor:
    """rows (N, C), table (K, C) -> argmax_k x . c_k, int64 (N,)."""
    function = _choose_operator if torch.compiler.is_compiling() else _choose
    tokens: Tensor = function(
        rows.detach(), table.detach(), default_budget(rows.device) if budget_bytes is None else budget_bytes
    )
    return tokens


class _IndexBackpropagation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, tokens: Tensor, budget_bytes: int) -> Tensor:
        ctx.save_for_backward(rows, table, tokens)
        ctx.budget_bytes = budget_bytes
        return F.embedding(tokens, table)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        function = _backward_operator if torch.compiler.is_compiling() else _backward
        rows, table, tokens = ctx.saved_tensors
        return (*function(rows, table, tokens, outer[0].contiguous(), ctx.budget_bytes), None, None)


def index_backpropagation(rows: Tensor, table: Tensor, tokens: Tensor, budget_bytes: int | None = None) -> Tensor:
    """The codes (N, C) of the tokens, with the gradients of (onehot + p - sg(p)) C, p = softmax(x C'), C the table."""
    budget_bytes = default_budget(rows.device) if budget_bytes is None else budget_bytes
    codes: Tensor = _IndexBackpropagation.apply(rows, table, tokens, budget_bytes)  # type: ignore[no-untyped-call]
    return codes


@VQQuantizerRegistry.register_()
class IndexBackpropagationQuantizer(Quantizer):
    """p = softmax_k(x . c_k),  k = argmax p,  z = (onehot(k) + p - sg(p)) C.

    (Shi et al. 2024.) Losses: 'quantization' mse(z, x), whose gradients go through p to all codes;
    'commitment' mse(sg(c_k), x); 'codebook' mse(c_k, sg(x)); and 'entropy' of softmax(x . c / temperature), in training.

    Backward recomputes p tile by tile, so the N x K matrix is never stored: memory is that of the tiles and of one
    gradient for the whole codebook. The work is not bounded: every step takes N K C products, and dense gradients and
    optimizer moments for all K codes, used or not. Second derivatives of z are not supported.
    """

    def __init__(
        self,
        codebook_size: int,
        embedding_dim: int,
        quantization_weight: float = 1.0,
        commitment_weight: float = 1.0,
        codebook_weight: float = 0.25,
        entropy: EntropyLoss | None = None,
        init: Init = 'normal',
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.embedding_dim = embedding_dim
        self.entropy = entropy
        self.codebook = Codebook(codebook_size, embedding_dim, init=init)
        self.loss_weights = {
            'quantization': quantization_weight,
            'commitment': commitment_weight,
            'codebook': codebook_weight,
        }
        if entropy is not None:
            self.loss_weights['entropy'] = entropy.weight

    @property
    def bits(self) -> float:
        return math.log2(self.codebook_size)

    def reset_parameters(self) -> None:
        """New random codes; also called after a move off the meta device."""
        self.codebook.reset_parameters()

    def lookup(self, tokens: Tensor) -> Tensor:
        codes: Tensor = self.codebook(tokens)
        return codes

    def forward(self, features: Tensor) -> Quantized:
        with no_autocast(features.device):
            x = features.float()  # (..., C)
            rows, table = x.reshape(-1, self.embedding_dim), self.codebook.weight
            tokens = largest_product(rows, table)
            z = index_backpropagation(rows, table, tokens).view(x.shape)
            tokens = tokens.view(x.shape[:-1])
            codes = self.lookup(tokens)
            losses = {
                'quantization': F.mse_loss(z, x),
                'commitment': F.mse_loss(x, codes.detach()),
                'codebook': F.mse_loss(codes, x.detach()),
            }
            if self.entropy is not None and self.training:
                losses['entropy'] = self.entropy.of_products(rows, table)
            return Quantized(z, tokens, losses)

    def extra_repr(self) -> str:
        return f'loss_weights={self.loss_weights}'
