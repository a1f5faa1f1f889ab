"""Autoencoders on features of networks that understand images: representation autoencoders, and masked autoencoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.recipes.aligned import DIFF_AUGMENT
from vq.recipes.data import image_size_in, photo_data
from vq.recipes.digits import digits_tokenizer
from vq.recipes.teachers import TEACHERS, Chosen, Layers, teacher
from vq.recipes.vqgan import vqgan

OF_CONV = (
    'quantizer',
    'codebook_size',
    'embedding_dim',
    'width',
    'multipliers',
    'refine',
)  # options of the convolutional tokenizer, which is replaced
DECODERS: dict[str, Part] = dict(
    B=dict(dim=768, depth=12, heads=12), XL=dict(dim=1152, depth=28, heads=16, mlp_ratio=4096 / 1152)
)
NOISE = dict(type='GaussianNoise', tau=0.8)
TINY_DECODER = dict(dim=16, depth=1, heads=2)
TINY_VIT = dict(dim=16, depth=1, heads=2, patch=8, grid=4)
EPOCH = 1_281_167 // 512  # steps, of the training images of ImageNet
WITHOUT_CODES: Config = dict(
    trainer=dict(callbacks=dict(alarm=None)), validator=dict(metrics=dict(codebook=None, window=None))
)


@recipe(teacher, hides=('teacher_layers',))
def representation(
    given: Given,
    cell: int,
    *,
    layers: Annotated[Layers | None, "features of the teacher; None: its last block, for digits 'last'"] = None,
    norm: Annotated[bool, 'whether each cell is normalized: the last norm without its scale and shift'] = True,
    train_teacher: Annotated[bool, 'whether the teacher is trained, too'] = False,
) -> tuple[Part, Part, Chosen]:
    """A ``RepresentationEncoder`` with cells of ``cell`` pixels, its tiny form, and its teacher."""
    chosen = teacher(given, teacher='dinov2_reg_b', teacher_layers='last' if layers is None else layers)
    if layers is None and chosen.part['type'] != 'TrainedTeacher':
        layers = -1
    whole = dict(type='RepresentationEncoder', teacher=chosen.part, layers=chosen.layers if layers is None else layers)
    return dict(whole, norm=norm, downsampling=cell, train_teacher=train_teacher), dict(teacher=chosen.tiny), chosen


def dino_eyes() -> tuple[Part, Part]:
    """A discriminator on DINO ViT-S/8 at 224 pixels, and its tiny form."""
    seen = TEACHERS['dino_s8']
    network = dict(type='DINODiscriminator', teacher=seen.part, image_size=224, kernel_size=9)
    tiny = dict(discriminator=dict(teacher=seen.small('last'), image_size=32, kernel_size=3))
    return dict(type='AugmentedDiscriminator', discriminator=network, **{**DIFF_AUGMENT, 'cutout': 0.0}), tiny


def cells_a_side(given: Given, cell: int) -> int:
    size = image_size_in(photo_data(given))
    if not isinstance(size, int) or size % cell:
        raise ConfigError(f'image_size is {size}, and cell is {cell}', 'Give squares whose side is a multiple of cell.')
    return size // cell


def replaced(config: Config, tokenizer: Part, tiny: Part, discriminator: Part | None = None) -> Config:
    """``config`` of a VQGAN with another tokenizer, without codes. ``discriminator``: its tiny form, if it is another."""
    small: Config = dict(tokenizer=dict(tiny, _delete_=True))
    if discriminator is not None:
        small['discriminator'] = discriminator
    whole = dict(trainer=dict(model=dict(tokenizer=dict(tokenizer, _delete_=True))))
    return merge(config, whole, WITHOUT_CODES, dict(tiny=merge(WITHOUT_CODES, dict(trainer=dict(model=small)))))


def falling(final: float) -> Config:
    """Half a cosine to the share ``final`` of the learning rate, for both optimizers."""
    schedule = dict(schedule=dict(type='CosineSchedule', final=final))
    return dict(tokenizer=schedule, discriminator=schedule)


@recipe(vqgan, representation, hides=(*OF_CONV, 'teacher_layers'))
def rae(
    given: Given,
    *,
    decoder_size: Annotated[Literal['B', 'XL'], 'size of the decoder: 86 or 415 million parameters'] = 'B',
    decoder: Annotated[dict[str, Any], 'settings of the MAEDecoder, on top of its size'] = {},
    perturbation: Annotated[Part | None, 'noise on the latents in training; None: none'] = NOISE,
    cell: Annotated[int, 'pixels a side of a latent vector'] = 16,
    final_lr: Annotated[float, 'share of the learning rates at the end, after half a cosine'] = 0.1,
) -> Config:
    """A representation autoencoder (RAE, 2025): a ViT decoder for the features f of a network that understands images.

        image x -> f(x) -> z + s e -> decoder -> x',  s uniform in (0, 0.8) for each image, e standard normal
        decoder:        |x - x'| + LPIPS(x, x') - 0.75 ratio * E D(x')
        discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2,  D sees through a frozen DINO ViT-S/8

    16 epochs of ImageNet. The discriminator trains from the seventh epoch on, and is used from the ninth on.
    """
    encoder, small, _ = representation(given, cell)
    eyes, tiny_eyes = dino_eyes()
    grid = cells_a_side(given, cell)
    tokenizer = dict(
        type='RepresentationAutoencoder',
        encoder=encoder,
        decoder={**dict(type='MAEDecoder', grid=grid), **DECODERS[decoder_size], **decoder},
        perturbation=perturbation,
    )
    few = cell if 32 % cell == 0 else 16  # of the tiny form, whose images have 32 pixels
    tiny = dict(encoder=dict(small, downsampling=few), decoder=dict(TINY_DECODER, grid=32 // few))
    training: dict[str, Any] = dict(batch_size=512, iters=16 * EPOCH, discriminator_start=6 * EPOCH, warmup=2 * EPOCH)
    training |= dict(lr=2e-4, discriminator_lr=2e-4, betas=(0.9, 0.95), ema=0.9978, optimize=falling(final_lr)['tokenizer'])
    weight = dict(type='AdaptiveWeight', gain=0.75)
    config = vqgan(given, discriminator=eyes, generator_weight=weight, precision='bf16', **training)
    kind = config['trainer']['model']['discriminator']['type']
    config = replaced(config, tokenizer, tiny, tiny_eyes if kind == eyes['type'] else None)
    return merge(config, dict(tiny=dict(trainer=dict(model=dict(warmup=1)))))


LOSSES: dict[str, Part] = dict(l1=dict(l1=dict(type='L1Loss')), l2=dict(l2=dict(type='MSELoss')))


@recipe(vqgan, hides=(*OF_CONV, 'losses'))
def mae_autoencoder(
    given: Given,
    *,
    loss: Annotated[Literal['l1', 'l2'], 'distance of pixels: absolute or squared difference'] = 'l1',
    lpips: Annotated[float, 'weight of LPIPS; 0: without'] = 1.0,
    mask_ratio: Annotated[float, 'share of patches that are masked in training'] = 0.0,
    train_encoder: Annotated[bool, 'whether the encoder is trained, too'] = False,
    no_cls: Annotated[bool, 'the decoder has a class token of its own, so the latent is a map'] = True,
    decoder: Annotated[dict[str, Any], 'settings of the MAEDecoder'] = dict(dim=512, depth=8, heads=16),
    perturbation: Annotated[Part | None, 'noise on the latents in training; None: none'] = None,
) -> Config:
    """A masked autoencoder as an image autoencoder: MAE's ViT-B/16, frozen, and a decoder of MAE's shape, trained for pixels.

    image x -> ViT-MAE -> z (B, 768, 16, 16) -> decoder -> x'
    decoder:        |x - x'| + LPIPS(x, x') - weight * E D(x')
    discriminator:  (E max(0, 1 - D(x)) + E max(0, 1 + D(x'))) / 2,  a small vision transformer
    """
    patch = 16
    grid, known = cells_a_side(given, patch), TEACHERS['mae']
    shape = dict(class_token='learned' if no_cls else 'given', masked=mask_ratio > 0)
    tokenizer = dict(
        type='MAEAutoencoder',
        encoder=dict(type='MAEEncoder', teacher=known.part, mask_ratio=mask_ratio, train_encoder=train_encoder),
        decoder=dict(type='MAEDecoder', grid=grid, **shape, **decoder),
        perturbation=perturbation,
    )
    few = 4  # patches of 4 pixels
    tiny = dict(encoder=dict(teacher=dict(known.small('last'), patch_size=few)), decoder=dict(TINY_DECODER, grid=32 // few))
    losses = {**LOSSES[loss], **(dict(lpips=dict(type='LPIPSLoss', weight=lpips)) if lpips else {})}
    critic = dict(type='ViTDiscriminator', grid=grid)
    training: dict[str, Any] = dict(precision='bf16', lr=1e-4, discriminator_lr=1e-4, betas=(0.9, 0.95))
    config = vqgan(given, losses=losses, discriminator=critic, **training)
    is_own = config['trainer']['model']['discriminator']['type'] == critic['type']
    config = replaced(config, tokenizer, tiny, TINY_VIT if is_own else None)
    return config if lpips else merge(config, dict(tiny=dict(trainer=dict(model=dict(losses=dict(lpips=None))))))


@recipe(
    digits_tokenizer,
    representation,
    hides=('quantizer', 'codebook_size', 'embedding_dim', 'connector', 'width', 'features', 'teacher_layers'),
)
def digits_rae(
    given: Given,
    *,
    dim: Annotated[int, 'channels of the decoder'] = 128,
    depth: Annotated[int, 'blocks of the decoder'] = 4,
    perturbation: Annotated[Part | None, 'noise on the latents in training; None: none'] = NOISE,
) -> Config:
    """A representation autoencoder of handwritten digits: 8 x 8 cells of 64 channels, those of the classifier of digits."""
    encoder, small, _ = representation(given, 4, teacher='digits')
    decoder = dict(type='MAEDecoder', dim=dim, depth=depth, heads=4, grid=8)
    tokenizer = dict(type='RepresentationAutoencoder', encoder=encoder, decoder=decoder, perturbation=perturbation)
    tiny = dict(encoder=small, decoder=TINY_DECODER)
    return replaced(digits_tokenizer(given, quantizer=None), tokenizer, tiny)
