"""Datasets and data loaders of trainers and validators, and their tiny forms.

A dataset without options of its own is a row of KNOWN. One that has some is a recipe, in ``configs/datasets/NAME.py``. The
option ``dataset`` takes both names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from vq.core.config import packaged_configs
from vq.core.recipe import Config, Given, Part, merge, recipe
from vq.core.specs import ImageSize
from vq.io.beton import refuse_beton
from vq.recipes.strategy import strategy


class Known(NamedTuple):
    """A dataset of VQDatasetRegistry with splits 'train' and 'validation'."""

    type: str
    root: str | None  # the folder if the option data_root is not given; None: the dataset is in memory
    settings: Part = {}  # of both splits
    image_size: int = 256
    held_out: float | None = None  # samples for validation, or a fraction, where the dataset has no splits
    shuffled: bool | None = None  # how SplitDataset holds them out; None: the dataset does it itself
    augmentation: str | None = 'strong'  # if the option is 'auto'; 'strong' is that of photographs
    decodes: bool = True  # image files, so it has the option backend


KNOWN = {
    'digits': Known('DigitsDataset', None, image_size=32, augmentation=None, decodes=False),
    'synthetic': Known('SyntheticDataset', None, augmentation=None, decodes=False),
    'folder': Known('FolderDataset', 'data/images', held_out=0.05),
    'imagenet': Known('ImageNetDataset', 'data/imagenet'),
    'imagenet_tar': Known('ImageNetTarDataset', 'data/imagenet'),
    'celeba_hq': Known('FolderDataset', 'data/celeba-hq-256', dict(name='celeba_hq', classes=False)),
    'ffhq': Known('FolderDataset', 'data/ffhq-256', dict(name='ffhq', classes=False)),
    'celeba_mask': Known('CelebAMaskDataset', 'data/celebamask-hq'),
    'mnist': Known('IdxDataset', 'data/mnist', image_size=32, augmentation='none', decodes=False),
    'webdataset': Known('WebDataset', 'data/webdataset', held_out=0.05),
    'hugging_face': Known('HuggingFaceDataset', 'data/hugging_face', held_out=0.05),
    'laion_aesthetics': Known('LAIONAestheticsDataset', 'data/laion/aesthetics', held_out=25_000, shuffled=False),
    'satin': Known('SATINDataset', 'data/satin', held_out=0.1),
    'visual_genome': Known('VisualGenomeDataset', 'data/vg', augmentation='layout'),
    'sa_med2d_20m': Known('SAMed2DDataset', 'data/sa_med2d', held_out=25_000, shuffled=True),
}


def photographs(known: Known, split: str, name: str | None, image_size: ImageSize, root: str | None, **settings: Any) -> Part:
    """A split of a known dataset. ``name``: that of its transform."""
    transform = None if name is None else dict(type=f'VQTransformRegistry.{name}', image_size=image_size)
    own: Part = dict(image_size=image_size) if known.root is None else dict(root=root or known.root)
    made = dict(type=f'VQDatasetRegistry.{known.type}', **own, **known.settings)
    if known.shuffled is None:
        return dict(made, split=split, transform=transform, **settings)
    division: Part = dict(type='SplitDataset', split=split, held_out=settings.pop('held_out'), shuffled=known.shuffled)
    return dict(division, dataset=dict(made, **settings), transform=transform)


def _place_of(dataset: str) -> str:
    """The config of a dataset: a name alone is one of configs/datasets, if that has it."""
    ours = len(Path(dataset).parts) == 1 and (packaged_configs() / 'datasets' / f'{dataset}.py').is_file()
    return f'configs/datasets/{dataset}' if ours else dataset


@recipe()
def datasets(
    given: Given,
    known: Known | None = None,
    *,
    dataset: Annotated[str, 'a name in configs/datasets, or the path of a config of your own without .py'] = 'digits',
    image_size: Annotated[ImageSize | None, 'pixels a side, or (height, width); None: 32 for digits, else 256'] = None,
    augmentation: Annotated[str | None, 'none, default, weak, strong, square, layout; by dataset: auto, auto_weak'] = 'auto',
    data_root: Annotated[str | None, 'folder of the images; None: that of the dataset, such as data/imagenet'] = None,
    classes: Annotated[bool, 'dataset folder: the first folders below a split are the classes'] = True,
    held_out: Annotated[
        float | None,
        'images for validation, or a fraction, where a dataset has no splits; None: folder 0.05, others as published',
    ] = None,
    backend: Annotated[
        Literal['pillow', 'auto', 'simplejpeg', 'torchvision', 'cv2'],
        'decoder of JPEG files; auto: the fastest that is installed',
    ] = 'pillow',
    data: Annotated[Literal['folder', 'packed'], 'packed: data_root is an output folder of vq data pack'] = 'folder',
) -> Config:
    """The training split with augmentation, and the validation split with centre crops. ``known``: in place of ``dataset``."""
    if data_root is not None:
        refuse_beton(data_root)
    root, others = data_root if data == 'folder' else None, dict(classes=classes, held_out=held_out, backend=backend)
    config = _in_files(given, dataset, known or KNOWN.get(dataset), image_size, augmentation, root, **others)
    return config if data == 'folder' else packed(config, data_root or f'data/{Path(dataset).name}_packed', backend)


def _in_files(
    given: Given,
    dataset: str,
    known: Known | None,
    image_size: ImageSize | None,
    augmentation: str | None,
    data_root: str | None,
    **others: Any,
) -> Config:
    """Both splits of a dataset as it is on the disk. ``others``: classes, held_out and backend."""
    if known is None:
        place = _place_of(dataset)
        if augmentation == 'auto_weak' and place == dataset:  # a user's own file knows the names of transforms alone
            augmentation = 'weak'
        settings = dict(others, image_size=image_size, augmentation=augmentation, data_root=data_root)
        unset = dict(image_size=None, augmentation='auto', data_root=None, held_out=None)
        return given.load_with_all(f'{place}.py', **{k: v for k, v in settings.items() if k not in unset or v != unset[k]})
    # auto_weak is weak for photographs: digits have no mirror images, and boxes are cropped along with their image
    known_as = {'auto': known.augmentation, 'auto_weak': 'weak' if known.augmentation == 'strong' else known.augmentation}
    size, name = image_size or known.image_size, known_as.get(augmentation or '', augmentation)
    own: dict[str, Any] = dict(backend=others['backend']) if known.decodes else {}
    own |= dict(classes=others['classes']) if dataset == 'folder' else {}
    if known.held_out is not None:
        own |= dict(held_out=known.held_out if others['held_out'] is None else others['held_out'])
    validated = None if name is None else 'none'
    return dict(
        trainer=dict(dataset=photographs(known, 'train', name, size, data_root, **own)),
        validator=dict(dataset=photographs(known, 'validation', validated, size, data_root, **own)),
    )


def packed(config: Config, root: str, backend: str) -> Config:
    """The splits of a dataset as they are packed below ``root``, with their transforms."""
    if is_packed(config):  # the config of a dataset that is made of others: its parts are packed
        return config
    found = {}
    for role, split in (('trainer', 'train'), ('validator', 'validation')):
        part = config[role]['dataset']
        transform = part.get('transform')
        if transform is None and 'image_size' in part:  # of images in memory: the recipes read the size from here
            transform = dict(type='VQTransformRegistry.none', image_size=part['image_size'])
        own: Part = dict(type='VQDatasetRegistry.PackedDataset', root=root, split=part.get('split', split))
        found[role] = dict(dataset=dict(own, transform=transform, backend=backend))
    return found


def is_packed(part: Any) -> bool:
    """Whether a config holds a dataset of packed images."""
    kind = str(part.get('type', '')).rpartition('.')[2] if isinstance(part, Mapping) else None
    return kind == 'PackedDataset' or (kind is not None and any(map(is_packed, part.values())))


@recipe(datasets)
def data(
    given: Given,
    *,
    dataset: Annotated[str, 'a name in configs/datasets, or the path of a config of your own without .py'] = 'digits',
    batch_size: Annotated[int, 'images per step and rank'] = 16,
    val_batch_size: Annotated[int | None, 'images per validation step; None: batch_size'] = None,
    batch_size_in_total: Annotated[bool, 'batch sizes are totals over all ranks'] = False,
    num_workers: Annotated[int | None, 'worker processes that load images; None: 4, and 0 for digits (in memory)'] = None,
    bad_images: Annotated[Literal['raise', 'skip'], 'what to do with images that cannot be read'] = 'raise',
    bad_images_limit: Annotated[float, 'bad_images skip: the fraction of a split that may be bad'] = 0.2,
    aspect_buckets: Annotated[int | None, 'training images of this number squared of pixels, in shapes that suit them'] = None,
) -> Config:
    """Datasets and data loaders."""
    workers = (0 if dataset == 'digits' else 4) if num_workers is None else num_workers
    loading: dict[str, Any] = dict(num_workers=workers, pin_memory=True, batch_size_in_total=batch_size_in_total)
    loading |= dict(bad_images=bad_images, bad_image_cap=bad_images_limit)
    training = dict(dataloader=dict(batch_size=batch_size, **loading))
    validation = dict(dataloader=dict(batch_size=val_batch_size or batch_size, **loading))
    config = merge(datasets(given, dataset=dataset), dict(trainer=training, validator=validation))
    return config if aspect_buckets is None else merge(config, _in_buckets(config['trainer']['dataset'], aspect_buckets))


def _in_buckets(dataset: Part, size: int) -> Config:
    """The crop of the training images in the size of their bucket. The images of the tiny form have one size."""
    crop = str((dataset.get('transform') or {}).get('type', 'none')).rpartition('.')[2]
    transform = dict(type='VQTransformRegistry.bucketed', image_size=size, crop=crop)
    part = dict(dataset=dict(transform=transform), dataloader=dict(aspect_buckets=size))
    return dict(trainer=part, tiny=dict(trainer=dict(dataloader=dict(aspect_buckets=None))))


def photo_data(given: Given, **settings: Any) -> Config:
    """Data of photographs at 256 pixels, and the strategy."""
    usual = dict(dataset='imagenet', augmentation='strong', batch_size=96, batch_size_in_total=True, num_workers=5)
    return merge(data(given, **{**usual, 'image_size': 256, **settings}), strategy(given))


def image_size_in(config: Config) -> ImageSize:
    """Size of the training images in pixels: a number for squares."""
    dataset = config['trainer']['dataset']
    size = (dataset.get('transform') or dataset).get('image_size', 256)
    return (size[0], size[1]) if isinstance(size, list | tuple) else int(size)


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
