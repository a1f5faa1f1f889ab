"""CVQ-VAE's contrastive loss: it pulls a code to its nearest features and away from the farther half of all features."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vq.core.errors import ConfigError
from vq.nn.precision import exact_matmul, no_autocast
from vq.quantizers.search import Metric
from vq.quantizers.soft_assignment import default_budget, row_tiles


@dataclasses.dataclass
class ContrastiveLoss:
    """-E_k log(exp(s+_k / t) / (exp(s+_k / t) + sum over i in the far half of exp(s_ik / t))).

    (Zheng and Vedaldi 2023, CVQ-VAE, eq. 6.) s_ik is the similarity of feature i and code k: -|x_i - c_k|^2, or the cosine.
    s+_k is the mean of the max(1, N // K) largest over the N features, the far half are the N // 2 smallest. Only codes
    get gradients, features do not. N counts the features of one forward on one rank, so gradient accumulation does not
    give the loss of one large batch.

    Similarities are sorted for a few codes at a time and recomputed in backward: memory is a budget, not N x K.

    - ``weight``: the weight of the loss 'contrastive'.
    """

    weight: float = 1.0
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f'the temperature of the contrastive loss is {self.temperature}', 'Give a number above 0.')

    def of(self, features: Tensor, codes: Tensor, metric: Metric, budget_bytes: int | None = None) -> Tensor:
        """features (N, C), codes (K, C) -> ()."""
        features = features.detach()
        if not len(features):
            return codes.sum() * 0
        if metric == 'cosine':
            features, codes = F.normalize(features, dim=1), F.normalize(codes, dim=1)
            by_code, by_feature = torch.zeros_like(codes[:, 0]), torch.zeros_like(features[:, 0])
        else:
            centre = codes.detach().mean(0)  # subtracting it changes no distance, and makes the products more precise
            features, codes = features - centre, codes - centre
            by_code, by_feature = -codes.square().sum(1), -features.square().sum(1)
            codes = codes * 2
        budget_bytes = default_budget(features.device) if budget_bytes is None else budget_bytes
        sharp = 1 / self.temperature
        loss: Tensor = _Contrast.apply(codes * sharp, by_code * sharp, features, by_feature * sharp, budget_bytes)  # type: ignore[no-untyped-call]
        return loss


def _sorted_tile(
    codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, positives: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(s_ik / t sorted in rising order over i (k, N), the indices i (k, N), the logits (s+, far half) / t (k, 1 + N // 2))."""
    scores = torch.addmm(by_feature, codes, features.t()) + by_code[:, None]
    ordered, index = scores.sort(dim=1)
    nearest = ordered[:, -positives:].mean(1, keepdim=True)
    return ordered, index, torch.cat([nearest, ordered[:, : scores.shape[1] // 2]], dim=1)


def _positives(features: Tensor, codes: Tensor) -> int:
    return max(1, len(features) // len(codes))


def _forward(codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, budget_bytes: int) -> Tensor:
    with torch.no_grad(), no_autocast(codes.device), exact_matmul():
        positives = _positives(features, codes)
        total = codes.new_zeros(())
        for tile in row_tiles(len(codes), len(features), budget_bytes):
            _, _, logits = _sorted_tile(codes[tile], by_code[tile], features, by_feature, positives)
            total += F.softplus(torch.logsumexp(logits[:, 1:], dim=1) - logits[:, 0]).sum()
        return total / len(codes)


def _backward(
    codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, outer: Tensor, budget_bytes: int
) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), no_autocast(codes.device), exact_matmul():
        positives = _positives(features, codes)
        at_codes, at_offset = torch.empty_like(codes), torch.empty_like(by_code)
        for tile in row_tiles(len(codes), len(features), budget_bytes):
            ordered, index, logits = _sorted_tile(codes[tile], by_code[tile], features, by_feature, positives)
            p = torch.softmax(logits, dim=1)[:, 1:]  # of the far half
            by_score = ordered.zero_()
            by_score[:, : p.shape[1]] = p
            by_score[:, -positives:] -= p.sum(1, keepdim=True) / positives
            by_score = torch.empty_like(by_score).scatter_(1, index, by_score) * (outer / len(codes))
            at_codes[tile] = by_score @ features
            at_offset[tile] = by_score.sum(1)
        return at_codes, at_offset


# custom operators, so that torch.compile does not trace into them
_forward_operator = torch.library.custom_op('vq::contrast', _forward, mutates_args=())
_backward_operator = torch.library.custom_op('vq::contrast_backward', _backward, mutates_args=())


@_forward_operator.register_fake
def _(codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, budget_bytes: int) -> Tensor:
    return codes.new_empty(())


@_backward_operator.register_fake
def _(
    codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, outer: Tensor, budget_bytes: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(codes), torch.empty_like(by_code)


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: Tensor, by_code: Tensor, features: Tensor, by_feature: Tensor, budget_bytes: int) -> Tensor:
        ctx.save_for_backward(codes, by_code, features, by_feature)
        ctx.budget_bytes = budget_bytes
        function = _forward_operator if torch.compiler.is_compiling() else _forward
        loss: Tensor = function(codes, by_code, features, by_feature, budget_bytes)
        return loss

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        function = _backward_operator if torch.compiler.is_compiling() else _backward
        codes, by_code, features, by_feature = ctx.saved_tensors
        return (*function(codes, by_code, features, by_feature, outer[0], ctx.budget_bytes), None, None, None)
