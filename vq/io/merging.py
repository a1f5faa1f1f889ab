"""Weights between those of two models, or with what a third has learned: formulas tensor by tensor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from vq.core.errors import UserError, listing

# the part s' of the second model in the result, for the share s that is asked for
CURVES: dict[str, Callable[[float], float]] = {
    'weighted': lambda share: share,
    'sigmoid': lambda share: share * share * (3 - 2 * share),
    'inverse_sigmoid': lambda share: 0.5 - math.sin(math.asin(1 - 2 * share) / 3),
}
DIFFERENCE = 'add_difference'
METHODS = (*CURVES, DIFFERENCE)


@dataclasses.dataclass(frozen=True)
class Merged:
    tensors: dict[str, Tensor]
    merged: list[str]  # keys that follow the formula
    kept: list[str]  # those of the first model: integers, keys outside of ``only``, and keys that the others do not have


def merge_weights(
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    third: Mapping[str, Tensor] | None,
    method: str,
    share: float,
    only: Sequence[str] = (),
) -> Merged:
    """(1 - s') a + s' b,  s' a curve of ``share`` s by ``method``;  add_difference: a + s (b - c).

    The result has the keys and dtypes of the first. ``only``: prefixes of the keys that change; none: all. Computed in fp64.
    """
    if method not in METHODS:
        raise UserError(f"there is no method '{method}'", f'There are: {listing(METHODS)}.')
    if (third is None) == (method == DIFFERENCE):
        raise UserError(
            f'{method} of {2 if third is None else 3} models',
            'add_difference takes three, a + s (b - c); the other methods take two.',
        )
    if not math.isfinite(share) or (method != DIFFERENCE and not 0 <= share <= 1):
        raise UserError(f'the share is {share:g}', 'Give a number from 0, the first model, to 1, the second.')
    others = [second] if third is None else [second, third]
    tensors, merged, kept = {}, [], []
    for key, value in first.items():
        wanted = not only or key.startswith(tuple(only))
        if not wanted or not value.is_floating_point() or any(key not in other for other in others):
            tensors[key] = value
            kept.append(key)
            continue
        odd = next((other[key] for other in others if other[key].shape != value.shape), None)
        if odd is not None:
            raise UserError(
                f"'{key}' has the shapes {tuple(value.shape)} and {tuple(odd.shape)}", 'Merge models of one architecture.'
            )
        a, b = value.double(), second[key].double()
        if third is None:
            part = CURVES[method](share)
            found = (1 - part) * a + part * b
        else:
            found = a + share * (b - third[key].double())
        tensors[key] = found.to(value.dtype)
        merged.append(key)
    if not merged:
        raise UserError('the models have no tensor in common that would change', 'Are they of one kind? See --only.')
    return Merged(tensors, merged, kept)
