"""torch's optimizers under their own names, as functions: parameters are given when the run starts, settings by config.

``fused`` is left to the strategy. A fused optimizer skips its step on the device when the guard says so; others are
masked by a copy (``vq/strategies/stepping.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from vq.registries import VQOptimizerRegistry

Parameters = Iterable[dict[str, Any]]


@VQOptimizerRegistry.register_('Adam')
def adam(
    parameters: Parameters,
    fused: bool,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


@VQOptimizerRegistry.register_('AdamW')
def adam_w(
    parameters: Parameters,
    fused: bool,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused)


@VQOptimizerRegistry.register_('SGD')
def sgd(
    parameters: Parameters,
    fused: bool,
    *,
    lr: float = 1e-2,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
