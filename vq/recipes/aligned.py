"""VQGAN with a frozen network that understands images: its features as a target, or as the eyes of the discriminator."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.teachers import teacher
from vq.recipes.vqgan import vqgan

DIFF_AUGMENT = dict(brightness=0.5, saturation=1.0, contrast=0.5, translation=0.125, cutout=0.2)
LEVEL = 'tokenizer.decoder.levels.'


@recipe(teacher)
def alignment(
    given: Given,
    *,
    place: Annotated[str, "'latent', or a module: tokenizer.decoder.levels.0, generator.network.blocks.3"] = 'latent',
    channels: Annotated[int | None, 'channels there; None: known for the latent and decoder levels of VQGAN'] = None,
    distance: Annotated[Part, 'MarginLoss (VA-VAE), CosineLoss or SmoothL1Loss'] = dict(type='SmoothL1Loss'),
    projection: Annotated[Literal['linear', 'mlp', 'none'], 'trained head, from these channels to the teacher'] = 'mlp',
    grid: Annotated[int | None, "side of the teacher's patch map; None: that of the features"] = None,
    alignment_weight: Annotated[float, 'weight of the alignment loss'] = 0.5,
    adaptive: Annotated[bool, 'weight times the ratio of gradient norms at the latent'] = False,
) -> Part:
    """A loss that aligns hidden features h with those of a teacher, a frozen network f: weight * distance(P h, f(x))."""
    target = teacher(given, teacher='dinov2')
    head = dict(place=place, channels=channels, projection=projection, grid=grid)
    loss = dict(type='AlignmentLoss', teacher=target.part, layers=target.layers, distance=distance, **head)
    return dict(loss, weight=alignment_weight, adaptive=adaptive)


@recipe(vqgan, alignment, teacher)
def aligned_vqgan(given: Given) -> Config:
    """VQGAN whose hidden features are aligned with those of a teacher; by default the output of the encoder, as in VA-VAE.

    VQGAN's losses + 0.1 ratio * (mean relu(0.5 - cos(P h, f)) + mean relu(|cos(h_i, h_j) - cos(f_i, f_j)| - 0.25))
    """
    settings = dict(distance=dict(type='MarginLoss'), projection='linear', alignment_weight=0.1)
    config, loss = vqgan(given), alignment(given, **settings)
    tokenizer = config.trainer.model.tokenizer
    small = channels_at(loss['place'], merge(tokenizer, config.tiny.trainer.model.tokenizer))
    loss['channels'] = loss['channels'] or channels_at(loss['place'], tokenizer)
    if loss['channels'] is None:
        raise ConfigError(f"how many channels '{loss['place']}' has is not known", 'Set the option channels.')
    tiny = dict(teacher=teacher(given, teacher='dinov2').tiny, channels=small or loss['channels'], width=16)
    return merge(config, _with_loss(loss), dict(tiny=_with_loss(tiny)))


def _with_loss(part: Part) -> Config:
    return dict(trainer=dict(model=dict(losses=dict(alignment=part))))


def channels_at(place: str, tokenizer: Any) -> int | None:
    """Channels of the latent or of a level of the decoder; None for other places."""
    if place == 'latent':
        quantizer = tokenizer['quantizer']
        found: int | None = quantizer.get('embedding_dim')
        return found
    number, decoder = place.removeprefix(LEVEL), tokenizer['decoder']
    if not place.startswith(LEVEL) or not number.isdigit() or int(number) >= len(decoder['multipliers']):
        return None
    return int(decoder['width'] * [*reversed(decoder['multipliers'])][int(number)])


@recipe(vqgan, teacher, hides=('discriminator', 'teacher_layers'))
def vqgan_of_features(
    given: Given,
    *,
    eyes: Annotated[dict[str, Any], 'settings of the DINODiscriminator: layers, image_size, kernel_size, norm'] = {},
    augmentation: Annotated[dict[str, float] | None, 'settings of the AugmentedDiscriminator; None: none'] = DIFF_AUGMENT,
) -> Config:
    """VQGAN whose discriminator sees images through a frozen network f (StyleGAN-T's discriminator).

    D(x) = heads of f_l(T(x)),  l several layers, T a random change of each image, the heads alone are trained
    """
    seen = teacher(given, teacher='dino_s16')
    network: Part = dict(type='DINODiscriminator', teacher=seen.part, **eyes)
    tiny: Part = dict(teacher=seen.tiny, kernel_size=3)
    if augmentation is not None:
        network = dict(type='AugmentedDiscriminator', discriminator=network, **augmentation)
        tiny = dict(discriminator=tiny)
    small = dict(tiny=dict(trainer=dict(model=dict(discriminator=tiny))))
    return merge(vqgan(given, discriminator=network), small)
