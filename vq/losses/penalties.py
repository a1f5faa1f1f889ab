"""Penalties that regularise a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.interfaces import Discriminator, DiscriminatorPenalty
from vq.nn.eager import eager
from vq.nn.precision import no_autocast
from vq.registries import VQPenaltyRegistry


@VQPenaltyRegistry.register_()
class R1Penalty(DiscriminatorPenalty):
    """E |grad_x D(x)|^2 over real images x (Mescheder et al. 2018), in fp32, every ``interval`` steps.

    The weight is multiplied by the interval, so that the strength does not depend on the interval. The discriminator runs in
    eval mode: with batch statistics the gradient of one image would depend on the other images. It runs uncompiled and
    without fused attention: graphs of torch.compile and fused attention kernels have no second derivatives.
    """

    second_order = True

    def __init__(self, weight: float = 10.0, interval: int = 16) -> None:
        super().__init__()
        if interval < 1:
            raise ConfigError(f'R1Penalty has interval {interval}', 'Give 1 or more steps.')
        self.weight, self.interval = weight, interval

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        was_training = discriminator.training
        with no_autocast(real.device), eager(), sdpa_kernel(SDPBackend.MATH):
            images = real.detach().float().requires_grad_()
            discriminator.eval()
            (gradient,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
            discriminator.train(was_training)
            return gradient.square().sum(dim=(1, 2, 3)).mean()


@VQPenaltyRegistry.register_()
class LeCamPenalty(DiscriminatorPenalty):
    """E max(0, D(x) - a_f)^2 + E max(0, a_r - D(x'))^2,  a_r and a_f moving averages of the logits of real images x and
    reconstructions x' (Tseng et al. 2021).

    The averages are over all ranks, start at their first observation, and are updated once per step.
    """

    averages: Tensor
    weight_of_averages: Tensor

    def __init__(self, weight: float = 0.001, decay: float = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ConfigError(f'LeCamPenalty has decay {decay}', 'Give a number from 0 up to, but not including, 1.')
        self.weight, self.decay = weight, decay
        self.register_buffer('averages', torch.zeros(2))  # of real and fake logits, biased towards 0 by a short history
        self.register_buffer('weight_of_averages', torch.zeros(()))  # 1 - decay^steps: corrects the bias
        self._sums: Tensor | None = None  # over this step's micro-batches: real, fake, their number

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        with no_autocast(real.device):
            real_logits, fake_logits = real_logits.float(), fake_logits.float()
            seen = torch.stack([real_logits.detach().mean(), fake_logits.detach().mean(), real_logits.new_ones(())])
            self._sums = seen if self._sums is None else self._sums + seen
            known = self.weight_of_averages > 0
            average_real, average_fake = torch.where(known, self.averages / self.weight_of_averages, seen[:2])
            return F.relu(real_logits - average_fake).square().mean() + F.relu(average_real - fake_logits).square().mean()

    @torch.no_grad()
    def update(self, ok: Tensor | None = None) -> None:
        if self._sums is None:
            return
        sums, self._sums = collectives.all_reduce(self._sums), None
        rate = (1 - self.decay) * (torch.ones_like(self.weight_of_averages) if ok is None else ok.float())
        # a rejected step can contain nan, and 0 * nan is nan
        means = torch.where(rate > 0, sums[:2] / sums[2], self.averages)
        self.averages.lerp_(means, rate)
        self.weight_of_averages.lerp_(torch.ones_like(self.weight_of_averages), rate)
