"""``vq convert ldm_unet FILE``: the weights of a published UNet, for ``--load-model-from``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vq.cli.convert import Lines, fit_parts
from vq.core.errors import listing
from vq.core.specs import in_words


def convert_unet(converter: Any, kind: str, file: Path, options: Mapping[str, Any], output: Path) -> Lines:
    from vq.assembly.counting import count
    from vq.io import tensorfile
    from vq.io.atomic import atomic_file
    from vq.io.digest import read_digest
    from vq.io.published.reader import read_state
    from vq.io.values import check_values
    from vq.registries import VQDenoiserRegistry

    weights, _ = converter.locate(file)
    converted = converter.convert(read_state(weights, converter.NESTS), **options)
    side = 2 ** (len(converted.denoiser['multipliers']) + 2)  # a UNet takes any number of cells that its levels divide
    own = {key: value for key, value in converted.tensors.items() if key.startswith('denoiser.')}
    parts = {'denoiser.': (VQDenoiserRegistry, converted.denoiser | {'cells': (side, side)})}
    (network,) = fit_parts(own, parts)
    check_values(own, {f'denoiser.{key}': value for key, value in network.state_dict().items()}, weights.name)
    notes = {
        'vq.format': 'vq.unet',
        'vq.format_version': '1',
        'vq.kind': kind,
        'vq.denoiser': json.dumps(converted.denoiser, sort_keys=True),
        'vq.source': weights.name,
        'vq.source_sha256': read_digest(weights),
    }
    with atomic_file(output, tensorfile.size_of(converted.tensors)) as writer:
        tensorfile.write_tensors(writer, converted.tensors, notes)
    told = converted.denoiser
    attention = f'{told["attn_block_type"]["type"]} at {listing(map(str, told["attention_at"]))}'
    texts = '' if told['sequence_dim'] is None else f', texts of {told["sequence_dim"]} channels'
    adapters, widths = len(network.adapters), in_words(told['multipliers'])
    return [
        ('read', f'{weights} ({kind})'),
        ('tensors', f'{len(own)} of the UNet' + (f', {len(converted.tensors) - len(own)} of its layouts' if adapters else '')),
        *(('left out', f'{len(keys)}: {reason}') for reason, keys in converted.dropped.items()),
        (
            'network',
            f'{told["width"]} channels times {widths}, {attention}{texts}, {adapters} adapters',
        ),
        ('parameters', f'{count(network):,}'),
        ('written', f'{output} ({output.stat().st_size / 1e6:.1f} MB)'),
        ('to use it', f'--load-model-from {output}, with a UNet of these sizes'),
    ]
