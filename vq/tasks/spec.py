"""The spec of a built model, which is written next to each checkpoint and into converted files."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

from torch import nn

from vq.core.errors import UserError
from vq.core.random import python_stream
from vq.core.specs import CodecSpec, size_of
from vq.data.decode import BadImage
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Dataset, Generator, Tokenizer
from vq.interfaces.drawing import kinds_of
from vq.io.runs import find
from vq.io.spec import RANGE, Spec, fits_names

_TRIED = 16  # samples to try for the image shape: damaged ones are skipped


def spec_of(model: nn.Module, dataset: Dataset | None = None, preprocessing: Mapping[str, Any] | None = None) -> Spec:
    """The spec of a task that is trained on ``dataset``. ``preprocessing``: the preprocessing of images in evaluation."""
    kind: str = getattr(model, 'kind', 'model')
    part = getattr(model, 'tokenizer', None)
    image = None if dataset is None else image_shape(dataset)
    if isinstance(part, FrozenTokenizer):
        image = image or (part.image_size[0], part.image_size[1])
        part = part.tokenizer
    trained_on = {} if dataset is None else describe_dataset(dataset)
    if isinstance(classes := getattr(model, 'classes', None), int) and classes:
        trained_on['classes'] = classes
        trained_on['names'] = None if dataset is None or dataset.categories is None else list(dataset.categories)
    tokens, latent = (None, None) if not isinstance(part, Tokenizer) or image is None else codes_of(part, image)
    if isinstance(generator := getattr(model, 'generator', None), Generator):
        tokens, latent = generator.tokens, None
    categories = names_of(dataset, getattr(model, 'tokenizer', None))
    of_boxes = 'layout' in kinds_of(model)  # the categories of boxes are those of the data
    if (of_boxes or kind == 'segmenter') and dataset is not None and dataset.label_names:
        labels = tuple(dataset.label_names)
        categories = labels if all(labels) and fits_names(labels) else ()
    if not of_boxes and (count := classes_of(model)) is not None and len(categories) != count:
        categories = ()  # the names of other classes than those that the model draws or tells apart
    return Spec(kind, image, dict(preprocessing or {}), trained_on, tokens, latent, categories)


def classes_of(model: nn.Module) -> int | None:
    """The number of classes of a generator or classifier; None for a model that knows none."""
    classes = getattr(model, 'classes', getattr(getattr(model, 'generator', None), 'classes', None))
    return classes if isinstance(classes, int) else None


def names_of(dataset: Dataset | None, tokenizer: object) -> tuple[str, ...]:
    """The class names of the dataset; of token shards without their images, those of the tokenizer's run."""
    names = () if dataset is None or dataset.categories is None else tuple(dataset.categories)
    if not names and isinstance(tokenizer, FrozenTokenizer) and tokenizer.weights is not None:
        with contextlib.suppress(UserError):  # a published file, or a run that is gone: it has no names
            names = find(tokenizer.weights).spec.categories
    return names if all(names) and fits_names(names) else ()


def spec_of_tokenizer(tokenizer: Tokenizer, image_size: int | tuple[int, ...]) -> Spec:
    """The spec of a tokenizer alone, for converted files."""
    height, width = size_of(image_size)
    image = (height, width)
    tokens, latent = codes_of(tokenizer, image)
    return Spec('tokenizer', image, {'range': list(RANGE), 'transform': None}, {}, tokens, latent)


def spec_of_generator(generator: Generator, image_size: int) -> Spec:
    """The spec of a generator alone, for converted files."""
    image = (image_size, image_size)
    return Spec('generator', image, {'range': list(RANGE), 'transform': None}, {}, generator.tokens)


def codes_of(tokenizer: Tokenizer, image: tuple[int, int]) -> CodecSpec:
    """The tokens and the latent of an image of this size; None for each that the tokenizer does not have, or cannot make of
    this size: training then raises the error."""
    try:
        return tokenizer.spec(image)
    except (UserError, NotImplementedError):
        return CodecSpec(None, None)


def image_shape(dataset: Dataset) -> tuple[int, int] | None:
    """Height and width of the images a model sees, read from a sample."""
    images = getattr(dataset, 'source', None) or dataset  # of a token dataset: the dataset of its images
    for index in itertools.islice(range(len(images)), _TRIED):
        try:
            image = images.load(index, python_stream('spec')).get('image')
        except BadImage:
            continue
        height, width = (0, 0) if image is None else image.shape[:2]
        return (int(height), int(width)) if height and width else None
    return None


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """The entries of the spec about the training dataset."""
    categories = dataset.categories
    return {
        'dataset': dataset.name,
        'split': dataset.split,
        'images': len(dataset),
        'classes': None if categories is None else len(categories),
    }
