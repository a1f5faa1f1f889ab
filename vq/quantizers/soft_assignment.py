"""Soft assignments of features to codes, in bounded memory.

    p_ik = softmax over k of (x_i . c_k + b_k)

Backward recomputes p, one tile of rows at a time, so no N x K matrix is ever stored: memory is the budget plus tensors as
large as the inputs. A tile holds at least one row. Always fp32 with exact products, forward and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vq.nn.precision import exact_matmul, no_autocast

CPU_BUDGET_BYTES = 64 * 2**20
DEVICE_BUDGET_BYTES = 512 * 2**20  # every tile reads and writes the gradients of all codes: fewer tiles, less memory traffic
TILES_AT_ONCE = 6  # tensors of tile size that backward holds at the same time
FLOOR = 1e-5


def default_budget(device: torch.device) -> int:
    return CPU_BUDGET_BYTES if device.type == 'cpu' else DEVICE_BUDGET_BYTES


def row_tiles(rows: int, codes: int, budget_bytes: int) -> Iterator[slice]:
    """Slices of rows, each with as many rows as the budget allows for tensors (rows, codes)."""
    step = max(1, budget_bytes // (4 * TILES_AT_ONCE * codes))
    return (slice(start, start + step) for start in range(0, rows, step))


class SoftmaxGradients:
    """Accumulates the gradients of a softmax over codes, tile by tile."""

    def __init__(self, rows: Tensor, table: Tensor) -> None:
        self.table = table
        self.rows: list[Tensor] = []
        self.codes = torch.zeros_like(table)
        self.offset = torch.zeros_like(table[:, 0])

    def add(self, rows: Tensor, p: Tensor, by_p: Tensor, direct: Tensor | None = None) -> None:
        """rows (n, C), their p (n, K), the gradient at p, and a further gradient at the logits. Overwrites by_p."""
        by_logits = by_p.sub_((p * by_p).sum(1, keepdim=True)).mul_(p)  # (n, K)
        if direct is not None:
            by_logits += direct
        self.rows.append(by_logits @ self.table)
        self.codes.addmm_(by_logits.t(), rows)
        self.offset += by_logits.sum(0)

    def result(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients at rows, table and offset."""
        return torch.cat(self.rows) if self.rows else torch.zeros_like(like), self.codes, self.offset


def _forward(
    rows: Tensor, table: Tensor, offset: Tensor, argmax: bool, clamp: bool, budget_bytes: int
) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), no_autocast(rows.device), exact_matmul():
        entropy, assignment = rows.new_zeros(()), torch.zeros_like(offset)
        for tile in row_tiles(len(rows), len(table), budget_bytes):
            log_p = torch.log_softmax(torch.addmm(offset, rows[tile], table.t()), dim=1)  # (n, K)
            if argmax:
                best, index = log_p.max(dim=1)
                entropy -= best.sum()
                assignment.index_add_(0, index, torch.ones_like(best))
                continue
            p = log_p.exp()
            entropy -= (p * (p.clamp_min(FLOOR).log_() if clamp else log_p)).sum()
            assignment += p.sum(0)
        return entropy / len(rows), assignment / len(rows)


def _backward(
    rows: Tensor,
    table: Tensor,
    offset: Tensor,
    by_entropy: Tensor,
    by_assignment: Tensor,
    argmax: bool,
    clamp: bool,
    budget_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad(), no_autocast(rows.device), exact_matmul():
        gradients = SoftmaxGradients(rows, table)
        by_entropy, by_assignment = by_entropy / len(rows), by_assignment / len(rows)
        for tile in row_tiles(len(rows), len(table), budget_bytes):
            log_p = torch.log_softmax(torch.addmm(offset, rows[tile], table.t()), dim=1)
            p = log_p.exp()
            direct = None
            if argmax:  # the gradient of -log p of the best code, in addition to that of p as the target
                best = log_p.argmax(dim=1, keepdim=True)
                direct = (p - torch.zeros_like(p).scatter_(1, best, 1.0)).mul_(by_entropy)
            # -p log p has the derivative -log p - 1; the constant drops out in the softmax
            by_p = p.clamp_min(FLOOR).log_().add_(p >= FLOOR).neg_() if clamp else log_p.neg_()
            gradients.add(rows[tile], p, by_p.mul_(by_entropy).add_(by_assignment), direct)
        return gradients.result(rows)


# Custom operators: tracing into them, torch.compile would unroll the tiles and fail at the precision switch.
_forward_operator = torch.library.custom_op('vq::soft_assignment', _forward, mutates_args=())
_backward_operator = torch.library.custom_op('vq::soft_assignment_backward', _backward, mutates_args=())


@_forward_operator.register_fake
def _(rows: Tensor, table: Tensor, offset: Tensor, argmax: bool, clamp: bool, budget_bytes: int) -> tuple[Tensor, Tensor]:
    return rows.new_empty(()), torch.empty_like(offset)


@_backward_operator.register_fake
def _(
    rows: Tensor,
    table: Tensor,
    offset: Tensor,
    by_entropy: Tensor,
    by_assignment: Tensor,
    argmax: bool,
    clamp: bool,
    budget_bytes: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(rows), torch.empty_like(table), torch.empty_like(offset)


class _SoftAssignment(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, table: Tensor, offset: Tensor, argmax: bool, clamp: bool, budget_bytes: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows, table, offset)
        ctx.settings = (argmax, clamp, budget_bytes)
        function = _forward_operator if torch.compiler.is_compiling() else _forward
        entropy, assignment = function(rows, table, offset, argmax, clamp, budget_bytes)
        return entropy, assignment

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        function = _backward_operator if torch.compiler.is_compiling() else _backward
        return (*function(*ctx.saved_tensors, *outer, *ctx.settings), None, None, None)


def soft_assignment(
    rows: Tensor,
    table: Tensor,
    offset: Tensor | None = None,
    *,
    argmax: bool = False,
    clamp: bool = False,
    budget_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """rows (N, C), table (K, C), offset (K,) -> (mean over rows of the entropy of p, mean over rows of p (K,)).

    Gradients of rows, table and offset are exact. ``clamp``: log max(p, 1e-5) in place of log p. ``argmax``: targets are
    one-hot at the largest p, straight-through. The values are the cross-entropy to the targets and their histogram; the
    targets have the gradients of p.
    """
    if offset is None:
        offset = torch.zeros_like(table[:, 0])
    budget_bytes = default_budget(rows.device) if budget_bytes is None else budget_bytes
    entropy, assignment = _SoftAssignment.apply(rows, table, offset, argmax, clamp, budget_bytes)  # type: ignore[no-untyped-call]
    return entropy, assignment
