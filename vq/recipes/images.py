"""Datasets alone, feature networks, and figures of existing images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from vq.core.recipe import Config, Given, Part, config_of, merge, recipe
from vq.recipes.data import data, datasets
from vq.recipes.parts import code_sizes, of_types, photo_runner
from vq.recipes.strategy import strategy

SMALL = dict(_delete_=True, type='SmallFeatures')  # the feature network of dry runs

# pieces for users' configs


@recipe(datasets, hides=('dataset',))
def one_dataset(given: Given, name: str) -> Config:
    """Both splits of a dataset in KNOWN, whatever the option ``dataset`` says."""
    return datasets(given, dataset=name)


@recipe(photo_runner, code_sizes)  # metrics of older versions took code sizes as options
def photo_runner_alone(
    given: Given, *, optimize: Annotated[Any, 'step settings of the optimizers that the config adds'] = {}
) -> Config:
    """Trainer and validator of tokenizers of photographs. The config adds model and optimizers."""
    parts = optimize if isinstance(optimize, list) else [optimize] if optimize else []
    return photo_runner(given, {}, {part.get('optimizer', 'tokenizer'): {} for part in parts}, {})


# feature networks


@recipe()
def clip(given: Given, *, small: Annotated[bool, 'a network for tests, without weights'] = False) -> Part:
    """CLIP's image encoder as a feature network, for CMMD: ViT-L/14 at 336 pixels."""
    return dict(type='CLIPImages', **(dict(dimension=16, width=32, depth=2, heads=4, image_size=28) if small else {}))


@recipe()
def dinov2(given: Given, *, small: Annotated[bool, 'a network for tests, without weights'] = False) -> Part:
    """DINOv2 as a feature network, for FD-DINOv2: ViT-L/14 at 224 pixels."""
    return dict(type='DINOv2', **(dict(dimension=32, depth=2, heads=4, image_size=28) if small else {}))


# recipes that commands compose


@recipe(data, strategy)
def dataset_statistics(
    given: Given,
    *,
    train: Annotated[bool, 'use the training split, without augmentation'] = False,
    features: Annotated[bool, 'also keep the features of each image, in fp16'] = False,
    features_file: Annotated[str | None, 'an .npz file for the features of each image, in fp32, and their ids'] = None,
    network: Annotated[str | None, "config of a feature network; None: FID's Inception", config_of('network')] = None,
) -> Config:
    """Statistics of a dataset, for FID and related figures. ``vq.fid`` composes this config."""
    part = dict(type='FIDInception') if network is None else given.load(network, 'network')
    kept = dict(features=features, features_file=features_file)
    writer = dict(type='StatisticsWriter', network=part, **kept, dataset=dict(split='train') if train else {})
    tiny = dict(dataset=digits(train), network=SMALL, dataloader=dict(num_workers=0, batch_size_in_total=False))
    return merge(data(given, val_batch_size=64), strategy(given), dict(validator=writer, tiny=dict(validator=tiny)))


def digits(train: bool) -> Part:
    """The embedded images that stand for a split of any dataset in dry runs."""
    return dict(_delete_=True, type='DigitsDataset', split='train' if train else 'validation', image_size=32)


def _over_images(given: Given, dataset: Part, metrics: Part, workers: int, batch_size: int, tiny: Part, **more: Any) -> Config:
    loading = dict(batch_size=batch_size, num_workers=workers)
    validator = dict(type='ImagesValidator', dataset=dataset, dataloader=loading, metrics=metrics, **more)
    return merge(strategy(given), dict(validator=validator, tiny=dict(validator=dict(tiny, dataloader=dict(num_workers=0)))))


@recipe(datasets, strategy, hides=('dataset',))
def image_figures(
    given: Given,
    *,
    images: Annotated[str, 'a folder, or an .npz file of samples'] = 'samples.npz',
    figures: Annotated[tuple[str, ...], 'figures, by their names in FeatureMetric'] = ('fid', 'inception_score'),
    reference: Annotated[str, 'statistics to compare with: a name or a file'] = 'imagenet_validation',
    reference_images: Annotated[str | None, 'images to compare with; their statistics are written to ``reference``'] = None,
    reference_dataset: Annotated[str | None, 'or a dataset to compare with: digits, folder, imagenet, or a config'] = None,
    train: Annotated[bool, 'use the training split of that dataset'] = False,
    batch_size: Annotated[int, 'images per batch and rank'] = 64,
    num_workers: Annotated[int | None, 'worker processes that load images; None: 4, and 0 for files of samples'] = None,
) -> Config:
    """Figures of existing images, such as samples of a generator. ``vq.tools.fid`` composes this config."""
    against: Part | None = None
    if reference_dataset is not None:
        against = {
            **datasets(given, dataset=reference_dataset)['validator']['dataset'],
            **(dict(split='train') if train else {}),
        }
    elif reference_images is not None:
        against = dict(type='ImagesDataset', source=reference_images)
    in_files = all(name.endswith('.npz') for name in (images, reference_images or images))
    in_memory = in_files and reference_dataset in (None, 'digits')
    workers = (0 if in_memory else 4) if num_workers is None else num_workers
    compares = set(figures) != {'inception_score'}
    statistics = dict(figures=tuple(figures), reference=reference if compares else None)
    metric: Part = dict(type='FeatureMetric', network=dict(type='FIDInception'), images='input', **statistics)
    more = dict(reference=against) if against is not None and compares else {}
    source = dict(type='ImagesDataset', source=images)
    tiny: Part = dict(metrics=dict(features=dict(network=SMALL)))
    if reference_dataset is not None and compares:
        tiny['reference'] = digits(train)
    return _over_images(given, source, dict(features=metric), workers, batch_size, tiny, **more)


@recipe(strategy)
def image_pairs(
    given: Given,
    *,
    first: Annotated[str, 'a folder, or an .npz file of samples'] = 'originals',
    second: Annotated[str, 'a folder, or an .npz file, to compare with'] = 'reconstructions',
    common: Annotated[bool, 'skip images whose name is on one side only; False: they are an error'] = False,
    lpips: Annotated[Literal['vgg', 'alex', 'squeeze'] | None, 'network of LPIPS; None: no LPIPS'] = 'vgg',
    batch_size: Annotated[int, 'images per batch and rank'] = 32,
    num_workers: Annotated[int, 'worker processes that load images'] = 4,
) -> Config:
    """How close the images of two folders are, matched by name. ``vq.tools.pairs`` composes this config."""
    similarity = of_types(psnr='PSNRMetric', ssim='SSIMMetric', ssim_uniform='UniformSSIMMetric')
    metrics = {**similarity, **of_types(l1='L1Metric', mse='MSEMetric')}
    if lpips is not None:
        metrics['lpips'] = dict(type='LPIPSMetric', net=lpips)
    pairs = dict(type='PairsDataset', first=first, second=second, common=common)
    tiny = {} if lpips is None else dict(metrics=dict(lpips=dict(net='squeeze')))
    return _over_images(given, pairs, metrics, num_workers, batch_size, tiny)
