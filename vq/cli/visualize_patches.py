"""For each code, the image patches that map to it: ``python -m vq.tools.visualize_patches CONFIG TOKENS``."""

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
from vq.core.errors import UserError, listing

if TYPE_CHECKING:
    from vq.core.config import PyConfig
    from vq.interfaces import Dataset
    from vq.io.shards import ShardSet

logger = logging.getLogger('vq')

EXAMPLES = """
Writes patches.png (a sheet), patches.html (a page) and patches.json (counts of all codes, places of the patches).

examples:
  python -m vq.tools.visualize_patches configs/vqgan/8192_imagenet_ddp.py work_dirs/vqgan_tokenize
  python -m vq.tools.visualize_patches configs/digits/vq_ema.py work_dirs/digits_tokenize_train --train --context 8
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser(
        'vq.tools.visualize_patches', 'Show the patches of images that became the most and least used codes.'
    )
    parser.epilog = EXAMPLES
    arguments.add_config(parser)
    parser.add_argument('tokens', metavar='TOKENS', help='a folder of token shards, or the output of the tokenize command')
    parser.add_argument('--train', action='store_true', help="the tokens are of the trainer's split")
    parser.add_argument('--codes', type=int, default=32, help='number of the most used codes, and of the least used (32)')
    parser.add_argument('--patches', type=int, default=16, help='patches per code (16)')
    parser.add_argument('--context', type=int, default=0, metavar='N', help='N pixels of the image around each patch')
    parser.add_argument('--codebook', type=int, default=0, metavar='K', help='codebook, if each cell has several codes (0)')
    parser.add_argument('--variant', default=None, help='center, flip, crop0, ...: which tokens of an image (the first)')
    parser.add_argument('--output', default=None, metavar='DIR', help='default: visualize_patches next to the tokens')
    parser.add_argument('--seed', type=int, default=3407, help='seed of the drawn patches; must be the seed of the tokens')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_intermixed_args(argv)
    for name, lowest in (('codes', 1), ('patches', 1), ('context', 0), ('codebook', 0)):
        if getattr(options, name) < lowest:
            parser.error(f'--{name} is {lowest} or more')
    environment.need_one_process('vq.tools.visualize_patches')
    environment.prepare()
    from vq.assembly import logs
    from vq.assembly.compose import compose
    from vq.data.datasets.tokens import TokenDataset
    from vq.io import atomic
    from vq.io.pictures import save_png
    from vq.io.run_folder import make_folder
    from vq.report import patch_pages
    from vq.report.patches import TokenView, choose_codes, choose_places, cut_all

    logs.start()
    shards = TokenDataset(folder=options.tokens).shards
    producer = shards.manifest.producer
    variant = variant_of(options, shards)
    config = compose(options.config, options.config_options, options.override, trusted=options.trust)
    tokens = TokenView(shards, variant, *codebook_of(options, config, shards))
    source = Source(build_dataset(options, config, producer), shards, producer['variants'][variant], options.seed)
    counts = tokens.count()
    most, least = choose_codes(counts, options.codes)
    places = choose_places(tokens, counts, [*most, *least], options.patches, options.seed)
    source.find({row for found in places.values() for row, _, _ in found})
    patches = cut_all(places, source.read, tokens.grid, options.context)

    folder = Path(options.output) if options.output else shards.folder.resolve().parent / 'visualize_patches'
    make_folder(folder)
    name = 'patches' if tokens.codebook is None else f'patches_codebook{tokens.codebook}'
    dataset = source.dataset
    about = f'of {len(shards):,} images of {dataset.name} ({dataset.split})'
    shown = patch_pages.Shown(counts, most, least, patches, about)
    save_png(folder / f'{name}.png', patch_pages.sheet(shown, options.patches))
    title = 'Patches of codes' if tokens.codebook is None else f'Patches of codes of codebook {tokens.codebook}'
    lead = f'{Path(options.config).name}, tokens {about}, {producer["variants"][variant]}: image patches by their code.'
    if producer.get('random_weights'):
        lead = f'Random weights: the results below are meaningless. {lead}'
    patch_pages.page(shown, title, lead).save(folder / f'{name}.html')
    record = {
        'tokens': str(shards.folder),
        'dataset': {'name': dataset.name, 'split': dataset.split},
        'variant': producer['variants'][variant],
        'codebook': tokens.codebook,
        'counts': counts.tolist(),
        'places': {
            code: [{'id': source.ids[row], 'row': i, 'column': j} for row, i, j in found] for code, found in places.items()
        },
    }
    atomic.write_json(folder / f'{name}.json', record)
    logger.info(
        'tokens %s: %d of %d codes are used; see %s', about, int((counts > 0).sum()), len(counts), folder / f'{name}.html'
    )
    return 0


def variant_of(options: argparse.Namespace, shards: ShardSet) -> int:
    from vq.data.crops import VIEWS

    names = shards.manifest.producer.get('variants', [])
    if shards.manifest.kind != 'tokens' or not names:
        raise UserError(
            f'{shards.folder} holds {shards.manifest.kind}, not tokens', 'Give the output of the tokenize command.'
        )
    name = options.variant or names[0]
    if name not in names or name not in VIEWS:
        known = [known for known in names if known in VIEWS]
        raise UserError(f"{shards.folder} has no variant '{name}' that can be shown", f'It has: {listing(known) or "none"}.')
    return int(names.index(name))


def codebook_of(options: argparse.Namespace, config: PyConfig, shards: ShardSet) -> tuple[int | None, int]:
    """(index of the codebook, its size). The index is None if each cell has one code."""
    producer = shards.manifest.producer
    shape, size = producer['token_shape'], int(producer['codebook_size'])
    if len(shape) not in (2, 3):
        raise UserError(
            f'tokens of the shape {tuple(shape)} are not on a grid, so a token belongs to no part of the image',
            'Give tokens (h, w), or (h, w, n) with --codebook.',
        )
    if options.codebook >= (shape[2] if len(shape) == 3 else 1):
        raise UserError(
            f'--codebook {options.codebook}: each cell has {shape[2] if len(shape) == 3 else 1} codes', 'They count from 0.'
        )
    if len(shape) == 2:
        return None, size
    return options.codebook, codebooks_of(config, size, shape[2])[options.codebook]


def codebooks_of(config: PyConfig, size: int, count: int) -> tuple[int, ...]:
    """The size of the codebook of each of ``count`` tokens of a cell, from the config's tokenizer on the meta device."""
    import torch

    from vq.assembly.compose import checked
    from vq.registries import VQTaskRegistry

    with torch.device('meta'):
        model = VQTaskRegistry.build(checked(config, 'validator')['model'], 'model')
    found = tuple(getattr(getattr(model, 'tokenizer', None), 'codebooks', ()))
    return found if len(found) == count else (size,) * count  # one codebook, used several times


