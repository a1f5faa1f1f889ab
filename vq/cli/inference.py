"""Reconstruct image files with a tokenizer: ``python -m vq.inference CONFIG IMAGE... --load-model-from F``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from vq.cli import arguments
from vq.cli.errors import command
from vq.cli.next_steps import say_next_of
from vq.core import environment
from vq.core.errors import UserError

logger = logging.getLogger('vq')

EXAMPLES = """
examples:
  vq reconstruct work_dirs/digits_ar_sample/samples/000000.png --load-model-from digits
  vq reconstruct digits/vq_ema.py work_dirs/digits_ar_sample/samples/*.png --load-model-from digits --output pictures
"""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.parser('vq.inference', 'Write input | reconstruction, token map and tokens (or latent) of each image.')
    parser.epilog = EXAMPLES
    arguments.add_config(parser, optional='default: that of the run')
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    arguments.add_weights(parser, required=True)
    parser.add_argument(
        '--output', default='work_dirs/inference', metavar='DIR', help='where to write (default: work_dirs/inference)'
    )
    parser.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, mps (default: auto)')
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = arguments.parse(make_parser(), argv)
    environment.need_one_process('vq.inference')
    environment.prepare()
    import numpy
    import torch

    from vq.assembly import building, logs
    from vq.assembly.against_run import tell_differences
    from vq.assembly.compose import compose, config_of, runner_config
    from vq.assembly.frozen_weights import take_tokenizer
    from vq.core.random import python_stream
    from vq.core.records import to_float
    from vq.data.decode import BadImage, decode_image
    from vq.data.transforms import none
    from vq.interfaces import Tokenizer
    from vq.io import atomic
    from vq.io.pictures import grid, save_png, token_map
    from vq.io.spec import size_of
    from vq.runners.context import RunContext

    logs.start()
    if options.config is not None and Path(options.config).is_file() and Path(options.config).suffix not in ('.py', '.json'):
        options.images, options.config = [options.config, *options.images], None  # CONFIG was left out
    options.config = config_of(options)
    config = compose(options.config, options.config_options, options.override, trusted=options.trust)
    options.load_model_from = take_tokenizer(config, options.load_model_from, required=True)
    validator = building.build_runner(config, 'validator', 0)
    folder = Path(options.output)
    building.make_folder(folder)
    context = RunContext('inference', folder, full=building.full_form(options, 'validator'))
    tokenizer = getattr(validator.model, 'tokenizer', None)
    if not isinstance(tokenizer, Tokenizer):
        raise UserError(f'{type(validator.model).__name__} has no tokenizer', 'Give the config of an image tokenization task.')
    building.load_frozen(tokenizer, context)  # not those of the losses, which are not used here
    tell_differences(options, config, context)
    building.load_weights(validator.model, options.load_model_from, options.weights, context)
    validator.strategy.device_name = options.device
    device = validator.strategy.choose_device()
    tokenizer.to(device).eval()
    size = size_of(runner_config(config, 'validator')['dataset'])
    failed = 0
    for name in unique_names(options.images):
        try:
            pixels = none(decode_image(name[0]), python_stream('inference'), image_size=size)
        except BadImage as error:
            logger.warning('%s', error)
            failed += 1
            continue
        image = torch.from_numpy(numpy.array(pixels)).permute(2, 0, 1)[None].to(device)
        if tokenizer.codebook_size:
            tokens = tokenizer.tokenize(to_float(image))
            made = tokenizer.detokenize(tokens) if tokenizer.can_decode else None
            save_png(folder / f'{name[1]}_tokens.png', token_map(tokens[0], size))
            found, kind = tokens[0].cpu(), 'tokens'
            said = f'{tuple(found.shape)} tokens, {len(set(found.flatten().tolist()))} different'
        else:
            with torch.no_grad():
                latent = tokenizer.encode(to_float(image)).mean
                made = tokenizer.decode(latent)
            found, kind = latent[0].cpu(), 'latent'
            said = f'a latent {tuple(found.shape)}, no tokens'
        pictures = [to_float(image)] if made is None else [to_float(image), made]
        save_png(folder / f'{name[1]}_pair.png', grid(torch.cat(pictures), columns=len(pictures)))
        with atomic.atomic_file(folder / f'{name[1]}_{kind}.npy') as file:
            numpy.save(file, found.numpy())
        print(f'{name[0]}: {said}, in {folder}/{name[1]}_*')
    if failed:
        raise UserError(f'{failed} of {len(options.images)} images could not be read (named above)', 'Check these files.')
    if argv is None:  # typed by somebody, not called by another program
        say_next_of('reconstruct', options.load_model_from[-1])
    return 0


def unique_names(images: Sequence[str]) -> list[tuple[str, str]]:
    """(file, stem of its outputs): files with the same name in several folders do not overwrite each other's outputs."""
    seen: dict[str, int] = {}
    found = []
    for image in images:
        stem = Path(image).stem
        count = seen.get(stem, 0)
        seen[stem] = count + 1
        found.append((image, f'{stem}-{count + 1}' if count else stem))
    return found
