"""Tiny adversarial tasks, and the two-forward recipe of VQGAN as a reference implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.records import Batch, to_float
from vq.decoders.convolutional import ConvDecoder
from vq.encoders.convolutional import ConvEncoder
from vq.interfaces import Discriminator, Loss
from vq.losses.adversarial import hinge_discriminator, hinge_generator
from vq.losses.generator_weight import AdaptiveWeight
from vq.losses.reconstruction import L1Loss, MSELoss
from vq.quantizers.vector import VectorQuantizer
from vq.tasks.image_tokenization.adversarial import AdversarialTokenization
from vq.tokenizers.vqgan import VQGAN

SHAPE = dict(width=4, multipliers=(1, 1), attention_levels=(), refine=False, norm_groups=2)


class SmallDiscriminator(Discriminator):
    """Two convolutions, smooth, so that second derivatives exist."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 4, 2, 1), nn.SiLU(), nn.Conv2d(6, 1, 3))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


class Slanted(Loss):
    """A weighted pixel loss, in place of a perceptual loss."""

    weight = 0.7

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 5, 3).requires_grad_(False)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        difference: Tensor = self.filter(prediction) - self.filter(target)
        return difference.square().mean()


def make_tokenizer() -> VQGAN:
    return VQGAN(
        encoder=ConvEncoder(**SHAPE, residual_blocks=1, out_channels=6),
        quantizer=VectorQuantizer(16, 6),
        decoder=ConvDecoder(**SHAPE, residual_blocks=1, in_channels=6),
    )


def make_task(seed: int = 0, **settings: Any) -> AdversarialTokenization:
    torch.manual_seed(seed)
    values: dict[str, Any] = dict(
        tokenizer=make_tokenizer(),
        losses={'l1': L1Loss(), 'l2': MSELoss(0.3), 'slanted': Slanted()},
        discriminator=SmallDiscriminator(),
        generator_loss=hinge_generator,
        discriminator_loss=hinge_discriminator,
        weight=AdaptiveWeight(),
    )
    return AdversarialTokenization(**{**values, **settings})


def make_batch(seed: int = 1, size: int = 5, height: int = 12, width: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (size, 3, height, width), dtype=torch.uint8, generator=generator)
    return Batch(image, [str(index) for index in range(size)], torch.arange(size))


def two_forward_losses(
    task: AdversarialTokenization, batch: Batch, weigh: Callable[[Tensor, Tensor], Tensor | float], numerator: set[str]
) -> tuple[Tensor, Tensor | float]:
    """The tokenizer's total loss as in VQGAN's code, entirely by autograd; ``weigh`` takes the two norms."""
    image = to_float(batch.image)
    quantized = task.tokenizer.quantize(task.tokenizer.encode(image))
    reconstruction = task.tokenizer.decode(quantized.z)
    terms = {name: loss.weight * loss(reconstruction, image) for name, loss in task.losses.items()}
    adversarial = task.generator_loss(task.discriminator(reconstruction))
    last = task.tokenizer.decoder.conv_out.weight
    (adversarial_gradient,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    (pixels,) = torch.autograd.grad(sum(terms[name] for name in numerator), last, retain_graph=True)
    weight = weigh(pixels.norm(), adversarial_gradient.norm())
    codebook = sum(task.tokenizer.loss_weights[name] * value for name, value in quantized.losses.items())
    total = sum(terms.values()) + codebook + weight * adversarial
    return total, weight


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if value.grad is None else value.grad.clone() for name, value in module.named_parameters()}
