"""The spec of a built model: what is written beside each checkpoint and into converted files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.data.decode import BadImage
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Dataset, Generator, Tokenizer
from vq.io.spec import RANGE, LatentSpec, Spec, TokenSpec

_TRIED = 16  # samples that are opened to see an image, should some be damaged


def spec_of(model: nn.Module, dataset: Dataset | None = None, preprocessing: Mapping[str, Any] | None = None) -> Spec:
    """Of a task that is trained on ``dataset``. ``preprocessing`` is what images go through in evaluation."""
    kind: str = getattr(model, 'kind', 'model')
    part = getattr(model, 'tokenizer', None)
    image = None if dataset is None else image_shape(dataset)
    if isinstance(part, FrozenTokenizer):
        image = image or (part.image_size, part.image_size)
        part = part.tokenizer
    trained_on = {} if dataset is None else describe_dataset(dataset)
    if isinstance(classes := getattr(model, 'classes', None), int):
        trained_on['classes'] = classes
        trained_on['names'] = None if dataset is None or dataset.categories is None else list(dataset.categories)
    tokens, latent = (None, None) if not isinstance(part, Tokenizer) or image is None else codes_of(part, image)
    if isinstance(generator := getattr(model, 'generator', None), Generator):
        tokens, latent = tokens_of(generator), None
    return Spec(kind, image, dict(preprocessing or {}), trained_on, tokens, latent)


def spec_of_tokenizer(tokenizer: Tokenizer, image_size: int) -> Spec:
    """Of a tokenizer alone, as converted files hold it."""
    image = (image_size, image_size)
    tokens, latent = codes_of(tokenizer, image)
    return Spec('tokenizer', image, {'range': list(RANGE), 'transform': None}, {}, tokens, latent)


def spec_of_generator(generator: Generator, image_size: int) -> Spec:
    """Of a generator alone, as converted files hold it."""
    image = (image_size, image_size)
    return Spec('generator', image, {'range': list(RANGE), 'transform': None}, {}, tokens_of(generator))


def tokens_of(generator: Generator) -> TokenSpec:
    """The tokens that a generator draws."""
    shape, sizes = tuple(generator.token_shape), tuple(getattr(generator, 'codebook_sizes', ()))
    return TokenSpec(shape[:-1], sizes) if sizes else TokenSpec(shape, (generator.codebook_size,))


def codes_of(tokenizer: Tokenizer, image: tuple[int, int]) -> tuple[TokenSpec | None, LatentSpec | None]:
    """The tokens and the latent of an image, as far as the tokenizer has them."""
    height, width = image
    if height != width:
        return None, None
    latent = _shape(tokenizer.latent_shape, height)
    shape = _shape(tokenizer.token_shape, height) if tokenizer.codebook_size else ()
    sizes = tokenizer.codebook_sizes  # of the last axis of tokens, where a cell has several
    tokens = TokenSpec(shape[:-1], sizes) if sizes else TokenSpec(shape, (tokenizer.codebook_size,))
    return tokens if shape else None, LatentSpec(latent[0], latent[1:]) if latent else None


def _shape(ask: Callable[[int], tuple[int, ...]], size: int) -> tuple[int, ...]:
    """The shape for images of a size; () where the tokenizer has none, or where the size does not divide into its cells
    (training will say so)."""
    try:
        return tuple(ask(size))
    except (UserError, NotImplementedError):
        return ()


def image_shape(dataset: Dataset) -> tuple[int, int] | None:
    """Height and width of the images a model sees, looked up in a sample."""
    images = getattr(dataset, 'source', None) or dataset  # of tokens, the images they are made of
    for index in itertools.islice(range(len(images)), _TRIED):
        try:
            height, width = images.load(index, python_stream('spec'))['image'].shape[:2]
        except BadImage:
            continue
        return (int(height), int(width)) if height and width else None
    return None


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What is said of the dataset that a model was trained on."""
    categories = dataset.categories
    return {
        'dataset': dataset.name,
        'split': dataset.split,
        'images': len(dataset),
        'classes': None if categories is None else len(categories),
    }
