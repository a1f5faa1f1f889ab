"""Tokens and latents belong to the tokenizer that made them: any other model that would read them is refused.

Runners call ``check_belongs`` before they read. A generator that was trained on codes of another tokenizer has the right
shapes and a falling loss, and draws noise.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from vq.core.errors import UserError
from vq.core.specs import plain_size
from vq.data.datasets.latents import LatentDataset
from vq.data.datasets.tokens import TokenDataset
from vq.encoders.frozen_tokenizer import FrozenTokenizer
from vq.interfaces import Dataset, Tokenizer
from vq.io.spec import jsonable
from vq.tokenizers.hashing import tokens_hash

logger = logging.getLogger('vq')

FAR = 3.0  # deviations of a cache beyond 1 / FAR .. FAR times those in the tokenizer are those of other latents

_passed: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()  # dataset -> its tokenizer


def check_belongs(dataset: Dataset, model: nn.Module) -> None:
    """Raise unless all tokens and latents of a dataset, also inside of others, were made by the tokenizer of ``model``."""
    for part in caches_in(dataset):
        tokenizer = held_tokenizer(model)
        if tokenizer is not None and (passed := _passed.get(part)) is not None and passed() is tokenizer:
            continue  # frozen: it has not changed since
        if isinstance(part, TokenDataset):
            if not part.is_there():
                continue  # a callback writes them, and checks them then
            check_tokens(part, required(tokenizer, model, part))
        else:
            check_latents(part, required(tokenizer, model, part), model)
        _passed[part] = weakref.ref(tokenizer)


def caches_in(dataset: Any) -> Iterator[TokenDataset | LatentDataset]:
    """The datasets of tokens and latents in ``dataset``: itself, or those that it is made of."""
    if isinstance(dataset, TokenDataset | LatentDataset):
        yield dataset
    elif isinstance(dataset, Dataset):
        for value in vars(dataset).values():
            for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Dataset):
                    yield from caches_in(item)


def held_tokenizer(model: nn.Module) -> Tokenizer | None:
    """The tokenizer of a task, frozen or its own."""
    held = getattr(model, 'tokenizer', None)
    held = held.tokenizer if isinstance(held, FrozenTokenizer) else held
    return held if isinstance(held, Tokenizer) else None


def required(tokenizer: Tokenizer | None, model: nn.Module, dataset: TokenDataset | LatentDataset) -> Tokenizer:
    if tokenizer is None:
        raise UserError(
            f'{type(model).__name__} has no tokenizer, so nothing says whether the samples in {dataset.place()} are its own',
            "Give the task its tokenizer: tokenizer=dict(type='FrozenTokenizer', tokenizer=..., weights=...).",
        )
    return tokenizer


def check_tokens(dataset: TokenDataset, tokenizer: Tokenizer) -> None:
    """Refuse tokens of another tokenizer."""
    producer = dataset.shards.manifest.producer
    own, other = tokens_hash(tokenizer), producer.get('weights_hash', '')
    if not other and not dataset.assume_tokenizer:
        raise UserError(
            f'the tokens in {dataset.place()} do not say whose they are, and the tokenizer of this run has the weights {own}',
            'Import them again with --load-model-from TOKENIZER, which writes the hash of its weights. If you are sure, set '
            'assume_tokenizer of the dataset: .trainer.dataset.assume_tokenizer=True.',
        )
    if not tokenizer.can_tokenize or producer.get('codebook_size') != tokenizer.codebook_size or (other and other != own):
        codes = tokenizer.codebook_size if tokenizer.can_tokenize else 'no'
        raise UserError(
            f'the tokens in {dataset.place()} were made by another tokenizer: {producer.get("codebook_size")} codes, weights '
            f'{other or "unknown"}; the tokenizer of this run has {codes} codes and the weights {own}',
            'Give the tokenizer that made them, or another folder for tokens (option tokens).',
        )


def check_latents(dataset: LatentDataset, tokenizer: Tokenizer, model: nn.Module) -> None:
    """Refuse latents of another tokenizer or image size, and hand the statistics of the tokenizer over."""
    producer, place = dataset.producer, dataset.place()
    own, other = tokens_hash(tokenizer), producer.get('weights_hash', '')
    if other != own:
        raise UserError(
            f'the latents in {place} were made by another tokenizer: its weights are {other or "unknown"}, and those of the '
            f'tokenizer of this run are {own}',
            'Give the tokenizer that made them, or write its own: vq data latents CONFIG --load-model-from TOKENIZER '
            '--output-folder ANOTHER.',
        )
    held = getattr(model, 'tokenizer', None)
    if isinstance(held, FrozenTokenizer):
        if held.gives != 'codes':
            raise UserError(
                f"the tokenizer of this run gives '{held.gives}', and {place} holds codes: what decoders take",
                "Set gives of the FrozenTokenizer to 'codes', or train on images.",
            )
        size = jsonable(plain_size(held.image_size))
        if producer.get('image_size') != size or producer.get('latent_shape') != list(held.latent.shape):
            raise UserError(
                f'the latents in {place} are of images of {producer.get("image_size")} pixels, shape '
                f'{producer.get("latent_shape")}; this run takes {size} pixels, shape {list(held.latent.shape)}',
                'Set image_size of the FrozenTokenizer, or write a cache of that size: vq data latents --image-size.',
            )
    statistics = tokenizer.statistics
    if statistics.present:
        mean, deviation = statistics.mean.cpu().numpy(), statistics.deviation.cpu().numpy()
        dataset.normalize_by(mean, deviation)
        _check_statistics(dataset, mean, deviation)
    else:
        dataset.normalize_by(None, None)
        if dataset.normalized and dataset.statistics:
            deviations = dataset.statistics['deviation']
            logger.warning(
                'the tokenizer has no statistics of its latents, so they are not normalized: deviations of the channels in %s '
                'go from %.3g to %.3g. Put statistics into a file of the tokenizer: vq.tools.latents (docs/latents.md).',
                place,
                min(deviations),
                max(deviations),
            )


def _check_statistics(dataset: LatentDataset, mean: Any, deviation: Any) -> None:
    """Compare the statistics of the cache with those of the tokenizer, which should give about zero mean and unit variance."""
    found = dataset.statistics
    if not dataset.normalized or not found:
        return
    channels = len(found['mean'])
    m, s = (value.reshape(channels, -1).astype('float64').mean(1) for value in (mean, deviation))
    own_mean, own = np.array(found['mean']), np.array(found['deviation'])
    alive = own > 0  # constant channels have no deviation to compare
    if not alive.any():
        return
    off = float(np.abs((own_mean - m) / own)[alive].mean())
    # statistics per element have deviations that leave out how the mean varies over cells
    ratio = float((own / s)[alive].mean()) if mean.ndim == 1 else 1.0
    if off > 1 or not 1 / FAR <= ratio <= FAR:
        raise UserError(
            f'the statistics in the tokenizer do not fit the latents in {dataset.place()}: on average over channels, means '
            f'differ by {off:.3g} deviations, and deviations are {ratio:.3g} times those of the tokenizer',
            'Compute them on the split that the cache is of: vq.tools.latents. Or set normalized of the dataset to False.',
        )
