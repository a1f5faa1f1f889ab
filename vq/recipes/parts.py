"""Parts shared by recipes of several families: data, strategy, the convolutional tokenizer, callbacks, tiny forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, alias, merge, recipe

# quantizers that do not take codebook_size and embedding_dim
OWN_SIZES = ('FiniteScalarQuantizer', 'LookupFreeQuantizer', 'BinarySphericalQuantizer')
SIZED = ('VectorQuantizer', 'GumbelQuantizer', 'SimVectorQuantizer', 'IndexBackpropagationQuantizer')

# data


def photographs(dataset: str, split: str, name: str | None, image_size: int, root: str | None, **settings: Any) -> Part:
    transform = None if name is None else dict(type=f'VQTransformRegistry.{name}', image_size=image_size)
    if dataset == 'digits':
        return dict(type='VQDatasetRegistry.DigitsDataset', split=split, image_size=image_size, transform=transform)
    kind = 'ImageNetDataset' if dataset == 'imagenet' else 'FolderDataset'
    root = root or ('data/imagenet' if dataset == 'imagenet' else 'data/images')
    return dict(type=f'VQDatasetRegistry.{kind}', root=root, split=split, transform=transform, **settings)


@recipe()
def datasets(
    given: Given,
    *,
    dataset: Annotated[str, 'digits, folder, imagenet, or the path of a config of your own without .py'] = 'digits',
    image_size: Annotated[int | None, 'image size in pixels; None: 32 for digits, 256 for others'] = None,
    augmentation: Annotated[str | None, 'none (crop), default, weak, strong, square; auto: strong, digits: None'] = 'auto',
    data_root: Annotated[str | None, 'folder of the images; None: data/imagenet or data/images'] = None,
    classes: Annotated[bool, 'dataset folder: the first folders below a split are the classes'] = True,
    held_out: Annotated[float, 'dataset folder without split folders: the fraction held out for validation'] = 0.05,
    backend: Annotated[Literal['pillow', 'cv2'], 'decoder of image files; cv2 is faster for JPEG and needs mmcv'] = 'pillow',
) -> Config:
    """The training split with augmentation, and the validation split with centre crops."""
    if dataset not in ('digits', 'folder', 'imagenet'):
        settings: dict[str, Any] = dict(image_size=image_size, augmentation=augmentation, data_root=data_root)
        settings |= dict(classes=classes, held_out=held_out, backend=backend)
        unset = dict(image_size=None, augmentation='auto', data_root=None)
        return given.load_with_all(f'{dataset}.py', **{k: v for k, v in settings.items() if k not in unset or v != unset[k]})
    size = image_size or (32 if dataset == 'digits' else 256)
    name = (None if dataset == 'digits' else 'strong') if augmentation == 'auto' else augmentation
    files: dict[str, Any] = {} if dataset == 'digits' else dict(backend=backend)
    if dataset == 'folder':
        files |= dict(classes=classes, held_out=held_out)
    validated = None if name is None else 'none'
    return dict(
        trainer=dict(dataset=photographs(dataset, 'train', name, size, data_root, **files)),
        validator=dict(dataset=photographs(dataset, 'validation', validated, size, data_root, **files)),
    )


@recipe(datasets)
def data(
    given: Given,
    *,
    dataset: Annotated[str, 'digits, folder, imagenet, or the path of a config of your own without .py'] = 'digits',
    batch_size: Annotated[int, 'images per step and rank'] = 16,
    val_batch_size: Annotated[int | None, 'images per validation step; None: batch_size'] = None,
    batch_size_in_total: Annotated[bool, 'batch sizes are totals over all ranks'] = False,
    num_workers: Annotated[int | None, 'worker processes that load images; None: 4, and 0 for digits (in memory)'] = None,
    bad_images: Annotated[Literal['raise', 'skip'], 'what to do with images that cannot be read'] = 'raise',
    bad_images_limit: Annotated[float, 'bad_images skip: the fraction of a split that may be bad'] = 0.2,
) -> Config:
    """Datasets and data loaders."""
    workers = (0 if dataset == 'digits' else 4) if num_workers is None else num_workers
    loading: dict[str, Any] = dict(num_workers=workers, pin_memory=True, batch_size_in_total=batch_size_in_total)
    loading |= dict(bad_images=bad_images, bad_image_cap=bad_images_limit)
    training = dict(dataloader=dict(batch_size=batch_size, **loading))
    validation = dict(dataloader=dict(batch_size=val_batch_size or batch_size, **loading))
    return merge(datasets(given, dataset=dataset), dict(trainer=training, validator=validation))


def photo_data(given: Given, **settings: Any) -> Config:
    """Data of photographs at 256 pixels, and the strategy."""
    images = dict(dataset='imagenet', image_size=256, augmentation='strong')
    loading = dict(batch_size=96, batch_size_in_total=True, num_workers=5)
    return merge(data(given, **{**images, **loading, **settings}), strategy(given))


def image_size_in(config: Config) -> int:
    """Size of the training images in pixels."""
    dataset = config['trainer']['dataset']
    return int((dataset.get('transform') or dataset).get('image_size', 256))


STRATEGIES = dict(auto='AutoStrategy', base='BaseStrategy', ddp='DDPStrategy', fsdp='FSDPStrategy', xla='XLAStrategy')


@recipe()
def strategy(
    given: Given,
    *,
    strategy: Annotated[str, 'auto (one rank: base, several: ddp), base, ddp, fsdp, xla, or a config without .py'] = 'auto',
    precision: Annotated[Literal['fp32', 'bf16', 'fp16'] | None, 'precision of forward passes; None: fp32'] = None,
    accumulate: Annotated[int | None, 'gradient accumulation: micro-batches per step; None: 1'] = None,
    device: Annotated[str | None, 'device of strategy base or auto: cpu, cuda:1, ...; None: the best available'] = None,
) -> Config:
    """Device, precision and distribution over ranks."""
    part = dict(type=STRATEGIES[strategy]) if strategy in STRATEGIES else given.load_with_all(f'{strategy}.py')
    settings = chosen(precision=precision, accumulate=accumulate, device=device if strategy in ('auto', 'base') else None)
    return dict(trainer=dict(strategy=merge(part, settings)))


def tiny_data(given: Given) -> Config:
    """The tiny form of any dataset: scikit-learn's digits. Of the strategy it keeps what options and callers said.

    Batch sizes are per rank, since the small batches of the tiny form do not divide among any number of ranks.
    """
    digits = dict(_delete_=True, type='DigitsDataset', image_size=32)
    kept = dict(strategy(given)['trainer']['strategy'], _delete_=True)
    loading = dict(num_workers=0, batch_size_in_total=False)
    training = dict(dataset=dict(digits, split='train'), dataloader=dict(batch_size=8, **loading))
    validation = dict(dataset=dict(digits, split='validation'), dataloader=dict(batch_size=60, **loading))
    return dict(trainer=dict(training, iters=8, strategy=kept), validator=validation)


def kind_of(part: Part) -> str:
    """The type of a part without its registry."""
    return str(part.get('type', '')).split('.')[-1]


# callbacks: the runner adds those for progress, git and preemption itself

WATCHING: dict[str, tuple[str, Part]] = {  # name: type, and settings in the tiny form
    'tokens': ('TokensCallback', dict(batch_size=60)),
    'ema': ('EMACallback', dict(decay=0.9)),
    'log': ('LogCallback', dict(interval=2)),
    'backends': ('BackendsCallback', dict(backends=[dict(type='LocalVisBackend')])),
    'pictures': ('ImageGridCallback', dict(interval=4)),
    'generations': ('GenerationsCallback', dict(interval=8, each=1)),
    'alarm': ('CodebookAlarmCallback', dict(interval=4)),
    'evaluate': ('EvalCallback', dict(interval=8, limit=20)),
    'checkpoint': ('CheckpointCallback', dict(interval=4)),
}


def watching(tiny: Mapping[str, Part] = {}, **settings: Any) -> tuple[Config, Config]:
    """Callbacks by name, and the callbacks that replace them in the tiny form.

    A number is the interval in steps (for ``ema`` the decay); a dict has all settings; None leaves the callback out.
    ``tiny``: overrides of the tiny settings in WATCHING.
    """
    whole, small = {}, {}
    for name, values in settings.items():
        if values is not None:
            kind, defaults = WATCHING[name]
            values = values if isinstance(values, Mapping) else {'decay' if name == 'ema' else 'interval': values}
            whole[name] = dict(type=kind, **values)
            small[name] = {'_delete_': True, 'type': kind, **defaults, **tiny.get(name, {})}
    return whole, small


def cooling(final: float = 1 / 16) -> Part:
    """A callback that anneals the temperature of a Gumbel quantizer from 1 to ``final`` along a cosine."""
    setting = 'tokenizer.quantizer.temperature'
    return dict(type='AnnealCallback', setting=setting, value=1.0, schedule=dict(type='CosineSchedule', final=final))


def chosen(**settings: Any) -> dict[str, Any]:
    """Settings that are not None. A setting left out has the default of the part."""
    return {name: value for name, value in settings.items() if value is not None}


def of_types(**types: str) -> dict[str, Part]:
    """Parts by name, with the default settings of their types."""
    return {name: dict(type=kind) for name, kind in types.items()}


def by_name(parts: Any) -> Config:
    """Callbacks by name: a list gets names derived from the types, a dict is copied."""
    if isinstance(parts, Mapping):
        return dict(parts)
    found: dict[str, Any] = {}
    for part in parts:
        name = re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind_of(part).removesuffix('Callback')).lower()
        found[f'{name}_{len(found) + 1}' if name in found else name] = part
    return found


def step_settings(optimize: Any, name: str) -> Config:
    """Step settings of an optimizer. Older configs give a list of OptimizeCallbacks."""
    if isinstance(optimize, Mapping):
        return dict(optimize)
    own = [part for part in optimize if part.get('optimizer') in (None, name)]
    return {key: value for part in own for key, value in part.items() if key not in ('type', 'optimizer')}


# the convolutional tokenizer


@recipe()
def code_sizes(
    given: Given,
    *,
    codebook_size: Annotated[int, 'codes', alias('num_embeddings')] = 8192,
    embedding_dim: Annotated[int, 'channels of a code'] = 256,
) -> Config:
    """Sizes that most quantizers take. With other quantizers both options stay unused."""
    return dict(codebook_size=codebook_size, embedding_dim=embedding_dim)


def sized(given: Given, quantizer: Part, others: bool = True, **sizes: int) -> Part:
    """A quantizer with codebook_size and embedding_dim, if its type takes them. Sizes in ``quantizer`` itself win.

    ``others``: also set both on types that are not in SIZED, such as a user's.
    """
    kind = kind_of(quantizer)
    if 'quantizer' in quantizer:
        return dict(quantizer, quantizer=sized(given, quantizer['quantizer'], others, **sizes))
    if kind in OWN_SIZES or (kind not in SIZED and not others) or {'codebook_size', 'embedding_dim'} <= set(quantizer):
        return quantizer
    return {**quantizer, **code_sizes(given, **sizes), **quantizer}


@recipe(code_sizes)
def conv_tokenizer(
    given: Given,
    *,
    quantizer: Annotated[Part | None, 'quantizer; None: the plain VectorQuantizer'] = None,
    width: Annotated[int, 'channels of the first level'] = 128,
    multipliers: Annotated[tuple[int, ...], 'factors of width, one a level; five levels: 16 pixels a token'] = (1, 1, 2, 2, 4),
    refine: Annotated[bool, 'blocks with attention at the lowest resolution, on both sides'] = True,
) -> Part:
    """VQGAN's autoencoder."""
    multipliers = tuple(multipliers)
    shape = dict(width=width, multipliers=multipliers, attention_levels=(len(multipliers) - 1,), refine=refine)
    return dict(
        type='VQGAN',
        encoder=dict(type='ConvEncoder', residual_blocks=2, out_channels=256, **shape),
        post_encode=dict(type='ConvConnector'),
        quantizer=sized(given, quantizer or dict(type='VectorQuantizer')),
        pre_decode=dict(type='ConvConnector'),
        decoder=dict(type='ConvDecoder', residual_blocks=3, **shape),
    )


