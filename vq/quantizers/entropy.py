"""The entropy loss: the assignment of each feature should be certain, and all codes should be used equally."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from vq.core import collectives
from vq.core.errors import ConfigError
from vq.quantizers.bit_assignment import bit_entropy, clamped_entropy, mean_pattern
from vq.quantizers.soft_assignment import FLOOR, soft_assignment


@dataclasses.dataclass
class EntropyLoss:
    """E_x H(p(x)) - diversity H(E_x p(x)),  p_k(x) = softmax over k of -|x - c_k|^2 / temperature.

    (Yu et al. 2023, MAGVIT-v2; first in MaskGIT's codebook.) IBQ uses x . c_k in place of -|x - c_k|^2. E_x is the mean
    over the features of one forward, so gradient accumulation does not give the loss of one large batch. ``synchronized``
    takes E_x p(x) over all ranks, with one all-reduce of K numbers in every training forward.

    - ``weight``: the weight of the loss 'entropy'.
    - ``target``: 'soft', or 'argmax' (one-hot at the largest p, straight-through, in both terms).
    - ``floor``: how logarithms stay finite. 'add': log_softmax in the first term, log(E_x p + 1e-5) in the second (MaskGIT,
      LlamaGen, Open-MAGVIT2, IBQ). 'clamp': log max(p, 1e-5) in both terms (vector-quantize-pytorch).
    """

    weight: float = 0.1
    temperature: float = 0.01
    diversity: float = 1.0
    target: Literal['soft', 'argmax'] = 'soft'
    floor: Literal['add', 'clamp'] = 'add'
    synchronized: bool = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f'the temperature of the entropy is {self.temperature}', 'Give a number above 0.')
        if self.target not in ('soft', 'argmax') or self.floor not in ('add', 'clamp'):
            raise ConfigError(
                f"the entropy loss has target '{self.target}' and floor '{self.floor}'",
                "target is 'soft' or 'argmax', floor is 'add' or 'clamp'.",
            )
        if self.target == 'argmax' and self.floor == 'clamp':
            raise ConfigError("the entropy loss does not support target 'argmax' with floor 'clamp'", "Give floor='add'.")

    def of_distances(self, features: Tensor, codes: Tensor, budget_bytes: int | None = None) -> Tensor:
        """features (N, C), codes (K, C): affinities are -|x - c|^2."""
        centre = codes.detach().mean(0)  # subtracting it changes no distance, and makes the products more precise
        features, codes = features - centre, codes - centre
        # -|x|^2 is the same for all codes and cancels in the softmax
        return self._of_logits(features * 2, codes, -codes.square().sum(1), budget_bytes)

    def of_products(self, features: Tensor, codes: Tensor, budget_bytes: int | None = None) -> Tensor:
        """features (N, C), codes (K, C): affinities are x . c."""
        return self._of_logits(features, codes, torch.zeros_like(codes[:, 0]), budget_bytes)

    def _of_logits(self, features: Tensor, codes: Tensor, offset: Tensor, budget_bytes: int | None) -> Tensor:
        certainty, assignment = soft_assignment(
            features / self.temperature,
            codes,
            offset / self.temperature,
            argmax=self.target == 'argmax',
            clamp=self.floor == 'clamp',
            budget_bytes=budget_bytes,
        )
        return certainty - self.diversity * self._of_mean(assignment)

    def of_signs(self, features: Tensor, length: float, group: int | None = None, budget_bytes: int | None = None) -> Tensor:
        """features (N, d) and the 2^d codes {-length, length}^d; affinities are -|x - c|^2. No table of codes is built.

        ``group``: bits per group. H(E p) is the sum of the entropies of the groups, as if groups were independent: an
        upper bound that costs 2^group per group (Zhao et al. 2024). With None, H(E p) is exact and costs 2^d.
        """
        if self.target == 'argmax':
            raise ConfigError("the entropy over signs does not support target 'argmax'", "Give target='soft'.")
        logits = features * (4 * length / self.temperature)  # per bit: (|x + c|^2 - |x - c|^2) / temperature
        certainty = clamped_entropy(logits, budget_bytes) if self.floor == 'clamp' else bit_entropy(logits)
        diversity = torch.stack(
            [self._of_mean(mean_pattern(part, budget_bytes)) for part in torch.split(logits, group or logits.shape[1], dim=1)]
        ).sum()
        return certainty - self.diversity * diversity

    def _of_mean(self, assignment: Tensor) -> Tensor:
        """The entropy of the mean assignment (K,)."""
        if self.synchronized:
            # the value is the mean over ranks; the gradient is local, and its average over ranks is that of the mean
            mean = collectives.all_reduce(assignment.detach()) / collectives.size()
            assignment = assignment + (mean - assignment.detach())
        logarithm = torch.log(assignment + FLOOR) if self.floor == 'add' else torch.log(assignment.clamp_min(FLOOR))
        return -(assignment * logarithm).sum()
