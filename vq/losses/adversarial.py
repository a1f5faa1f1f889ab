"""Adversarial losses of discriminator and generator, in fp32. r are logits of real images, f those of reconstructions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vq.registries import VQDiscriminatorLossRegistry, VQGeneratorLossRegistry


@VQDiscriminatorLossRegistry.register_('HingeDiscriminatorLoss')
def hinge_discriminator(real: Tensor, fake: Tensor, *, scale: float = 0.5) -> Tensor:
    """scale (E max(0, 1 - r) + E max(0, 1 + f)). VQGAN halves the sum, the StyleGAN2 study of VQ-VAE/GAN does not."""
    return scale * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


@VQDiscriminatorLossRegistry.register_('VanillaDiscriminatorLoss')
def vanilla_discriminator(real: Tensor, fake: Tensor, *, scale: float = 0.5) -> Tensor:
    """scale (E softplus(-r) + E softplus(f)): cross entropy, also the discriminator loss of the non-saturating GAN."""
    return scale * (F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean())


@VQGeneratorLossRegistry.register_('HingeGeneratorLoss')
def hinge_generator(fake: Tensor) -> Tensor:
    """-E f: the generator loss of VQGAN, with either discriminator loss."""
    return -fake.float().mean()


@VQGeneratorLossRegistry.register_('NonSaturatingGeneratorLoss')
def non_saturating_generator(fake: Tensor) -> Tensor:
    """E softplus(-f)."""
    return F.softplus(-fake.float()).mean()
