"""A guarded optimizer step: nothing changes, anywhere, when the device says no."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def guarded_step(optimizer: Optimizer, ok: Tensor) -> None:
    """``optimizer.step()`` if ``ok`` (a bool on the device), without asking the host.

    torch's fused optimizers read ``found_inf`` in their kernel and skip. Any other optimizer steps, and parameters and
    state are put back by a masked copy: correct, at the price of one copy of both.
    """
    if optimizer.defaults.get('fused'):
        _zero_momentum(optimizer)
        optimizer.found_inf = (~ok).float()  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
        return
    targets = _tensors(optimizer)
    before = [target.detach().clone() for target in targets]
    optimizer.step()
    fresh = [tensor for tensor in _tensors(optimizer) if not any(tensor is target for target in targets)]
    with torch.no_grad():
        for target, old in zip(targets, before, strict=True):
            target.copy_(torch.where(ok, target, old))
        for state in fresh:  # made by this very step: its neutral value is zero
            state.copy_(torch.where(ok, state, torch.zeros_like(state)))


def _zero_momentum(optimizer: Optimizer) -> None:
    """Fused SGD leaves its first momentum uninitialised, to be filled by the very step that may be refused."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group['params'] if group['momentum'] else ():
                if parameter.grad is not None and optimizer.state[parameter].get('momentum_buffer') is None:
                    optimizer.state[parameter]['momentum_buffer'] = torch.zeros_like(parameter)


def _tensors(optimizer: Optimizer) -> list[Tensor]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    states = [
        value for parameter in parameters for value in optimizer.state.get(parameter, {}).values() if isinstance(value, Tensor)
    ]
    return [*parameters, *states]


def gradient_norm(parameters: list[Tensor]) -> Tensor:
    """The L2 norm over all gradients, on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
    return norm


def clip_by_norm(parameters: list[Tensor], norm: Tensor, most: float) -> None:
    """Scale gradients so that their joint norm is at most ``most``; ``norm`` was computed already."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, torch.clamp(most / (norm + 1e-6), max=1.0))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The state in plain containers; parameter groups without their tensors' identities."""
    state = optimizer.state_dict()
    return {'state': dict(state['state']), 'param_groups': state['param_groups']}
