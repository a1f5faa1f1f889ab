"""Tokens of ten crops per training image, for LlamaGen and vq: ``auto_torchrun -m vq.tools.llamagen NAME CONFIG``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vq.cli import arguments
from vq.cli.errors import command
from vq.core import environment
from vq.core.errors import UserError

if TYPE_CHECKING:
    from vq.core.config import PyConfig
    from vq.runners.tokenizer import TokenWriter

logger = logging.getLogger('vq')

KIND = 'VQITRunnerRegistry.Tokenizer'
PROG = 'vq.tools.llamagen'

EXAMPLES = """
Files: work_dirs/llamagen/NAME/llamagen_tokens/imagenet{S}_codes/{i}.npy (1, 10, h * w) and imagenet{S}_labels/{i}.npy, the
--code-path of LlamaGen's training; and token shards with ten variants in work_dirs/llamagen/NAME/tokens.

examples:
  auto_torchrun -m vq.tools.llamagen vqgan configs/vqgan/8192_imagenet_ddp.py --load-model-from work_dirs/vqgan
  auto_torchrun -m vq.tools.llamagen digits configs/digits/vq_ema.py --load-model-from work_dirs/digits --format shards
  python -m vq.tools.llamagen theirs configs/llamagen/vqgan_imagenet_ddp.py --from-codes CODES --load-model-from vq_ds16_c2i
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(PROG, 'Write the tokens of ten crops of each training image; resumes by itself.')
    parser.epilog = EXAMPLES
    arguments.add_run(parser)
    arguments.add_weights(parser)
    parser.add_argument(
        '--image-size', type=int, default=None, help="pixels of a crop (default: those of the config's images)"
    )
    parser.add_argument(
        '--crop-range',
        type=float,
        default=1.1,
        help='side of the central square to crop from, in image sizes (1.1; LlamaGen adds 1.05)',
    )
    parser.add_argument(
        '--format', choices=('both', 'shards', 'llamagen'), default='both', help='files kept at the end (default: both)'
    )
    parser.add_argument(
        '--from-codes',
        metavar='FOLDER',
        help="the reverse: convert LlamaGen's codes and labels to token shards; --load-model-from says whose they are",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    if not options.load_model_from and not options.from_codes:
        parser.error('give the weights of the tokenizer (--load-model-from), or existing codes (--from-codes)')
    if options.crop_range < 1 or (options.image_size is not None and options.image_size < 1):
        parser.error('--crop-range must be 1 or more, and --image-size a number of pixels')
    environment.prepare()
    from vq.assembly import building
    from vq.assembly.compose import compose
    from vq.cli import results

    config = compose(options.config, options.config_options, options.override, options.autocast, trusted=options.trust)
    folder = building.runs_folder(options.work_dir) / 'llamagen' / options.name.removeprefix('llamagen/')
    if options.from_codes:
        measured = read_codes(config, options, folder) if building.is_first_process() else {}
    else:
        measured = extract(config, options, argv, folder)
    if building.is_first_process():
        results.print_table({options.name: {'results': measured}})
    return 0


def extract(config: PyConfig, options: argparse.Namespace, argv: Sequence[str] | None, folder: Path) -> dict[str, Any]:
    """Write shards first, because they resume after a kill; LlamaGen's files are made from the shards."""
    from vq.assembly import building
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.runners.tokenizer import TokenWriter

    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    prepare(config, options)
    writer, context = building.open_runner(PROG, argv, options, config, folder, 'validator', TokenWriter, KIND)
    building.load_weights(writer.model, options.load_model_from, options.weights, context)
    building.note_hashes(config, writer.model, context)
    try:
        writer.setup()
        producer = writer.describe()
        if options.format == 'shards':
            return writer.evaluate()
        check_layout(writer)
        return with_codes(writer, producer, folder, keep_shards=options.format == 'both')
    finally:
        writer.close()


def prepare(config: PyConfig, options: argparse.Namespace) -> None:
    """Turn the config's validator into a writer of tokens of crops of the training split."""
    from vq.data.crops import CROPS
    from vq.io.spec import size_of

    if 'trainer' not in config or 'split' not in config['trainer'].get('dataset', {}):
        raise UserError(
            f'{options.config} has no trainer whose dataset names a split, so there is no training split to take crops of',
            'Give the config of a tokenizer, with trainer=dict(dataset=dict(..., split=...)).',
        )
    validator = config.get('validator')
    if not validator or 'dataset' not in validator:
        raise UserError(f'{options.config} has no validator with a dataset', 'Give the config of a tokenizer.')
    dataset = validator['dataset']
    size = options.image_size or size_of(dataset)[0]
    dataset['split'] = config['trainer']['dataset']['split']
    dataset['transform'] = {'type': 'VQTransformRegistry.none', 'image_size': int(size * options.crop_range)}
    if validator.get('type', '').split('.')[-1] != 'Tokenizer':
        validator['type'] = KIND
    validator['variants'], validator['crop_size'] = CROPS, size


def check_layout(writer: TokenWriter) -> None:
    """Raise before anything is computed if LlamaGen's files cannot hold the tokens."""
    if writer.dataset.categories is None:
        raise UserError(
            f'the dataset {writer.dataset.name} ({writer.dataset.split}) has no classes, and LlamaGen needs one per image',
            'Sort the images into class folders, or write only shards: --format shards.',
        )
    tokens = writer.tokenizer.token_spec((writer.crop_size or 0,) * 2)
    if len(tokens.codebooks) > 1 or len(tokens.shape) > 2:
        raise UserError(
            f'{type(writer.tokenizer).__name__} has several codes for each cell, and LlamaGen reads one',
            'Write only shards: --format shards.',
        )


def with_codes(writer: TokenWriter, producer: dict[str, Any], folder: Path, keep_shards: bool) -> dict[str, Any]:
    from vq.core import collectives
    from vq.io import atomic, llamagen_codes
    from vq.io.exported import is_exported
    from vq.io.ranks import run_on_all_ranks
    from vq.io.shards import ShardSet

    root = folder / 'llamagen_tokens'
    exported = is_exported(root, producer, 'codes')
    collectives.barrier()
    measured: dict[str, Any] = {'samples': writer.total, 'tokenised_now': 0}
    if keep_shards or not exported:
        measured = writer.evaluate()
        shards = ShardSet(folder / 'tokens')
        counts = run_on_all_ranks(
            lambda: llamagen_codes.export_codes(shards, root, collectives.rank(), collectives.size()),
            "writing LlamaGen's files",
        )
        run_on_all_ranks(
            lambda: llamagen_codes.finish(shards, root) if collectives.is_main() else None, "completing LlamaGen's files"
        )
        measured['files_written_now'] = 2 * sum(counts)
    measured['codes'] = str(root)
    if not keep_shards:
        if collectives.is_main() and (folder / 'tokens').is_dir():
            atomic.remove_folder(folder / 'tokens')
        measured.pop('folder', None)
    return measured


def read_codes(config: PyConfig, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Convert LlamaGen's codes to shards. The tokenizer, on the meta device, gives the codebook size and token shape."""
    import torch

    from vq.assembly import building, logs
    from vq.assembly.compose import checked
    from vq.interfaces import Tokenizer
    from vq.io import llamagen_codes
    from vq.io.run_folder import make_folder
    from vq.io.spec import size_of
    from vq.registries import VQTaskRegistry

    make_folder(folder)
    logs.start(folder)
    runner = checked(config, 'validator')
    with torch.device('cpu' if options.load_model_from else 'meta'):
        model = VQTaskRegistry.build(runner['model'], 'model')
    tokenizer = getattr(model, 'tokenizer', None)
    if not isinstance(tokenizer, Tokenizer) or not tokenizer.can_tokenize:
        raise UserError(f'{options.config} has no tokenizer with a codebook', 'Give the config of a discrete tokenizer.')
    context = building.context_of(PROG, None, options, config, folder, 'validator')
    if options.load_model_from:
        building.load_weights(model, options.load_model_from, options.weights, context)
        building.note_hashes(config, model, context)
    size = options.image_size or size_of(runner['dataset'])[0]
    source = Path(options.from_codes).expanduser()
    shards = llamagen_codes.import_codes(
        source.parent if source.name == f'imagenet{size}_codes' else source,
        folder / 'tokens',
        image_size=size,
        codebook_size=tokenizer.codebook_size,
        token_shape=tokenizer.token_spec((size, size)).shape,
        dataset='imagenet',
        split='train',
        weights_hash=context.meta.get('tokens_hash', ''),
    )
    producer = shards.manifest.producer
    return {
        'samples': len(shards),
        'variants': len(producer['variants']),
        'token_shape': producer['token_shape'],
        'folder': str(folder / 'tokens'),
    }


if __name__ == '__main__':
    sys.exit(main())
