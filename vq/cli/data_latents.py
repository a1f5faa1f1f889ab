"""Write the latents of a split once, for generators that are trained on them; resumes by itself.

A shard holds mean and log variance of each image and of its mirror image, class and id. The manifest holds the hash of the
weights of the tokenizer, without which nothing trains on the cache, and mean and deviation per channel. The training split is
written, with the transform of the validator (no augmentation). Files: FOLDER/SPLIT/latents.

examples:
  vq data latents configs/digits/kl.py --load-model-from work_dirs/kl
  vq data latents configs/digits/kl.py --load-model-from work_dirs/kl --validation --dtype bfloat16
  vq data latents configs/digits/kl.py --load-model-from work_dirs/kl --format ptshard --shard-size 64
  vq data latents configs/digits/kl.py --load-model-from work_dirs/kl --from cached_latents
  auto_torchrun -m vq.data latents configs/llamagen/vqgan_imagenet_ddp.py --load-model-from F --image-size 64
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.core.config import PyConfig

KIND = 'VQITRunnerRegistry.LatentWriter'
PROG = 'vq.data'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_config(parser)
    arguments.add_weights(parser, required=True)
    parser.add_argument('--output-folder', type=Path, metavar='O', help='default: work_dirs/latents/RUN')
    parser.add_argument('--validation', action='store_true', help="the validator's split in place of the trainer's")
    parser.add_argument(
        '--dtype', choices=('float32', 'bfloat16'), default='float32', help='of mean and log variance (default: %(default)s)'
    )
    parser.add_argument('--no-mirror', action='store_true', help='leave the mirror images out: half the size')
    parser.add_argument('--shard-size', type=int, metavar='N', help='images per file (default: 1024, and 64 of ptshard)')
    parser.add_argument('--image-size', type=int, metavar='N', help='resize images to N pixels (default: as in the config)')
    parser.add_argument('--classes', nargs='+', metavar='C', help='only images of these classes: names or numbers')
    parser.add_argument(
        '--format',
        choices=('vq', 'npz', 'pt', 'ptshard'),
        default='vq',
        help='also write the files of other programs, to FOLDER/SPLIT/FORMAT (default: vq, our shards alone)',
    )
    parser.add_argument(
        '--from',
        dest='source',
        type=Path,
        metavar='FOLDER',
        help='the reverse: take latents that the tokenizer made elsewhere from npz, pt or ptshard files',
    )
    parser.add_argument('--seed', type=int, default=3407, help='seed of what a transform draws (default: 3407)')
    parser.add_argument('--autocast', action='store_true', help='forward passes in bf16 (precision=bf16 of the strategy)')


def run(options: argparse.Namespace) -> int:
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.cli import data_latents_files, results
    from vq.io.spec import size_of
    from vq.runners.latent_writer import LatentWriter

    check(options)
    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    set_writer(config, options)
    folder = place(config, options)
    writer, context = building.open_runner(PROG, None, options, config, folder, 'validator', LatentWriter, KIND)
    building.load_weights(writer.model, options.load_model_from, options.weights, context)
    building.note_hashes(config, writer.model, context)
    if options.classes:
        writer.classes = numbers_of(options.classes, writer.dataset.categories, writer.dataset.name)
    try:
        writer.setup()
        if options.source is None:
            measured = writer.evaluate()
        else:
            measured = data_latents_files.take(writer, options.source, size_of(config['validator']['dataset']))
        if options.format != 'vq':
            measured |= data_latents_files.give(folder, options.format, options.files)
    finally:
        writer.close()
    if building.is_first_process():
        results.print_table({options.name: {'results': measured}})
        print(f"train on it: dataset=dict(type='LatentDataset', folder='{folder}')", flush=True)
    return 0


def check(options: argparse.Namespace) -> None:
    """Refuse what does not go together, and share ``shard_size`` between our shards and files of others."""
    if options.source is not None and (options.classes or options.no_mirror):
        raise UserError(
            '--classes and --no-mirror choose images to encode, and --from encodes none',
            'Leave them out: all files are taken.',
        )
    if options.shard_size is not None and options.shard_size < 1:
        raise UserError(f'--shard-size is {options.shard_size}', 'Give 1 or more images per file.')
    own = options.format == 'vq'
    options.files = 64 if own or options.shard_size is None else options.shard_size
    options.shard_size = (options.shard_size if own else None) or 1024


def set_writer(config: PyConfig, options: argparse.Namespace) -> None:
    """Turn the config's validator into a writer of latents of the split."""
    if not config.get('validator', {}).get('dataset'):
        raise UserError(f'{options.config} has no validator with a dataset', 'Give the config of a tokenizer.')
    validator: dict[str, Any] = config['validator']
    variants = ('center',) if options.no_mirror else ('center', 'flip')
    validator.update(type=KIND, metrics=None, shard_size=options.shard_size, variants=variants, dtype=options.dtype)
    split = config.get('trainer', {}).get('dataset', {}).get('split')
    if not options.validation:
        if split is None:
            raise UserError(
                f'{options.config} has no trainer whose dataset names a split',
                'Write the split of the validator: --validation.',
            )
        validator['dataset']['split'] = split
    if options.image_size is not None:
        set_size(validator['dataset'], options)


def set_size(dataset: dict[str, Any], options: argparse.Namespace) -> None:
    """Images of another size: that of the transform, or of a dataset in memory."""
    holders = [part for part in (dataset.get('transform'), dataset) if part and 'image_size' in part]
    if not holders or options.image_size < 1:
        raise UserError(
            f'--image-size is {options.image_size}, and the dataset of {options.config} has no image_size to set'
            if not holders
            else f'--image-size is {options.image_size}',
            "Give it a transform with an image_size, such as 'none'." if not holders else 'Give a number of pixels.',
        )
    holders[0]['image_size'] = options.image_size


def place(config: PyConfig, options: argparse.Namespace) -> Path:
    """The folder of the split. It also sets the name of the command's run."""
    from vq.assembly.building import runs_folder
    from vq.io.runs import find

    found = find(options.load_model_from[-1])
    options.name = (found.folder or found.weights).name.partition('.')[0] or 'tokenizer'
    root = options.output_folder or runs_folder(None) / 'latents' / options.name
    return Path(root) / str(config['validator']['dataset'].get('split') or 'validation')


def numbers_of(asked: list[str], names: Any, source: str) -> list[int]:
    from vq.core.class_names import class_numbers

    count = len(names) if names is not None else 0
    return sorted(set(class_numbers(asked, list(names or ()), count, f'the dataset {source}')))
