"""A folder of your own pictures, 32 to 128 pixels: tokenizers, and generators that take all else from a tokenizer's run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.errors import ConfigError
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.core.specs import ImageSize
from vq.core.specs import size_of as size_of_images
from vq.recipes.data import data, image_size_in, packed, tiny_data
from vq.recipes.digits import small_discriminator
from vq.recipes.frozen import Frozen, frozen_tokenizer
from vq.recipes.generators import token_generator
from vq.recipes.parts import TINY_SCHEDULE, code_sizes, kind_of, of_types, sized, watching
from vq.recipes.perturbed import disturbed
from vq.recipes.strategy import chosen, strategy

Size = Literal['S', 'M', 'L']
PIXELS = 8  # a token is a square of this many pixels a side
# width of encoder and decoder, residual blocks a level, codes, images per step, steps, learning rate, decay of averages
TOKENIZERS = dict(
    S=(16, 32, 1, 256, 16, 1500, 2e-3, 0.99),
    M=(32, 64, 2, 512, 32, 10_000, 1e-3, 0.999),
    L=(64, 128, 2, 1024, 64, 50_000, 5e-4, 0.9995),
)
# dim, depth, heads, images per step, steps, learning rate, decay of averages
GENERATORS = dict(
    S=(192, 4, 6, 16, 1200, 2e-3, 0.99), M=(256, 8, 8, 64, 10_000, 1e-3, 0.999), L=(512, 12, 8, 128, 50_000, 3e-4, 0.9995)
)


@recipe(data, strategy, code_sizes, disturbed)
def photos_tokenizer(
    given: Given,
    *,
    size: Annotated[Size, 'S: a laptop, minutes; M: a small GPU; L: a GPU, hours'] = 'S',
    iters: Annotated[int | None, 'optimizer steps; None: 1,500 (S), 10,000 (M), 50,000 (L)'] = None,
    lr: Annotated[float | None, 'learning rate of AdamW; None: 2e-3 (S), 1e-3 (M), 5e-4 (L)'] = None,
    losses: Annotated[dict[str, Any], 'reconstruction losses, by name'] = dict(l2=dict(type='MSELoss')),
) -> Config:
    """A convolutional tokenizer of photographs: one token for 8 x 8 pixels, an EMA codebook with restarts.

    Most of the network works at the lower resolutions, where it decides what a code means; at full resolution it only reads
    and writes pixels, which takes most of the time on a CPU.
    """
    encoder, decoder, blocks, codes, batch_size, steps, rate, decay = TOKENIZERS[size]
    steps = iters or steps
    images = dict(dataset='folder', image_size=64, augmentation='strong', held_out=0.1, bad_images='skip', num_workers=2)
    photos = data(given, batch_size=batch_size, val_batch_size=32, **images)
    sides = size_of_images(image_size_in(photos))
    for pixels in (side for side in sides if side % PIXELS):
        near = pixels // PIXELS * PIXELS
        raise ConfigError(
            f'image_size is {pixels}, and a token is a square of {PIXELS} x {PIXELS} pixels',
            f'Take a multiple of {PIXELS}: {near or PIXELS} or {near + PIXELS}.',
        )
    for which in ('trainer', 'validator'):  # a large photograph takes longer to decode than a step
        if kind_of(photos[which]['dataset']) == 'FolderDataset':
            photos[which]['dataset']['shrink_to'] = 4 * max(sides)
    shape = dict(multipliers=(1, 2, 4), residual_blocks=blocks, attention_levels=(), refine_attention=False, norm_groups=4)
    shape['resample_last'] = True
    quantizer = dict(type='VectorQuantizer', update=dict(type='EMAUpdate', decay=0.97, restart=dict(threshold=0.1)))
    tokenizer = dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', width=encoder, out_channels=64, downsample='strided', **shape),
        post_encode=dict(type='ConvConnector'),
        quantizer=sized(given, quantizer, codebook_size=codes, embedding_dim=8),
        pre_decode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', width=decoder, upsample='repeat', **shape),
        **disturbed(given),
    )
    metrics = of_types(l1='L1Metric', mse='MSEMetric', psnr='PSNRMetric', ssim='SSIMMetric', codebook='CodebookMetric')
    metrics['window'] = dict(type='WindowedCodebookMetric', window=1024)
    adam = dict(type='AdamW', lr=lr or rate, betas=(0.9, 0.99), weight_decay=1e-4, clip=1.0)
    adam['schedule'] = dict(type='CosineSchedule', warmup=min(50, steps // 10), final=0.02)
    whole, small = watching(ema=decay, pictures=often(steps), alarm=often(steps), **regular(steps))
    model = dict(type='ImageTokenization', tokenizer=tokenizer, losses=losses)
    optimizers = dict(tokenizer=adam)
    narrow = dict(tokenizer=dict(encoder=dict(width=8, out_channels=16), decoder=dict(width=8)))
    tiny = dict(model=narrow, optimizers=dict(tokenizer=dict(schedule=TINY_SCHEDULE)), callbacks=small)
    return merge(
        photos,
        strategy(given),
        dict(
            trainer=dict(type='Trainer', iters=steps, model=model, optimizers=optimizers, callbacks=whole),
            validator=dict(type='Validator', metrics=metrics),
            tiny=merge(tiny_data(given), dict(trainer=tiny)),
        ),
    )


def often(steps: int) -> int:
    return max(1, steps // 5)


def regular(steps: int) -> dict[str, Any]:
    """The log, evaluations and checkpoints of a run of so many steps."""
    third = max(1, -(-steps // 3))
    return dict(log=max(1, min(50, steps // 20)), evaluate=third, checkpoint=dict(interval=third, keep_last=2))


@recipe(photos_tokenizer)
def photos_gan(
    given: Given,
    *,
    gain: Annotated[float, 'gain of the adaptive weight of the adversarial term'] = 0.1,
    start: Annotated[int | None, 'step at which the discriminator starts to train; None: half of the steps'] = None,
    discriminator_lr: Annotated[float, 'learning rate of AdamW, discriminator'] = 1e-3,
) -> Config:
    """The same with a small discriminator in the second half of the run: sharper pictures, less PSNR."""
    config = photos_tokenizer(given)
    first = config['trainer']['iters'] // 2 if start is None else start
    return merge(config, small_discriminator(gain, discriminator_lr, first, warmup=first // 20, ramp=first // 5))


# generators

OF_IMAGES = ('dataset', 'augmentation', 'classes', 'backend', 'held_out')  # options of the tokenizer, whose run has them


@recipe(token_generator, hides=(*OF_IMAGES, 'data_root', 'data', 'image_size', 'size', 'num_classes', 'guidance', 'gives'))
def photos_generator(
    given: Given,
    *,
    size: Annotated[Size, 'S: a laptop, minutes; M: a small GPU; L: a GPU, hours'] = 'S',
    iters: Annotated[int | None, 'optimizer steps; None: 1,200 (S), 10,000 (M), 50,000 (L)'] = None,
    lr: Annotated[float | None, 'learning rate of AdamW; None: 2e-3 (S), 1e-3 (M), 3e-4 (L)'] = None,
    data_root: Annotated[str | None, 'folder of the images, if it has moved; None: where the tokenizer found them'] = None,
    data: Annotated[Literal['folder', 'packed'], 'packed: data_root is what vq data pack made of these images'] = 'folder',
    image_size: Annotated[ImageSize | None, "image size in pixels; it must be the tokenizer's, which is the default"] = None,
    num_classes: Annotated[int | None, "number of classes; None: of the tokenizer's images; 0: unconditional"] = None,
    guidance: Annotated[float | Part | None, 'scale of classifier-free guidance; None: 2 with classes, else 1'] = None,
) -> Config:
    """A generator of the tokens of a run of this family: ``tokenizer=NAME`` and nothing else.

    Images, their size, their classes and augmentation are those of the tokenizer's run. Images are tokenized in every step,
    so that every step sees other crops: with a few hundred images, tokens written once would be learned by heart.
    """
    frozen = frozen_tokenizer(given, it_config='configs/photos/tokenizer.py')
    sets, pixels = images_of(frozen, data_root, data == 'packed'), size_of(frozen, image_size)
    known = 0 if frozen.run is None else frozen.run.spec.trained_on.get('classes') or 0
    classes = known if num_classes is None else num_classes
    scale = guidance.get('scale', 1) if isinstance(guidance, dict) else guidance
    if not classes and scale not in (None, 1):
        raise ConfigError(
            f'guidance is {scale}, and the generator has no classes to be guided by: the images of the tokenizer have none',
            'Leave guidance out, or sort the images into one folder for each class and train the tokenizer again.',
        )
    if not isinstance(guidance, dict):
        usual = 2.0 if classes else 1.0
        guidance = dict(type='ConstantGuidance', scale=usual if guidance is None else guidance)
    dim, depth, heads, batch_size, steps, rate, decay = GENERATORS[size]
    steps, looks = iters or steps, regular(iters or steps)
    own = dict(dim=dim, depth=depth, heads=heads, num_classes=classes, guidance=guidance, image_size=pixels, dropout=0.1)
    training = dict(iters=steps, lr=lr or rate, ema=decay, precision='fp32', batch_size=batch_size, on_the_fly=True)
    training |= dict(batch_size_in_total=False, num_workers=2)
    training['schedule'] = dict(type='CosineSchedule', warmup=min(50, steps // 10), final=0.02)
    watched = dict(save_every=looks['checkpoint']['interval'], evaluate=looks['evaluate'], pictures_every=often(steps))
    figures = dict(sampler=dict(type='Multinomial', temperature=0.8), features=None, log_backend=None, evaluate_limit=256)
    loading = frozen.config['trainer'].get('dataloader') or {}
    bad = chosen(bad_images=loading.get('bad_images'), bad_images_limit=loading.get('bad_image_cap'))
    config = token_generator(given, it_config='configs/photos/tokenizer.py', **own, **training, **watched, **figures, **bad)
    for which, part in sets.items():
        there = config[which]['dataset']
        if kind_of(there) == 'TokenDataset':  # the variants are its augmentation
            there['source'] = dict(part, transform=sets['validator'].get('transform'))
        else:
            config[which]['dataset'] = part
    tiny = dict(classes=10) if classes else {}  # of the digits
    return merge(config, dict(tiny=dict(trainer=dict(model=dict(generator=tiny)))))


def images_of(frozen: Frozen, root: str | None, in_shards: bool) -> dict[str, Part]:
    """The datasets of the config that trained a tokenizer. ``root``: where their folder is now, or their packed images."""
    found: dict[str, Part] = {}
    for which in ('trainer', 'validator'):
        part = (frozen.config.get(which) or {}).get('dataset')
        if part is None:
            name = frozen.part['weights']
            raise ConfigError(
                f'tokenizer: {name} does not say which images it was trained on',
                'Give a run that was trained here, or take a config of configs/ar, which has a dataset of its own.',
            )
        found[which] = {**part, **({} if root is None or 'root' not in part else dict(root=root))}
    if in_shards:
        if root is None:
            raise ConfigError('data is packed, and data_root is not given', 'Add data_root=O, the output of vq data pack.')
        backend = str(found['trainer'].get('backend', 'pillow'))
        both = packed({which: dict(dataset=part) for which, part in found.items()}, root, backend)
        return {which: both[which]['dataset'] for which in found}
    return found


def size_of(frozen: Frozen, asked: ImageSize | None) -> ImageSize:
    """The image size of a tokenizer, which is the one to generate."""
    image = None if frozen.run is None else frozen.run.spec.image
    sides = size_of_images(image_size_in(frozen.config)) if image is None else image
    pixels = sides[0] if sides[0] == sides[1] else (sides[0], sides[1])
    if asked is not None and size_of_images(asked) != sides:
        raise ConfigError(
            f'image_size is {asked}, and the tokenizer was trained on images of {pixels} pixels',
            f'Leave image_size out, or train a tokenizer with image_size={asked}.',
        )
    return pixels
