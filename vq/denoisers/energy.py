"""A denoiser as the gradient of a scalar energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.core.bindings import Source
from vq.core.errors import ConfigError, listing
from vq.core.records import Prediction
from vq.denoisers.frozen import given
from vq.interfaces import Conditioned, Denoiser
from vq.nn.precision import no_autocast
from vq.nn.second_order import second_order
from vq.registries import VQDenoiserRegistry
from vq.sampling.predictions import UPHILL, wide

Reduction = Literal['mean_then_head', 'head_then_mean', 'dot']
SMALLEST = 1e-4  # step of the inner loop


class EnergyHead(nn.Module):
    """tokens (B, N, width) -> energy (B,) fp32:  h(mean of x_i)  or  mean of h(x_i),  h(x) = w silu(W x + v) + offset.

    The offset moves no gradient, so that nothing trains it: it is a buffer, which published weights fill.
    """

    offset: Tensor

    def __init__(self, width: int, reduction: Reduction) -> None:
        super().__init__()
        if width < 2:
            raise ConfigError(f'a head of energy on {width} channel', 'Give a denoiser with 2 channels or more.')
        self.reduction = reduction
        self.into, self.out = nn.Linear(width, width // 2), nn.Linear(width // 2, 1, bias=False)
        self.register_buffer('offset', torch.zeros(1))
        for layer in (self.into, self.out):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.into.bias)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            x = x.to(self.into.weight.dtype)
            if self.reduction == 'mean_then_head':
                x = x.mean(1, keepdim=True)
            energy: Tensor = self.out(F.silu(self.into(x))).mean(1)
            return (energy + self.offset)[:, 0]


@VQDenoiserRegistry.register_()
class Energy(Denoiser):
    """m E(z, t, c), one number per sample, and  estimate = m dE/dz  (minus that for x0 and score): low is near data.

    ``denoiser`` is any denoiser; its ``features`` are read by a head, and its own output layers are taken off. Where it
    estimates the noise, eps = -sigma grad log p(z_t), so that m E is -sigma log p(z_t) up to a constant of each t.

    - ``reduction``: 'mean_then_head', the head reads the mean of the tokens; 'head_then_mean', the mean of what it gives for
      each; 'dot', no head: E is the sum of  z_i f(z)_i  over all numbers, f the whole denoiser (EqM, 2025).
    - ``multiplier``: m. A mean over N tokens has gradients of the order 1 / N, so that m = N brings them to the order of 1.
    - ``step``: the step size of the inner loop (``vq/sampling/diffusion/refined.py``), stored with the weights. With
      ``learn_step`` it is learned, ``step_rate`` times as fast as the weights; this needs a ``RefinementLoss``. At least 1e-4.

    Training differentiates twice. The wrapper chooses the attention that allows it, and keeps a graph of the gradient in
    training only: in eval mode, and without gradients, the estimate has no graph, attention is fused, and the gradients of
    parameters are not touched, under ``torch.inference_mode`` too.
    """

    second_order = True  # for strategies: parameters stay whole between the two backward passes
    compiles = ''  # torch.compile has no second derivatives
    binds: ClassVar[dict[str, Source]] = {'denoiser.channels': given('channels'), 'denoiser.cells': given('cells')}

    def __init__(
        self,
        denoiser: Denoiser,
        channels: int,
        cells: tuple[int, ...],
        reduction: Reduction = 'mean_then_head',
        multiplier: float = 1.0,
        step: float = 0.01,
        learn_step: bool = False,
        step_rate: float = 1.0,
    ) -> None:
        super().__init__()
        if reduction not in get_args(Reduction) or not multiplier > 0:
            raise ConfigError(
                f"reduction is '{reduction}' and multiplier {multiplier}",
                f'Give one of {listing(get_args(Reduction))}, and a multiplier above 0.',
            )
        if not step >= SMALLEST or not step_rate > 0:
            raise ConfigError(
                f'step is {step} and step_rate {step_rate}', f'Give a step of at least {SMALLEST}, and a rate above 0.'
            )
        if getattr(denoiser, 'learned_variance', False):
            raise ConfigError('an energy gives no variance of the reverse process', 'Set learned_variance=False.')
        self.denoiser, self.channels, self.cells, self.reduction = denoiser, channels, tuple(cells), reduction
        self.kind, self.dim, self.takes = denoiser.kind, denoiser.dim, denoiser.takes
        self.grid = getattr(denoiser, 'grid', self.cells)
        self.multiplier, self.learn_step, self.step_rate = float(multiplier), learn_step, float(step_rate)
        denoiser.compiles = ''
        self.head = None if reduction == 'dot' else EnergyHead(denoiser.headless() or channels, reduction)
        alpha = torch.tensor(step / step_rate)
        if learn_step:
            self.alpha = nn.Parameter(alpha)
        else:
            self.register_buffer('alpha', alpha)

    @property
    def step(self) -> Tensor:
        """() the step size of the inner loop."""
        return (self.alpha * self.step_rate).clamp(min=SMALLEST)

    def energy(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Tensor:
        """(B,) fp32."""
        if self.head is not None:
            energy: Tensor = self.head(self.denoiser.features(z, t, condition))
            return energy
        value: Tensor = self.denoiser(z, t, condition).value
        return (z.to(wide(z)) * value.to(wide(value))).flatten(1).sum(1)

    def forward(self, z: Tensor, t: Tensor, condition: Conditioned | None = None) -> Prediction:
        if self.training and torch.is_grad_enabled():
            z = z if z.requires_grad else z.detach().requires_grad_()
            with second_order():
                energy = self.energy(z, t, condition) * self.multiplier
                return self._prediction(energy, torch.autograd.grad(energy.sum(), z, create_graph=True)[0])
        with alone():
            z = own(z).requires_grad_()
            energy = self.energy(z, own(t), own(condition)) * self.multiplier
            return self._prediction(energy.detach(), torch.autograd.grad(energy.sum(), z)[0])

    def _prediction(self, energy: Tensor, gradient: Tensor) -> Prediction:
        return Prediction(-gradient if self.kind in UPHILL else gradient, self.kind, energy=energy)


def gradient_at(energy: Callable[..., Tensor], x: Tensor, *others: Any, learns: bool) -> tuple[Tensor, Tensor]:
    """dE/dx of  E = energy(x, *others),  and x without its history.

    ``learns``: the gradient has a graph, from which parameters of the energy learn; else neither has one, whatever is around.
    """
    if learns:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(energy(x, *others).sum(), x, create_graph=True)[0], x
    with alone():
        x = own(x).requires_grad_()
        return torch.autograd.grad(energy(x, *map(own, others)).sum(), x)[0], x.detach()


@contextmanager
def alone() -> Iterator[None]:
    """A graph can be built inside, whatever is around."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def own(value: Any) -> Any:
    """A tensor without its history, that a graph may keep; those in lists, tuples and records too; others as they are."""
    if isinstance(value, list | tuple):
        items = map(own, value)
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    if not isinstance(value, Tensor):
        return value
    return value.clone() if value.is_inference() else value.detach()


def energy_of(denoiser: Denoiser) -> Energy | None:
    """The energy that a denoiser is, or is made of."""
    inner = getattr(denoiser, 'denoiser', None)
    return denoiser if isinstance(denoiser, Energy) else energy_of(inner) if isinstance(inner, Denoiser) else None
