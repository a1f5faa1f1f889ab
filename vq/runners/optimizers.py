"""torch's optimizers under their own names, as functions: parameters are given when the run starts, settings by config.

``fused`` is left to the strategy. A fused optimizer skips its step on the device when the guard says so; others are
masked by a copy (``vq/strategies/stepping.py``). State goes from any device to any other: how an optimizer computes is
its own, and no part of what a checkpoint says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vq.registries import VQOptimizerRegistry
from vq.runners.schedules import as_input

Parameters = Iterable[dict[str, Any]]

HOW = ('fused', 'foreach', 'capturable', 'differentiable')  # of a group's settings, those that change no result
LEAST_RATE = 1e-30


def learning_rate(value: float, device: torch.device) -> float | Tensor:
    """What ``group['lr']`` is: under XLA an input of the program, so that a schedule does not change the program.

    There it is never 0, which Adam with its counters on the device would divide by; a step of 1e-30 moves nothing. And it
    has gradients (nobody forms them): from any other tensor torch's SGD takes the number, and waits for it.
    """
    rate = as_input(max(value, LEAST_RATE), device)
    return rate.requires_grad_() if isinstance(rate, Tensor) else value


def rate_of(group: dict[str, Any]) -> float:
    """A group's learning rate as a number."""
    rate = group['lr']
    if not isinstance(rate, Tensor):
        return float(rate)
    number = rate.detach().item()
    return number if number > 2 * LEAST_RATE else 0.0


def portable(optimizer: Optimizer) -> Optimizer:
    """State dicts with plain numbers, and loading that leaves alone how the optimizer computes."""
    optimizer.register_state_dict_post_hook(_plain_rates)
    optimizer.register_load_state_dict_pre_hook(_keep_how)
    return optimizer


def _plain_rates(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, 'lr': rate_of(group)} for group in state['param_groups']]
    return {**state, 'param_groups': groups}


def _keep_how(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    given, own = state['param_groups'], optimizer.param_groups
    if len(given) != len(own):
        return state  # torch has an error for that
    groups = [{**new, **{name: mine[name] for name in HOW if name in mine}} for new, mine in zip(given, own, strict=True)]
    return {**state, 'param_groups': groups}


def on_xla(parameters: list[dict[str, Any]]) -> bool:
    """Where Adam counts its steps on the device: the numbers it forms of the count would change the program every time."""
    return any(parameter.device.type == 'xla' for group in parameters for parameter in group['params'])


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
    groups = list(parameters)
    return portable(
        torch.optim.Adam(
            groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused, capturable=on_xla(groups)
        )
    )


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
    groups = list(parameters)
    return portable(
        torch.optim.AdamW(
            groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused, capturable=on_xla(groups)
        )
    )


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
    return portable(
        torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
    )