def build_dataset(options: argparse.Namespace, config: PyConfig, producer: dict[str, Any]) -> Dataset:
    """The config's dataset, with the tokenizer's transform; an error if the tokens are of another dataset."""
    from vq.assembly.compose import checked
    from vq.registries import VQDatasetRegistry

    if 'dataset' not in config.get('validator', {}):
        raise UserError(f'{options.config} has no validator with a dataset', 'Give the config the tokens were made with.')
    settings = config['validator']['dataset']
    if options.train:
        if 'split' not in config.get('trainer', {}).get('dataset', {}):
            raise UserError(
                '--train needs a trainer whose dataset names a split', 'Leave --train out, or add the split to the config.'
            )
        settings['split'] = config['trainer']['dataset']['split']
    if 'cropped_from' in producer:  # tokens of vq.tools.llamagen
        settings['transform'] = {'type': 'VQTransformRegistry.none', 'image_size': producer['cropped_from']}
    dataset: Dataset = VQDatasetRegistry.build(checked(config, 'validator')['dataset'], 'validator.dataset')
    for what, there, here in (
        ('dataset', producer.get('dataset'), dataset.name),
        ('split', producer.get('split'), dataset.split),
        ('fingerprint of the dataset', producer.get('dataset_fingerprint'), dataset.fingerprint()),
    ):
        if there and there != here:
            hint = 'Give the config the tokens were made with, and its data.'
            if what == 'split':
                hint = f'{"Leave out" if options.train else "Add"} --train, if the tokens are of the same dataset.'
            raise UserError(f'{options.tokens} holds tokens of other images: the {what} is {there} there, {here} here', hint)
    return dataset


class Source:
    """The dataset's samples for rows of the shards, found by id."""

    def __init__(self, dataset: Dataset, shards: ShardSet, variant: str, seed: int) -> None:
        self.dataset, self.shards, self.variant, self.seed = dataset, shards, variant, seed
        self.producer = shards.manifest.producer
        self.ids: dict[int, str] = {}
        self.indices: dict[int, int] = {}

    def find(self, rows: set[int]) -> None:
        """Find the dataset index of each row. Shards without a dataset fingerprint are searched for all their ids."""
        column = self.shards.column('id')
        self.ids = {row: column[row].decode() for row in sorted(rows)}
        wanted = dict.fromkeys(self.ids.values() if self.producer.get('dataset_fingerprint') else self.shards.ids(), -1)
        for index in range(len(self.dataset)):
            name = self.dataset.id_of(index)
            if name in wanted:
                wanted[name] = index
        missing = [name for name, index in wanted.items() if index < 0]
        if missing:
            raise UserError(
                f'{len(missing)} of {len(wanted)} ids of {self.shards.folder} are not in {self.dataset.name} '
                f'({self.dataset.split}): {listing(missing, 4)}',
                'Give the config of the dataset the tokens were made of; --train for its training split.',
            )
        self.indices = {row: wanted[name] for row, name in self.ids.items()}

    def read(self, row: int) -> Any:
        """The sample (H, W, 3) uint8 as the tokenizer saw it, random choices of its transform included."""
        import torch

        from vq.core.random import python_stream
        from vq.data.crops import view
        from vq.data.decode import BadImage

        index = self.indices[row]
        try:
            sample = self.dataset.load(index, python_stream('sample', self.seed, 0, index))
        except BadImage as error:
            raise UserError(f'bad image {error}', 'It could be read when the tokens were made: restore the file.') from error
        size = int(self.producer['image_size'])
        image = torch.from_numpy(sample['image'].copy()).permute(2, 0, 1)
        image = view(image, self.variant, size if 'cropped_from' in self.producer else None)
        if image.shape[1] != size:
            raise UserError(
                f'the tokens are of images of {size} pixels, and the config makes them {image.shape[1]} x {image.shape[2]}',
                f'Give the size they were made with: --config-options image_size:{size}.',
            )
        return image.permute(1, 2, 0).contiguous().numpy()


if __name__ == '__main__':
    sys.exit(main())
