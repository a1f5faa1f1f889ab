"""A guarded optimizer step: parameters and state stay unchanged if the flag on the device is cleared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def guarded_step(optimizer: Optimizer, ok: Tensor) -> None:
    """``optimizer.step()`` if ``ok`` (a bool on the device), without a host sync.

    torch's fused optimizers read ``found_inf`` in their kernel and skip the step. Any other optimizer steps, and a masked
    copy restores parameters and state, at the price of one copy of both. On the CPU ``ok`` is read directly.
    """
    if optimizer.defaults.get('fused'):
        _zero_momentum(optimizer)
        optimizer.found_inf = (~ok).float()  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
    elif ok.device.type == 'cpu':
        if bool(ok):
            optimizer.step()
    else:
        _masked_step(optimizer, ok)


@torch.no_grad()
def _masked_step(optimizer: Optimizer, ok: Tensor) -> None:
    before = {id(target): target.detach().clone() for target in _tensors(optimizer, ok.device)}
    optimizer.step()
    for target in _tensors(optimizer, ok.device):
        # state created by this step has no earlier value: zero is its initial value
        target.copy_(torch.where(ok, target, before.get(id(target), torch.zeros_like(target))))


def _zero_momentum(optimizer: Optimizer) -> None:
    """Create the momentum buffer: fused SGD fills an uninitialised one in its first step, which may be skipped."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group['params'] if group['momentum'] else ():
                if parameter.grad is not None and optimizer.state[parameter].get('momentum_buffer') is None:
                    optimizer.state[parameter]['momentum_buffer'] = torch.zeros_like(parameter)


def _tensors(optimizer: Optimizer, device: torch.device) -> list[Tensor]:
    """Parameters and state on the device. Step counters on the host are left: once ``ok`` is false, no step follows."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    states = [value for parameter in parameters for value in optimizer.state.get(parameter, {}).values()]
    return [value for value in [*parameters, *states] if isinstance(value, Tensor) and value.device == device]


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """The L2 norm over all gradients, on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
    return norm


def clip_by_norm(parameters: list[Tensor], norm: Tensor, most: float) -> None:
    """Scale gradients so that their joint norm ``norm`` is at most ``most``."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, torch.clamp(most / (norm + 1e-6), max=1.0))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The state dict with plain containers."""
    state = optimizer.state_dict()
    return {'state': dict(state['state']), 'param_groups': state['param_groups']}
