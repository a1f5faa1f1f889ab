"""Datasets alone, networks of features, and figures of images that are there already."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, config_of, merge, recipe
from vq.recipes.parts import data, datasets, photo_runner, step_settings, strategy

# pieces of configs of one's own


@recipe(datasets, hides=('dataset',))
def one_dataset(given: Given, name: str) -> Config:
    """Both splits of digits, folder or imagenet, whatever the option ``dataset`` says."""
    return datasets(given, dataset=name)


@recipe(photo_runner)
def photo_runner_alone(
    given: Given, *, optimize: Annotated[Any, 'step settings of the optimizers: clip, schedule, scale_lr, base_batch'] = {}
) -> Config:
    """What trains and validates tokenizers of photographs, for a config that adds model and optimizers."""
    named = [] if isinstance(optimize, dict) else [part['optimizer'] for part in optimize if part.get('optimizer')]
    stepped = {name: {} for name in named or ['tokenizer'] if step_settings(optimize, name)}
    return photo_runner(given, {}, stepped, {})


# networks of features


@recipe()
def clip(given: Given, *, small: Annotated[bool, 'a network for tests, without weights'] = False) -> Part:
    """CLIP's image encoder as a network of features, for CMMD: ViT-L/14 at 336 pixels."""
    return dict(type='CLIPImages', **(dict(dimension=16, width=32, depth=2, heads=4, image_size=28) if small else {}))


@recipe()
def dinov2(given: Given, *, small: Annotated[bool, 'a network for tests, without weights'] = False) -> Part:
    """DINOv2 as a network of features, for FD-DINOv2: ViT-L/14 at 224 pixels."""
    return dict(type='DINOv2', **(dict(dimension=32, depth=2, heads=4, image_size=28) if small else {}))


# what commands compose


@recipe(data, strategy)
def dataset_statistics(
    given: Given,
    *,
    train: Annotated[bool, 'of the training split, as validation sees it'] = False,
    features: Annotated[bool, 'keep the rows as well'] = False,
    network: Annotated[str | None, "config of a network of features; None: FID's Inception", config_of('network')] = None,
) -> Config:
    """Statistics of a dataset, for FID and its relatives: what ``vq.fid`` composes."""
    writer = dict(
        type='StatisticsWriter',
        network=dict(type='FIDInception') if network is None else given.load(network, 'network'),
        features=features,
        **(dict(dataset=dict(split='train')) if train else {}),
    )
    tiny = dict(dataset=dict(_delete_=True, type='DigitsDataset', split='validation', image_size=32))
    return merge(data(given, val_batch_size=64), strategy(given), dict(validator=writer, tiny=dict(validator=tiny)))


@recipe(datasets, strategy, hides=('dataset',))
def image_figures(
    given: Given,
    *,
    images: Annotated[str, 'a folder, or an .npz file of samples'] = 'samples.npz',
    figures: Annotated[tuple[str, ...], 'of FeatureMetric'] = ('fid', 'inception_score'),
    reference: Annotated[str, 'name or file of statistics'] = 'imagenet_validation',
    reference_images: Annotated[
        str | None, 'a folder or an .npz file of images to compare with; their statistics go to the file ``reference``'
    ] = None,
    reference_dataset: Annotated[str | None, 'a dataset in their place, as the option dataset of other configs'] = None,
    train: Annotated[bool, 'the training split of that dataset'] = False,
    batch_size: Annotated[int, 'images at a time, of one rank'] = 64,
    num_workers: Annotated[int | None, 'processes that load images; None: 4, and 0 for files of samples'] = None,
) -> Config:
    """Figures of images that are there already, such as samples of a generator: what ``tools/fid.py`` composes."""
    in_files = all(str(name).endswith('.npz') for name in (images, reference_images or images))
    if num_workers is None:
        num_workers = 0 if in_files and reference_dataset in (None, 'digits') else 4
    compared: Part | None = None
    if reference_dataset is not None:
        found = datasets(given, dataset=reference_dataset)['validator']['dataset']
        compared = dict(found, split='train') if train else found
    elif reference_images is not None:
        compared = dict(type='ImagesDataset', source=reference_images)
    compares = set(figures) != {'inception_score'}
    metric = dict(
        type='FeatureMetric',
        network=dict(type='FIDInception'),
        figures=tuple(figures),
        images='input',
        reference=reference if compares else None,
    )
    validator = dict(
        type='ImagesValidator',
        dataset=dict(type='ImagesDataset', source=images),
        dataloader=dict(batch_size=batch_size, num_workers=num_workers),
        metrics=dict(features=metric),
        **(dict(reference=compared) if compared is not None and compares else {}),
    )
    return merge(strategy(given), dict(validator=validator, tiny=dict(validator=dict(dataloader=dict(num_workers=0)))))


@recipe(strategy)
def image_pairs(
    given: Given,
    *,
    first: Annotated[str, 'a folder, or an .npz file of samples'] = 'originals',
    second: Annotated[str, 'another'] = 'reconstructions',
    common: Annotated[bool, 'leave names out that one side lacks; False: that is an error'] = False,
    lpips: Annotated[Literal['vgg', 'alex', 'squeeze'] | None, 'network of LPIPS; None: no LPIPS'] = 'vgg',
    batch_size: Annotated[int, 'images at a time, of one rank'] = 32,
    num_workers: Annotated[int, 'processes that load images'] = 4,
) -> Config:
    """How close the images of two folders are, matched by name: what ``tools/pairs.py`` composes."""
    kinds = dict(psnr='PSNRMetric', ssim='SSIMMetric', ssim_uniform='UniformSSIMMetric', l1='L1Metric', mse='MSEMetric')
    metrics: dict[str, Part] = {name: dict(type=kind) for name, kind in kinds.items()}
    if lpips is not None:
        metrics['lpips'] = dict(type='LPIPSMetric', net=lpips)
    validator = dict(
        type='ImagesValidator',
        dataset=dict(type='PairsDataset', first=first, second=second, common=common),
        dataloader=dict(batch_size=batch_size, num_workers=num_workers),
        metrics=metrics,
    )
    return merge(strategy(given), dict(validator=validator, tiny=dict(validator=dict(dataloader=dict(num_workers=0)))))
