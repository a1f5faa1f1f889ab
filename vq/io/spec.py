"""Inputs and outputs of a trained part: ``spec.json`` in a checkpoint, ``vq.spec`` in a converted file. Works without torch.

    {"version": 1, "kind": "tokenizer", "image": [256, 256],
     "preprocessing": {"range": [-1.0, 1.0], "transform": {"type": "VQTransformRegistry.none", "image_size": 256}},
     "trained_on": {"dataset": "imagenet", "split": "train", "images": 1281167, "classes": 1000},
     "tokens": {"cells": [16, 16], "codebooks": [8192]}, "latent": {"channels": 256, "cells": [16, 16], "normalized": null},
     "categories": ["boat", "house", "rocket"]}

A field that does not apply is null; ``categories``, the names of the classes by number, is left out where there are no names.
Later versions of vq can add fields; a field keeps its meaning within a version.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vq.core.config import plain
from vq.core.errors import UserError
from vq.core.reading import parse_json, read_bytes
from vq.core.specs import LatentSpec, TokenSpec, in_words

FILE = 'spec.json'
VERSION = 1
LONGEST = 1_000_000  # characters; a thousand class names take some ten thousand
KINDS = ('tokenizer', 'decoder', 'generator', 'classifier', 'segmenter', 'model')
_LARGEST = {'image': 2**16, 'cells': 2**24, 'codebooks': 2**63, 'channels': 2**20}
_MOST = {'image': 2, 'cells': 8, 'codebooks': 4096}  # numbers in each list
STATISTICS = ('channel', 'element')
_NAMES = LONGEST // 4  # characters of all class names together
RANGE = (-1.0, 1.0)  # of the images that models take


@dataclasses.dataclass(frozen=True)
class Spec:
    """Kind, inputs, outputs and training data of a trained part."""

    kind: str
    image: tuple[int, int] | None = None  # height, width of the images it was trained on
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # range, and the transform of evaluation
    trained_on: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # dataset, split, images, classes, names
    tokens: TokenSpec | None = None
    latent: LatentSpec | None = None
    categories: tuple[str, ...] = ()  # the name of each class; () if classes have no names

    def as_json(self) -> dict[str, Any]:
        """JSON values that ``read`` accepts."""
        content: dict[str, Any] = jsonable({'version': VERSION, **dataclasses.asdict(self)})
        if not self.categories:
            del content['categories']
        return content

    def __str__(self) -> str:
        """A short description: ``32 x 32 pixels, 4 x 4 tokens of 256 codes``."""
        said = [] if self.image is None else [f'{in_words(self.image)} pixels']
        if self.tokens is not None:
            said.append(f'{in_words(self.tokens.cells)} tokens of {in_words(self.tokens.codebooks)} codes')
        elif self.latent is not None:
            said.append(f'latents of {self.latent.channels} channels in {in_words(self.latent.cells)} cells')
        return ', '.join(said) or 'of unknown sizes'


def jsonable(value: Any) -> Any:
    """``value`` in types of JSON: tuples become lists, and values of other types become text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)


# reading: a spec file can come from an untrusted source


def read(path: Path) -> Spec:
    """The spec in a file."""
    try:
        text = read_bytes(path).decode()
    except (OSError, ValueError) as error:
        raise _damaged(str(path), str(error)) from error
    return loads(text, str(path))


def loads(text: str, where: str) -> Spec:
    """The spec in a text; ``where`` is named in errors."""
    try:
        if len(text) > LONGEST:
            raise ValueError('it is too long')
        content = parse_json(text)
        if not isinstance(content, dict) or type(content.get('version')) is not int:
            raise ValueError('it has no version')
        if content['version'] > VERSION:
            raise UserError(f'{where} has version {content["version"]}, and this vq reads up to {VERSION}', 'Upgrade vq.')
        return _from_json(content)
    except ValueError as error:
        raise _damaged(where, str(error)) from error


