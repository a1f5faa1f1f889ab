"""``--load-model-from`` of a config with a frozen tokenizer whose weights the config does not name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vq.core.config import PyConfig
from vq.core.errors import UserError
from vq.io.runs import find, taken
from vq.io.tensorfile import read_header
from vq.io.weights import sniff

logger = logging.getLogger('vq')


def take_tokenizer(config: PyConfig, files: Sequence[str], required: bool = False) -> list[str]:
    """Write the tokenizer among ``files`` into the config, if it lacks one; returns the other files, which the model loads.

    The first file that was not written by this task is taken as the tokenizer. The config in the run folder then names the
    tokenizer, so later commands need not. With ``required``, for commands that measure trained weights, at least one other
    file must remain.
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
            f'{others[0]} is the frozen tokenizer of this config, and the weights that were trained on it are missing',
            'Name both: --load-model-from TOKENIZER RUN. Or use the config in the run folder, which names the tokenizer.',
        )
    weights = taken(others[0])
    for part in wanting.values():
        part['weights'] = weights
    logger.info('the frozen tokenizer is read from %s', weights)
    return rest


def settle_steps(config: PyConfig) -> None:
    """Where the config names a step that a dry run does not have, name the checkpoint that is taken in its place.

    So the config in the run folder names files that exist.
    """
    for which in ('trainer', 'validator'):
        for part in _frozen(config.get(which, {}).get('model')):
            if part.get('weights') is not None:
                part['weights'] = taken(part['weights'])


def _frozen(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if str(value.get('type', '')).split('.')[-1] == 'FrozenTokenizer':
            yield value
        for item in value.values():
            yield from _frozen(item)


def _wanting(value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Frozen tokenizers without weights, by their paths in the model."""
    if not isinstance(value, Mapping):
        return
    if str(value.get('type', '')).split('.')[-1] == 'FrozenTokenizer':
        if value.get('weights') is None:
            yield path, value
        return  # frozen tokenizers inside are named by the run of this one
    for name, item in value.items():
        yield from _wanting(item, f'{path}.{name}' if path else name)


def _holds(name: str, keys: Sequence[str]) -> bool:
    """Whether a file has a digest of the tokenizer that its task was trained on. False for a missing file: loading it
    raises the error."""
    try:
        file = find(name).file()
    except UserError:
        return False
    return sniff(file) == 'safetensors' and any(key in read_header(file).entries for key in keys)