TINY_CODES = dict(codebook_size=64, embedding_dim=8)
TINY_CONV = dict(encoder=dict(width=8, out_channels=16), quantizer=TINY_CODES, decoder=dict(width=8))
TINY_SCHEDULE = dict(_delete_=True, type='CosineSchedule', warmup=2)

# trainer and validator of tokenizers of photographs


@recipe(strategy)
def photo_runner(
    given: Given,
    model: Part,
    optimizers: dict[str, Part],
    tiny: Config,
    *,
    iters: Annotated[int, 'optimizer steps'] = 260_000,
    optimize: Annotated[Any, 'step settings of the optimizers: clip, schedule, scale_lr, base_batch'] = {},
    callbacks: Annotated[Any, 'more callbacks, by name', alias('anneal')] = {},
    ema: Annotated[float | None, 'decay of the moving average (EMA) of weights; None: no EMA'] = None,
    evaluate: Annotated[int | None, 'steps between evaluations during training; None: no evaluation'] = 10_000,
    reference: Annotated[str | None, 'name of cached statistics for FID; None: the images themselves'] = None,
) -> Config:
    """Trainer and validator of tokenizers of photographs. ``tiny``: further overrides of the trainer in the tiny form."""
    tensorboard = dict(backends=[dict(type='TensorboardVisBackend')])
    evaluated = evaluate and dict(interval=evaluate, limit=10_000)
    # the last 12 are validated by the published command, --load-from iter_{15..26}0000
    saved = dict(interval=10_000, keep_last=12, keep_every=50_000, keep_state=2)
    whole, small = watching(
        ema=ema, log=50, backends=tensorboard, pictures=1000, alarm=500, evaluate=evaluated, checkpoint=saved
    )
    pixels = of_types(l1='L1Metric', l2='L2Metric', mse='MSEMetric', psnr='PSNRMetric', ssim='SSIMMetric')
    network, figures = dict(type='FIDInception'), ('fid', 'sfid', 'inception_score')
    networks = dict(
        lpips=dict(type='LPIPSMetric', net='vgg'),
        features=dict(type='FeatureMetric', network=network, figures=figures, reference=reference),
    )
    codes = of_types(codebook='CodebookMetric', window='WindowedCodebookMetric')
    metrics = {**pixels, **of_types(ssim_uniform='UniformSSIMMetric'), **networks, **codes}
    stepped = {name: {**part, **step_settings(optimize, name)} for name, part in optimizers.items()}
    trainer = dict(type='Trainer', iters=iters, model=model, optimizers=stepped, callbacks={**by_name(callbacks), **whole})
    # the networks of these metrics take longer than the rest of a tiny run
    fast = dict(features=None, lpips=None, window=None)
    checked = dict(metrics=fast, callbacks=of_types(reconstructions='ReconstructionsCallback'))
    return dict(
        trainer=trainer,
        validator=dict(type='Validator', metrics=metrics, callbacks={}),
        tiny=merge(tiny_data(given), dict(trainer=dict(callbacks=small), validator=checked), dict(trainer=tiny)),
    )
