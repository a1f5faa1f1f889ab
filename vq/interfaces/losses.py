"""Losses, discriminators, and what weighs or penalises them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn

from vq.core.records import Latent, Prediction
from vq.interfaces.denoisers import Level

ActsOn = Literal['image', 'latent', 'features', 'hidden', 'parameters', 'energy']


class ImageTerm(Protocol):
    """Reconstruction and target, both (B, 3, H, W) float in [-1, 1] -> scalar. The reconstruction is all it depends on."""

    def __call__(self, reconstruction: Tensor, target: Tensor, /) -> Tensor: ...


class LatentTerm(Protocol):
    """The output of the encoder, and z (B, C, h, w), the input of the decoder: codes, or a sample -> scalar."""

    def __call__(self, latent: Latent, z: Tensor, /) -> Tensor: ...


class FeatureTerm(Protocol):
    """The model's estimate of a teacher's features, and these features, both of one shape -> scalar."""

    def __call__(self, prediction: Tensor, features: Tensor, /) -> Tensor: ...


class HiddenTerm(Protocol):
    """Hidden features of the model at the place of the loss, through its head (B, D, h, w), and the images (B, 3, H, W) float
    in [-1, 1] -> scalar."""

    def __call__(self, prediction: Tensor, image: Tensor, /) -> Tensor: ...


class ParameterTerm(Protocol):
    """The module that the optimizer of the term trains, with whole parameters: not under FSDP -> scalar."""

    def __call__(self, module: nn.Module, /) -> Tensor: ...


@dataclasses.dataclass
class Landscape:
    """The energies around the noisy samples z_t (B, C, *cells) of a training step, at their times and conditions."""

    evaluate: Callable[[Tensor], Prediction]  # z (B, C, *cells) -> estimates with energies
    prediction: Prediction  # at ``z``
    z: Tensor
    x0: Tensor
    eps: Tensor
    t: Tensor  # (B,)
    level: Level  # of t
    steps: int | None  # times of the path, if it has a grid
    size: Tensor  # () the step size of the denoiser, with its gradient
    noise: Callable[[str], Tensor]  # purpose -> standard normal numbers, the shape of z, a stream for each sample
    notes: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # scalars for the log, which losses add


class EnergyTerm(Protocol):
    """The energies of a training step -> scalar."""

    def __call__(self, landscape: Landscape, /) -> Tensor: ...


TERMS: dict[ActsOn, type] = {
    'image': ImageTerm,
    'latent': LatentTerm,
    'features': FeatureTerm,
    'hidden': HiddenTerm,
    'parameters': ParameterTerm,
    'energy': EnergyTerm,
}


class Loss(nn.Module):
    """A named term. ``acts_on`` says where it acts, and so with which arguments a task calls ``forward``: see ``TERMS``.

    ``Losses`` applies the weight. A task refuses, when it is built, terms that act where it has nothing to give.
    """

    weight: float
    acts_on: ActsOn = 'image'


class HiddenLoss(Loss):
    """A loss on features inside of the model. The model's root applies ``head``, which its optimizer trains.

    ``place``: 'latent', the output of the encoder, or the path of a module from the task on, whose output is taken: a map
    (B, C, h, w) or tokens (B, T, C). ``adaptive``: the weight is multiplied by the ratio of two gradient norms, of the image
    losses and of this loss, at the latent.
    """

    acts_on: ActsOn = 'hidden'
    place: str
    channels: int  # C
    head: nn.Module  # (B, C, h, w) -> (B, D, h, w)
    adaptive: bool = False


class Discriminator(nn.Module):
    """image (B, 3, H, W) float in [-1, 1] -> logits, one per image or per patch: high for real images. Real and
    reconstructed images are passed in separate calls, so that the two batches do not influence each other."""

    compiles = 'forward'  # the method that a strategy with ``compile`` compiles by default; '' for none


class DiscriminatorPenalty(nn.Module):
    """A regulariser of the discriminator, added every ``interval`` steps with its weight multiplied by the interval."""

    weight: float
    interval: int = 1
    second_order: bool = False  # whether it needs second derivatives

    def forward(self, discriminator: Discriminator, real: Tensor, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """``real`` are the images (B, 3, H, W), detached."""
        raise NotImplementedError

    def update(self, ok: Tensor | None = None) -> None:
        """Called once per step: update state without gradients, unless ``ok`` (a bool on the device) is false."""


class GeneratorWeight(nn.Module):
    """The weight of the adversarial term relative to the image losses."""

    by_gradients: bool = False  # whether ``forward`` needs gradients at the decoder's last layer
    losses: Sequence[str] | None = None  # the image losses in the numerator, None for all

    def forward(self, gradients: Tensor | None) -> Tensor | float:
        """``gradients`` (2, *weight.shape): of the image losses and of the adversarial term, averaged over ranks."""
        raise NotImplementedError
