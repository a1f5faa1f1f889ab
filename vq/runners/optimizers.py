"""torch's optimizers under their own names, and LARS, as functions: parameters are given when the run starts, settings by
config.

``fused`` is left to the strategy. A fused optimizer skips its step on the device when the guard says so; others are
masked by a copy (``vq/strategies/stepping.py``). State goes from any device to any other: how an optimizer computes is
its own, and no part of what a checkpoint says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.quantizers.codebook import Codebook
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


def mark_undecayed(root: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Note on what an optimizer gets of a root, in the root's order, whether weight decay can be told to leave it alone:
    vectors (norms, biases) and tables of codes.
    """
    tables = {part.weight for part in root.modules() if isinstance(part, Codebook | nn.Embedding)}
    whole = [parameter for parameter in root.parameters() if parameter.requires_grad]
    for parameter, origin in zip(parameters, whole, strict=True):
        parameter.undecayed = origin.ndim < 2 or origin in tables  # type: ignore[attr-defined]


def split_by_decay(groups: Parameters, weight_decay: float) -> Parameters:
    """Each group in two, what is decayed first; a parameter that nobody marked is judged by its dimensions."""
    for group in groups:
        left = [getattr(parameter, 'undecayed', parameter.ndim < 2) for parameter in group['params']]
        for chosen, decay in ((False, weight_decay), (True, 0.0)):
            found = [parameter for parameter, alone in zip(group['params'], left, strict=True) if alone == chosen]
            if found:
                yield {**group, 'params': found, 'weight_decay': decay}


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
    decay: Literal['all', 'matrices'] = 'all',
) -> Optimizer:
    """``decay='matrices'``: only kernels and matrices decay, norms, biases and tables of codes do not."""
    groups = list(parameters if decay == 'all' else split_by_decay(parameters, weight_decay))
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


class LARS(Optimizer):
    """v <- m v + r (g + d w),  w <- w - lr v,  r = trust |w| / |g + d w| (You et al. 2017), tensor by tensor.

    r is 1 where either norm is 0, and for vectors (norms, biases), which do not decay either. Norms are of whole tensors, so
    the fsdp strategy, whose optimizers get parts of them, refuses it.
    """

    def __init__(self, parameters: Parameters, lr: float, momentum: float, weight_decay: float, trust: float) -> None:
        super().__init__(parameters, {'lr': lr, 'momentum': momentum, 'weight_decay': weight_decay, 'trust': trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():  # type: ignore[no-untyped-call]
                loss = closure()
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        if parameter.ndim > 1:
            gradient = gradient.add(parameter, alpha=group['weight_decay']) if group['weight_decay'] else gradient
            weight, pull = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
            trusted = group['trust'] * weight / pull
            gradient = gradient * torch.where((weight > 0) & (pull > 0), trusted, torch.ones_like(trusted))
        state = self.state[parameter]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(parameter)
        velocity: Tensor = state['momentum_buffer'].mul_(group['momentum']).add_(gradient)
        parameter.sub_(velocity * group['lr'])  # the rate may be a tensor


@VQOptimizerRegistry.register_('LARS')
def lars(
    parameters: Parameters,
    fused: bool,
    *,
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust: float = 1e-3,
) -> Optimizer:
    """For linear layers and large batches; ``fused`` is nothing it has."""
    return portable(LARS(parameters, lr, momentum, weight_decay, trust))
