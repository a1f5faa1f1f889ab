"""A guarded optimizer step: nothing changes, anywhere, when the device says no."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def guarded_step(optimizer: Optimizer, ok: Tensor) -> None:
    """``optimizer.step()`` if ``ok`` (a bool on the device), without making the host wait for a device.

    torch's fused optimizers read ``found_inf`` in their kernel and skip. Any other optimizer steps, and parameters and
    state are put back by a masked copy: correct, at the price of one copy of both. On the CPU there is nothing to wait for.
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
        # a state made by this very step has no earlier value: its neutral one is zero
        target.copy_(torch.where(ok, target, before.get(id(target), torch.zeros_like(target))))


def _zero_momentum(optimizer: Optimizer) -> None:
    """Fused SGD leaves its first momentum uninitialised, to be filled by the very step that may be refused."""
    if isinstance(optimizer, torch.optim.SGD):
        for group in optimizer.param_groups:
            for parameter in group['params'] if group['momentum'] else ():
                if parameter.grad is not None and optimizer.state[parameter].get('momentum_buffer') is None:
                    optimizer.state[parameter]['momentum_buffer'] = torch.zeros_like(parameter)


def _tensors(optimizer: Optimizer, device: torch.device) -> list[Tensor]:
    """Parameters and states on the device (step counters lie on the host; they matter to nobody once ``ok`` is false)."""
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
    """Scale gradients so that their joint norm is at most ``most``; ``norm`` was computed already."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, torch.clamp(most / (norm + 1e-6), max=1.0))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The state in plain containers; parameter groups without their tensors' identities."""
    state = optimizer.state_dict()
    return {'state': dict(state['state']), 'param_groups': state['param_groups']}
