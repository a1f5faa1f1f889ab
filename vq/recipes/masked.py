"""Masked generators: those that see every position (MaskGIT), and MAGE."""

from __future__ import annotations

from typing import Annotated, Literal

from vq.core.recipe import Given, Part, recipe
from vq.recipes.strategy import chosen

TINY = dict(dim=32, depth=2, heads=2)  # of all generators


@recipe()
def iterative(
    given: Given,
    *,
    steps: Annotated[int | None, 'decoding steps'] = None,
    order: Annotated[Literal['confidence', 'halton'] | None, 'order in which tokens are unmasked'] = None,
    choice_temperature: Annotated[float | None, 'temperature of the noise in that order'] = None,
    mlp_ratio: Annotated[float | None, 'hidden channels of feed-forward layers / dim'] = None,
) -> Part:
    """What masked generators share. None: the default of the generator."""
    return chosen(steps=steps, order=order, choice_temperature=choice_temperature, mlp_ratio=mlp_ratio)


@recipe(iterative)
def masked(
    given: Given,
    shape: dict[str, int],
    dropout: float,
    *,
    mask_ratio: Annotated[str | None, 'mask ratio schedule in training: cosine, mage; None: the default'] = None,
    tied: Annotated[bool | None, 'the output layer shares the weights of the embeddings'] = None,
) -> Part:
    """A generator that predicts all masked tokens at once, in several steps. None: the default of MaskedGenerator."""
    own = chosen(mask_ratio=mask_ratio, tied=tied)
    return dict(type='MaskedGenerator', dropout=dropout, **own, **iterative(given), **shape)


@recipe(iterative)
def mage(
    given: Given,
    shape: dict[str, int],
    dropout: float,
    *,
    decoder_depth: Annotated[int | None, 'layers of the decoder; None: 8'] = None,
    decoder_dim: Annotated[int | None, 'channels of the decoder; None: those of the encoder'] = None,
    decoder_heads: Annotated[int | None, 'attention heads of the decoder; None: those of the encoder'] = None,
    mask_min: Annotated[float | None, 'smallest mask ratio, and share of tokens that the encoder drops; None: 0.5'] = None,
    mask_mean: Annotated[float | None, 'mean of the mask ratio before truncation; None: 0.55'] = None,
    mask_std: Annotated[float | None, 'standard deviation of the mask ratio before truncation; None: 0.25'] = None,
) -> Part:
    """A masked generator whose encoder is given part of the tokens. ``shape`` is that of the encoder."""
    if shape == TINY:
        decoder = dict(decoder_depth=1)
    else:
        decoder = chosen(decoder_depth=decoder_depth, decoder_dim=decoder_dim, decoder_heads=decoder_heads)
    own = chosen(mask_min=mask_min, mask_mean=mask_mean, mask_std=mask_std)
    return dict(type='MAGEGenerator', dropout=dropout, **decoder, **own, **iterative(given), **shape)
