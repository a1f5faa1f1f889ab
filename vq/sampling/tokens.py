"""Samplers of tokens: functions ``(logits (..., V), uniform (...)) -> tokens (...) int64``.

Each row has its own uniform number, so a token does not depend on other rows. There is no host sync. A row that is not a
distribution (contains NaN or +inf, or is all -inf) gives -1, which is never a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.registries import VQSamplerRegistry


@VQSamplerRegistry.register_('Greedy')
def greedy(logits: Tensor, uniform: Tensor) -> Tensor:
    """argmax of the logits, the first of equals; ``uniform`` is not used."""
    best, token = logits.max(-1)
    return torch.where(best > -torch.inf, token, -1)  # false for NaN


@VQSamplerRegistry.register_('Multinomial')
def multinomial(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """Draw from softmax(logits / temperature), restricted to the likelier tokens; see ``candidates``."""
    weights, ids = candidates(logits, temperature, top_k, top_p, min_p)
    drawn = draw(weights, uniform)
    if ids is None:
        return drawn
    return torch.where(drawn >= 0, ids.gather(-1, drawn.clamp(min=0)[..., None])[..., 0], -1)


def candidates(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> tuple[Tensor, Tensor | None]:
    """Weights (..., k) fp32, 0 for excluded tokens, and the ids of the tokens (..., k), None if these are 0 to V - 1.

    Three filters in turn. Top-k keeps the ``top_k`` likeliest tokens (0: all) and renormalises. Top-p keeps the fewest
    likeliest tokens whose probabilities sum to ``top_p`` or more. Min-p keeps tokens with at least ``min_p`` times the largest
    probability. Weights are the probabilities after top-k: they are not renormalised again, as only proportions count.
    """
    check_settings(temperature, top_k, top_p, min_p)
    scaled = logits.float()
    if temperature != 1:
        scaled = scaled / temperature
    ids = None
    if 0 < top_k < logits.shape[-1]:
        scaled, ids = scaled.topk(top_k)  # likeliest first
    elif top_p < 1:
        scaled, ids = scaled.sort(-1, descending=True)
    weights = scaled.softmax(-1)
    if top_p < 1:
        reached = weights.cumsum(-1)[..., :-1] >= top_p
        weights[..., 1:].masked_fill_(reached, 0)  # the token that crosses top_p stays, those after it go
    if min_p > 0:
        weights = weights * (weights >= min_p * weights.amax(-1, keepdim=True))
    return weights, ids


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """weights (..., k), uniform (...) -> first index of positive weight whose cumulative sum exceeds uniform times the total.

    ``uniform`` can be 0, and can be the largest number below 1. In a parallel scan, rounding can lower the cumulative sum
    at an index of weight 0. So indices of weight 0 are masked, and the total is the largest sum of the other indices.
    """
    sums = weights.cumsum(-1).masked_fill_(weights <= 0, -1)
    total = sums.amax(-1, keepdim=True)
    aim = torch.minimum(uniform.to(sums)[..., None] * total, total.nextafter(torch.zeros_like(total)))
    first = (sums > aim).to(torch.uint8).argmax(-1)
    return torch.where(total[..., 0] > 0, first, -1)


def check_settings(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    """Refuse bad settings, which come from configs and command lines."""
    if not 0 < temperature < float('inf'):
        raise ConfigError(f'temperature is {temperature}, and must be above 0', "Use type='Greedy' for the likeliest token.")
    if top_k < 0 or top_k != int(top_k):
        raise ConfigError(f'top_k is {top_k}: a number of tokens is needed', 'Set top_k=0 to keep all tokens.')
    if not 0 < top_p <= 1:
        raise ConfigError(f'top_p is {top_p}, and must be above 0 and at most 1', 'Set top_p=1.0 to keep all tokens.')
    if not 0 <= min_p <= 1:
        raise ConfigError(f'min_p is {min_p}, and must be from 0 to 1', 'Set min_p=0.0 to keep all tokens.')
