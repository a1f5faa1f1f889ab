"""What an energy costs: operations of its training step beside those of the network in it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vq.core.operations import Operations
from vq.denoisers.energy import Energy
from vq.interfaces import Conditioned


def cost_of_energy(energy: Energy, shape: tuple[int, ...], rows: int = 2) -> tuple[float, float]:
    """How many times the operations of the network's own step a training step of the energy takes; and its estimate those of
    the network's forward pass. ``shape``: (C, *cells) of z.

    An energy takes a forward pass, its gradient, and the backward pass of both: of matrix products, 6 forward passes, against
    3. Its estimate takes a forward pass and the gradient: 2.
    """
    where, was_training = next(energy.parameters()).device, energy.training
    z, t = torch.zeros(rows, *shape, device=where), torch.full((rows,), 0.5, device=where)
    given = Conditioned(torch.zeros(rows, energy.dim, device=where)) if 'vector' in energy.takes else None
    weights = [weight for weight in energy.parameters() if weight.requires_grad]

    def network() -> Tensor:
        if energy.head is None:
            return energy.denoiser(z, t, given).value  # type: ignore[no-any-return]
        return energy.denoiser.features(z, t, given)

    def operations(work: Callable[[], Tensor], learns: bool) -> int:
        with Operations() as counter, sdpa_kernel(SDPBackend.MATH), torch.set_grad_enabled(learns):
            found = work()
            if learns:
                torch.autograd.grad(found.square().mean(), weights, allow_unused=True)
        return int(counter.total)

    try:
        energy.train()
        step = operations(lambda: energy(z, t, given).value, True) / max(operations(network, True), 1)
        energy.eval()
        estimate = operations(lambda: energy(z, t, given).value, False) / max(operations(network, False), 1)
    finally:
        energy.train(was_training)
    return step, estimate
