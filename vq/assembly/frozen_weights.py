"""``--load-model-from`` of a config that builds upon a trained tokenizer and does not say where its weights are."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.io.runs import find
from vq.io.tensorfile import read_header
from vq.io.weights import sniff

logger = logging.getLogger('vq')


def take_tokenizer(config: PyConfig, files: Sequence[str], required: bool = False) -> list[str]:
    """Write the tokenizer among ``files`` into the config, where it lacks one; what is left to be loaded into the model.

    It is the first that is no checkpoint of this config's own task. The config that a run keeps then names its tokenizer, so
    whoever reads the run later need not. ``required``: the command measures trained weights, and the tokenizer's are not all.
    """
    wanting = {key: part for which in ('trainer', 'validator') for key, part in _wanting(config.get(which, {}).get('model'))}
    if not wanting:
        return list(files)
    others = [name for name in files if not _holds(name, [f'{key}.digest' for key in wanting])]
    if not others:
        return list(files)
    rest = list(files)
    rest.remove(others[0])
    if required and not rest:
        raise UserError(
            f'{others[0]} is the tokenizer that this config builds upon, and nothing of what was trained on top of it',
            'Name both: --load-model-from TOKENIZER RUN. Or use the config in the run folder, which names the tokenizer.',
        )
    for part in wanting.values():
        part['weights'] = others[0]
    logger.info('the frozen tokenizer is that of %s', others[0])
    return rest


def _wanting(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Frozen tokenizers without weights, by their paths in the model."""
    if not isinstance(value, Mapping):
        return
    if str(value.get('type', '')).split('.')[-1] == 'FrozenTokenizer':
        if value.get('weights') is None:
            yield path, value
        return  # what is inside is named by what was trained on it
    for name, item in value.items():
        yield from _wanting(item, f'{path}.{name}' if path else name)


def _holds(name: str, keys: Sequence[str]) -> bool:
    """Whether weights are of a task that knows which tokenizer it was trained on. Files that are missing are not: whoever
    loads them says so."""
    try:
        file = find(name).file()
    except UserError:
        return False
    return sniff(file) == 'safetensors' and any(key in read_header(file).entries for key in keys)
