"""The entropy loss: every feature should be sure of its code, and all codes together should be used alike."""

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

    (Yu et al. 2023, MAGVIT-v2; MaskGIT's codebook before it.) IBQ has x . c_k in place of the distance. The mean
    is over the features of one forward, so micro-batches are not one large batch to it; ``synchronized`` takes it over
    all ranks, with one all-reduce of K numbers in every training forward.

    - ``weight``: of the raw loss 'entropy'.
    - ``target``: 'soft', or 'argmax' (one-hot at the largest p, straight-through, in both terms).
    - ``floor``: what keeps logarithms finite. 'add': log p is that of the softmax, and the mean's is log(p + 1e-5) (MaskGIT,
      LlamaGen, Open-MAGVIT2, IBQ); 'clamp': log max(p, 1e-5) in both terms (vector-quantize-pytorch).
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
                f"an entropy with target '{self.target}' and floor '{self.floor}'",
                "target is 'soft' or 'argmax', floor is 'add' or 'clamp'.",
            )
        if self.target == 'argmax' and self.floor == 'clamp':
            raise ConfigError("no entropy has target 'argmax' and floor 'clamp'", "Give floor='add'.")

    def of_distances(self, features: Tensor, codes: Tensor, budget_bytes: int | None = None) -> Tensor:
        """features (N, C), codes (K, C): affinities are -|x - c|^2."""
        centre = codes.detach().mean(0)  # moves no distance; the products below keep their digits
        features, codes = features - centre, codes - centre
        # -|x|^2 is the same for all codes, so the softmax does not see it
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
        """features (N, d) and the 2^d codes {-length, length}^d; affinities are -|x - c|^2. No codes are made.

        ``group``: H(E p) is taken over groups of so many bits and summed, as if groups were independent: an upper bound
        of it that costs 2^group per group (Zhao et al. 2024). Without, it is exact and costs 2^d.
        """
        if self.target == 'argmax':
            raise ConfigError("signs have no entropy with target 'argmax'", "Give target='soft'.")
        logits = features * (4 * length / self.temperature)  # of each bit: (|x + c|^2 - |x - c|^2) / temperature
        certainty = clamped_entropy(logits, budget_bytes) if self.floor == 'clamp' else bit_entropy(logits)
        diversity = torch.stack(
            [self._of_mean(mean_pattern(part, budget_bytes)) for part in torch.split(logits, group or logits.shape[1], dim=1)]
        ).sum()
        return certainty - self.diversity * diversity

    def _of_mean(self, assignment: Tensor) -> Tensor:
        """The entropy of the mean assignment (K,)."""
        if self.synchronized:
            # the value is that of all ranks, the gradient passes as it is: averaged over ranks it is that of the whole
            mean = collectives.all_reduce(assignment.detach()) / collectives.size()
            assignment = assignment + (mean - assignment.detach())
        logarithm = torch.log(assignment + FLOOR) if self.floor == 'add' else torch.log(assignment.clamp_min(FLOOR))
        return -(assignment * logarithm).sum()