def _from_json(content: Mapping[str, Any]) -> Spec:
    kind, tokens, latent = content.get('kind'), _part(content, 'tokens'), _part(content, 'latent')
    if not isinstance(kind, str) or not kind.isidentifier() or len(kind) > 40:
        raise ValueError(f'kind is {kind!r:.40}')
    image = None if content.get('image') is None else _sizes(content, 'image')
    if image is not None and len(image) != 2:
        raise ValueError(f'image is {list(image)}, and [height, width] is needed')
    channels = None if latent is None else latent.get('channels')
    if latent is not None and not _is_size(channels, 'channels'):
        raise ValueError(f'channels is {channels!r:.40}')
    normalized = None if latent is None else latent.get('normalized')
    if normalized not in (None, *STATISTICS):
        raise ValueError(f'normalized is {normalized!r:.40}')
    return Spec(
        kind,
        None if image is None else (image[0], image[1]),
        _part(content, 'preprocessing') or {},
        _part(content, 'trained_on') or {},
        None if tokens is None else TokenSpec(_sizes(tokens, 'cells'), _sizes(tokens, 'codebooks')),
        None if latent is None else LatentSpec(int(latent['channels']), _sizes(latent, 'cells'), normalized),
        _names(content.get('categories')),
    )


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value) or not fits_names(value):
        raise ValueError(f'categories is {value!r:.40}')
    return tuple(value)


def fits_names(names: Sequence[str]) -> bool:
    """Whether a spec can hold these class names."""
    return sum(map(len, names)) <= _NAMES


def _part(content: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    value = content.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f'{name} is {value!r:.40}')
    return value


def _sizes(content: Mapping[str, Any], name: str) -> tuple[int, ...]:
    value = content.get(name)
    if not isinstance(value, list) or not 0 < len(value) <= _MOST[name] or not all(_is_size(size, name) for size in value):
        raise ValueError(f'{name} is {value!r:.40}')
    return tuple(value)


def _is_size(value: Any, name: str) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST[name]


def _damaged(where: str, reason: str) -> UserError:
    return UserError(f'the spec of {where} is damaged: {reason}', 'Take another checkpoint, or convert the file again.')


# the spec of a config: for runs without spec.json, and for configs that have not been run


def _images(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """The image dataset that a token dataset was made of; any other dataset itself."""
    source = dataset.get('source')
    return source if isinstance(source, Mapping) else dataset


def size_in(dataset: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the images of a dataset's config, or None."""
    dataset = _images(dataset)
    size = (dataset.get('transform') or {}).get('image_size', dataset.get('image_size'))
    if size is None:
        return None
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return int(height), int(width)


def size_of(dataset: Mapping[str, Any], default: int = 256) -> tuple[int, int]:
    """Height and width of the images of a dataset's config, or ``default``: most published models are trained at 256."""
    return size_in(dataset) or (default, default)


def preprocessing_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing of images in evaluation, from a composed config."""
    dataset = _images((config.get('validator') or {}).get('dataset') or {})
    transform: dict[str, Any] | None = jsonable(plain(dataset.get('transform')))
    return {'range': list(RANGE), 'transform': transform}


def guess(config: Mapping[str, Any]) -> Spec:
    """The spec of a composed config, as far as the config determines it."""
    runner: Mapping[str, Any] = next((config[which] for which in ('validator', 'trainer') if config.get(which)), {})
    trainer = config.get('trainer') or {}
    model = runner.get('model') or trainer.get('model') or {}
    size = size_in(runner.get('dataset') or trainer.get('dataset') or {})
    dataset = _images(trainer.get('dataset') or {})
    trained_on = {'dataset': str(dataset.get('type', '')).rpartition('.')[2], 'split': dataset.get('split')}
    if model.get('classes') is not None:
        trained_on['classes'] = model['classes']
    return Spec(_kind(model), size, preprocessing_of(config), trained_on if dataset else {})


def _kind(model: Mapping[str, Any]) -> str:
    if 'generator' in model or 'denoiser' in model:
        return 'generator'
    if 'tokenizer' in model:
        return 'decoder' if 'frozen' in model['tokenizer'] else 'tokenizer'
    return 'classifier' if 'backbone' in model else 'model'
