"""The option of tokenizers that disturbs latents in training."""

from __future__ import annotations

from typing import Annotated

from vq.core.recipe import Given, Part, recipe
from vq.recipes.strategy import chosen


@recipe()
def disturbed(
    given: Given,
    *,
    perturbation: Annotated[Part | None, 'what disturbs latents before they are decoded, in training; None: nothing'] = None,
) -> Part:
    """The part of a tokenizer between its latents and its decoder."""
    return chosen(perturbation=perturbation)
