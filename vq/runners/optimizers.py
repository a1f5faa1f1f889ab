"""torch's optimizers under their own names, and LARS, as functions: parameters are given when the run starts, settings by
config.

The strategy sets ``fused``. A fused optimizer skips its step on the device if the guard's flag is cleared. The step of any
other optimizer is undone by a masked copy (``vq/strategies/stepping.py``). Optimizer state is portable between devices:
fused, foreach and capturable are not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from vq.interfaces import Strategy
from vq.quantizers.codebook import Codebook
from vq.registries import VQOptimizerRegistry

Parameters = Iterable[dict[str, Any]]

HOW = ('fused', 'foreach', 'capturable', 'differentiable')  # settings of a group that do not change the result
LEAST_RATE = 1e-30


def learning_rate(value: float, strategy: Strategy) -> float | Tensor:
    """``group['lr']``: the number, or a tensor where the strategy passes changing numbers as tensors (XLA).

    A tensor is clamped to 1e-30, because capturable Adam divides by the rate. It has requires_grad, because torch's SGD
    calls ``.item()`` on any other tensor, a host sync.
    """
    rate = strategy.as_input(max(value, LEAST_RATE))
    return rate.requires_grad_() if isinstance(rate, Tensor) else value


def rate_of(group: dict[str, Any]) -> float:
    """A group's learning rate as a number."""
    rate = group['lr']
    if not isinstance(rate, Tensor):
        return float(rate)
    number = rate.detach().item()
    return number if number > 2 * LEAST_RATE else 0.0


def portable(optimizer: Optimizer) -> Optimizer:
    """State dicts with rates as numbers. Loading one keeps fused, foreach and capturable of the optimizer."""
    optimizer.register_state_dict_post_hook(_plain_rates)
    optimizer.register_load_state_dict_pre_hook(_keep_how)
    return optimizer


def _plain_rates(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    groups = [{**group, 'lr': rate_of(group)} for group in state['param_groups']]
    return {**state, 'param_groups': groups}


def _keep_how(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    given, own = state['param_groups'], optimizer.param_groups
    if len(given) != len(own):
        return state  # torch raises an error
    groups = [{**new, **{name: mine[name] for name in HOW if name in mine}} for new, mine in zip(given, own, strict=True)]
    return {**state, 'param_groups': groups}


def mark_undecayed(root: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Set ``undecayed`` on the parameters that the optimizer of a root gets, in the order of ``root.parameters()``.

    Vectors (norms, biases) and tables of codes are undecayed: ``decay='matrices'`` leaves them without weight decay.
    """
    tables = {part.weight for part in root.modules() if isinstance(part, Codebook | nn.Embedding)}
    whole = [parameter for parameter in root.parameters() if parameter.requires_grad]
    for parameter, origin in zip(parameters, whole, strict=True):
        parameter.undecayed = origin.ndim < 2 or origin in tables  # type: ignore[attr-defined]


def split_by_decay(groups: Parameters, weight_decay: float) -> Parameters:
    """Split each group in two, decayed parameters first. A parameter without the mark is undecayed if it is a vector."""
    for group in groups:
        left = [getattr(parameter, 'undecayed', parameter.ndim < 2) for parameter in group['params']]
        for chosen, decay in ((False, weight_decay), (True, 0.0)):
            found = [parameter for parameter, alone in zip(group['params'], left, strict=True) if alone == chosen]
            if found:
                yield {**group, 'params': found, 'weight_decay': decay}


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
    """torch.optim.Adam: weight decay is a part of the gradient."""
    return portable(torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused))


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
    """torch.optim.AdamW. ``decay='matrices'``: of kernels and matrices only, not of norms, biases and tables of codes."""
    groups = parameters if decay == 'all' else split_by_decay(parameters, weight_decay)
    return portable(torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused))


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
    """torch.optim.SGD."""
    return portable(
        torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=fused)
    )


class LARS(Optimizer):
    """v <- m v + r (g + d w),  w <- w - lr v,  r = trust |w| / |g + d w| (You et al. 2017), tensor by tensor.

    r is 1 if either norm is 0, and for vectors (norms, biases), which have no weight decay either. Both norms are of whole
    tensors. The fsdp strategy shards tensors, so it refuses LARS.
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
            weight, slope = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
            ratio = group['trust'] * weight / slope
            gradient = gradient * torch.where((weight > 0) & (slope > 0), ratio, torch.ones_like(ratio))
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
    """For linear layers and large batches. LARS has no fused form, so ``fused`` is ignored."""
    return portable(LARS(parameters, lr, momentum, weight_decay, trust))
