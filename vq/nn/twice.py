"""Attention, GELU and LayerNorm whose second derivatives are written out.

torch differentiates its own derivatives operation by operation, and each of these makes a tensor. Here each derivative is one
function: the numbers are equal up to rounding, in a third to a half of the time. They act inside of ``second_order`` only.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vq.nn.second_order import is_second_order

CUBE, ROOT = 0.044715, math.sqrt(2 / math.pi)  # gelu(x) = x (1 + tanh(ROOT (x + CUBE x^3))) / 2
WRITTEN = ('cpu', 'cuda')  # devices; others, and mixed precision, have the derivatives of torch


def applies(*values: Tensor) -> bool:
    """Whether second derivatives of these are wanted, on a device and in a precision of the forms here."""
    if not is_second_order() or not any(value.requires_grad for value in values):
        return False
    device, kinds = values[0].device.type, {value.dtype for value in values}
    if device not in WRITTEN or len(kinds) > 1 or not kinds <= {torch.float32, torch.float64}:
        return False
    return not torch.is_autocast_enabled(device)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v,  for q, k, v (B, heads, N, D)."""
    if not applies(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)
    flat = _Attention.apply(*(value.flatten(0, 1) for value in (q, k, v)))  # type: ignore[no-untyped-call]
    mixed: Tensor = flat.unflatten(0, q.shape[:2])
    return mixed


def gelu(x: Tensor) -> Tensor:
    """GELU with the tanh approximation."""
    if not applies(x):
        return F.gelu(x, approximate='tanh')
    y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return y


class LayerNorm(nn.LayerNorm):
    """(x - mean) / sqrt(variance + eps) of the last axis, without parameters."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__(dim, eps, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        if not applies(x):
            return super().forward(x)
        y: Tensor = _LayerNorm.apply(x, self.eps)  # type: ignore[no-untyped-call]
        return y


class _Attention(torch.autograd.Function):
    """q, k, v (G, N, D) -> o = p v,  p = softmax(s q k^T),  s = 1 / sqrt(D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        p = torch.bmm(q, k.mT).mul_(q.shape[-1] ** -0.5).softmax(-1)
        ctx.save_for_backward(q, k, v, p)
        return torch.bmm(p, v)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return _AttentionGradient.apply(outer[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _AttentionGradient(torch.autograd.Function):
    """With do the gradient of o:  dv = p^T do,  dp = do v^T,  dx = p (dp - <dp, p>),  dq = s dx k,  dk = s dx^T q.

    p is a function of q and k, and the derivatives by these are those through p as well. <a, b> is the sum over keys.
    """

    @staticmethod
    def forward(ctx: Any, do: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dp = torch.bmm(do, v.mT)
        centred = dp - _over_keys(dp, p)
        dx = (p * centred).mul_(q.shape[-1] ** -0.5)
        ctx.save_for_backward(do, q, k, v, p, dp, centred, dx)
        return torch.bmm(dx, k), torch.bmm(dx.mT, q), torch.bmm(p.mT, do)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Of dq, dk, dv the gradients a, b, c. With y that of dx:  y = s (a k^T + q b^T)."""
        do, q, k, v, p, dp, centred, dx = ctx.saved_tensors
        a, b, c = outer
        scale = q.shape[-1] ** -0.5
        y = torch.baddbmm(torch.bmm(a, k.mT), q, b.mT).mul_(scale)
        share = _over_keys(y, p)
        of_dp = (y - share).mul_(p)
        of_p = torch.baddbmm(y.mul_(centred).sub_(dp * share), do, c.mT)
        of_x = (of_p - _over_keys(of_p, p)).mul_(p).mul_(scale)
        return (
            torch.baddbmm(torch.bmm(of_dp, v), p, c),
            torch.baddbmm(torch.bmm(of_x, k), dx, b),
            torch.baddbmm(torch.bmm(of_x.mT, q), dx.mT, a),
            torch.bmm(of_dp.mT, do),
            None,
        )


def _over_keys(values: Tensor, p: Tensor) -> Tensor:
    return (values * p).sum(-1, keepdim=True)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.gelu(x, approximate='tanh')

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return _GeluGradient.apply(outer[0], *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _GeluGradient(torch.autograd.Function):
    """dy g'(x)."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(dy, x)
        return _gelu_gradient(dy, x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor]:
        dy, x = ctx.saved_tensors
        return _gelu_gradient(outer[0], x), gelu_bend(x).mul_(dy).mul_(outer[0])


def _gelu_gradient(dy: Tensor, x: Tensor) -> Tensor:
    found: Tensor = torch.ops.aten.gelu_backward(dy, x, approximate='tanh')
    return found


def gelu_bend(x: Tensor) -> Tensor:
    """g''(x) = (1 - T^2) (u' + x u'' / 2 - x T u'^2),  u = ROOT (x + CUBE x^3),  T = tanh(u).

    With w = x^2 the bracket is  6 m (w + 1 / 6 CUBE - 1.5 m x T (w + 1 / 3 CUBE)^2),  m = ROOT CUBE.
    """
    m = ROOT * CUBE
    w = x * x
    tanh = (w + 1 / CUBE).mul_(x).mul_(m).tanh_()
    slope = w + 1 / (3 * CUBE)
    slope.mul_(slope).mul_(tanh).mul_(x)
    w.add_(1 / (6 * CUBE)).sub_(slope, alpha=1.5 * m).mul_(6 * m)
    return w.sub_(tanh.mul_(tanh).mul_(w))


class _LayerNorm(torch.autograd.Function):
    """y = r (x - mean(x)),  r = 1 / sqrt(variance + eps)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, mean, r = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        return _LayerNormGradient.apply(outer[0], *ctx.saved_tensors), None  # type: ignore[no-untyped-call]


class _LayerNormGradient(torch.autograd.Function):
    """dx = P dy,  P h = r (h - mean(h) - y mean(y h)),  a symmetric matrix of x."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        dx = _projected(dy, x, mean, r)
        ctx.save_for_backward(dy, x, mean, r, dx)
        return dx

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        """Of dx the gradient a:  P a for dy,  -P (r (a mean(y dy) + dy mean(y a))) - r y mean(a dx) for x."""
        dy, x, mean, r, dx = ctx.saved_tensors
        a = outer[0]
        y = (x - mean).mul_(r)
        through_y = (a * (y * dy).mean(-1, keepdim=True)).addcmul_(dy, (y * a).mean(-1, keepdim=True)).mul_(r)
        through_r = y.mul_((a * dx).mean(-1, keepdim=True)).mul_(r)
        of_x = _projected(through_y, x, mean, r).add_(through_r).neg_()
        return _projected(a, x, mean, r), of_x, None, None


def _projected(h: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    wanted = [True, False, False]
    found: Tensor = torch.ops.aten.native_layer_norm_backward(h, x, x.shape[-1:], mean, r, None, None, wanted)[0]
    return found
