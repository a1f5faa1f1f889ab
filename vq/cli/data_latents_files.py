"""``vq data latents --format`` and ``--from``: latents in the files of other programs, written and taken."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.core.records import to_float
from vq.core.specs import plain_size
from vq.data.crops import view
from vq.io import latent_files
from vq.io.exported import is_exported
from vq.io.latent_import import LatentFiles, Latents
from vq.io.ranks import run_on_all_ranks
from vq.io.shards import ShardSet, ShardWriter
from vq.io.spec import jsonable
from vq.runners.latent_writer import DTYPES, LatentWriter
from vq.runners.progress import ProgressBar

logger = logging.getLogger('vq')

COMPARED = 8  # imported latents that are compared with those of their images
FAR = 0.1  # relative distance: float16 and other devices stay far below, other weights are at about 1


def give(folder: Path, layout: latent_files.Format, size: int) -> dict[str, Any]:
    """Export the cache in ``folder``, on all ranks."""
    root, shards = folder / layout, ShardSet(folder / 'latents')
    done = is_exported(root, shards.manifest.producer, 'latents')
    collectives.barrier()
    counts = [0]
    if not done:
        run_on_all_ranks(lambda: latent_files.check_exportable(shards, layout), 'looking at the latents')
        rank, world = collectives.rank(), collectives.size()
        with ProgressBar('writing files', -(-len(shards) // world), 'images', visible=collectives.is_main()) as bar:
            counts = run_on_all_ranks(
                lambda: latent_files.export(shards, root, layout, size, rank, world, bar.advance), f'writing {layout} files'
            )
    # a complete export is looked through again: files may have been lost since
    run_on_all_ranks(
        lambda: latent_files.finish(shards, root, layout, size) if collectives.is_main() else None,
        f'completing {layout} files',
    )
    return {'files_written_now': sum(counts), 'files': str(root)}


def take(writer: LatentWriter, source: Path, image_size: tuple[int, int]) -> dict[str, Any]:
    """Make a cache of the files in ``source``, which the tokenizer of ``writer`` is said to have made; on the first rank."""
    results = run_on_all_ranks(
        lambda: _take(writer, source.expanduser(), image_size) if collectives.is_main() else {}, 'taking latents'
    )
    return results[0]


def _take(writer: LatentWriter, source: Path, image_size: tuple[int, int]) -> dict[str, Any]:
    started = time.perf_counter()
    writer.model.eval()
    writer.tokenizer = writer.tokenizer_of()
    about = writer.describe_codes(image_size)
    files = LatentFiles(source, about['latent_shape'])
    first = files.read(0, 1)
    compare(writer, files)
    producer = {
        'tokenizer_config_hash': writer.context.meta.get('tokenizer_config_hash', ''),
        'weights_hash': writer.context.meta.get('tokens_hash', ''),
        **about,
        'precision': 'unknown',
        'image_size': jsonable(plain_size(image_size)),
        'dataset': writer.dataset.name,
        'split': writer.dataset.split,
        'dataset_fingerprint': '',
        'variants': ['center', 'flip'][: first.mean.shape[1]],
        'random_weights': writer.context.random_weights,
        'converted_from': files.digest(),
    }
    folder = writer.work_dir / writer.kind
    shards = ShardWriter(folder, writer.kind, len(files), writer.shard_size, producer)
    pending = shards.pending(0, 1)
    with ProgressBar('taking', sum(map(len, pending)), 'images') as bar:
        for part in pending:
            found = files.read(part.start, part.stop)
            columns = {
                name: value for name in ('mean', 'logvar') if (value := tensor_of(found, name, writer.dtype)) is not None
            }
            shards.write(
                part,
                {**columns, 'category': found.category},
                found.ids,
                notes=writer.notes(columns),
            )
            bar.advance(len(part))
    shards.finish(writer.sum_up)
    seconds = time.perf_counter() - started
    return {
        'samples': len(files),
        'layout': files.layout,
        'latent_shape': about['latent_shape'],
        'folder': str(folder),
        'seconds': round(seconds, 3),
    }


def tensor_of(found: Latents, name: str, dtype: str) -> Tensor | None:
    values = getattr(found, name)
    return None if values is None else torch.from_numpy(np.ascontiguousarray(values)).to(DTYPES[dtype])


@torch.no_grad()
def compare(writer: LatentWriter, files: LatentFiles) -> None:
    """Encode some of the images, if they are here, and refuse latents that are not those of this tokenizer."""
    distances = []
    try:
        places = {stem_of(writer.dataset.id_of(index)): index for index in range(len(writer.dataset))}
    except UserError as error:  # the images are not on this machine
        logger.warning('the images are not there (%s), so the latents are taken without a comparison', error.message)
        return
    for found, index in itertools.islice(known(files, places), COMPARED):
        image = writer.dataset.load(index, python_stream('compare'))['image']
        batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(next(writer.tokenizer.parameters()).device)
        for variant, name in zip(found.mean[0], ('center', 'flip'), strict=False):
            wanted = writer.tokenizer.code(writer.tokenizer.encode(view(to_float(batch), name)))[0][0].float().cpu()
            given = torch.from_numpy(np.ascontiguousarray(variant))
            distances.append(float((given - wanted).norm() / wanted.norm().clamp(min=1e-12)))
    if not distances:
        logger.warning(
            'none of the first files is named as an image of %s, so nothing says that this tokenizer made these latents',
            writer.dataset.name,
        )
    elif (far := sorted(distances)[len(distances) // 2]) > FAR:
        raise UserError(
            f'the latents in {files.root} are not those of the tokenizer with weights '
            f'{writer.context.meta.get("tokens_hash", "")}: of {len(distances)} that were made again, half are {far:.2g} or '
            'more away (relative)',
            'Give the weights that made them, their image size (--image-size), and latents before any scaling factor.',
        )


def known(files: LatentFiles, places: dict[str, int]) -> Iterator[tuple[Latents, int]]:
    """Latents whose images are in the dataset, spread over the files."""
    step = max(1, len(files) // 64)
    for row in range(0, len(files), step):
        found = files.read(row, row + 1)
        index = places.get(stem_of(found.ids[0]))
        if index is not None:
            yield found, index


def stem_of(sample: str) -> str:
    """The name of an image without its suffix and the folders above that of its class."""
    path = PurePosixPath(sample)
    return '/'.join(path.with_suffix('').parts[-2:]) if path.name else sample
