"""Masked generation (MaskGIT): hidden tokens are predicted all at once, by a network that sees every position."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Predicted
from vq.generators.iterative import IterativeGenerator, Order
from vq.generators.networks.bidirectional import BidirectionalNetwork
from vq.registries import VQGeneratorRegistry
from vq.sampling.masked import SCHEDULES, MaskSchedule, hidden_share, hide, truncated_normal_mask_ratio

MaskRatio = Literal['cosine', 'linear', 'square', 'arccos', 'mage']


@VQGeneratorRegistry.register_()
class MaskedGenerator(IterativeGenerator):
    """p(hidden tokens | visible tokens, category), each hidden token by itself: -sum_(i hidden) log p(x_i | x_visible, c).

    (Chang et al. 2022, MaskGIT; the order of Besnier et al. 2025.)

    Training. A share r of the tokens of every image is hidden: ``mask_ratio`` is a schedule gamma, r = gamma(u), or 'mage', a
    truncated normal (Li et al. 2023; ``MAGEGenerator`` has the network of that paper too). A share ``label_drop`` of the
    categories is dropped, for guidance. Label smoothing (0.1 in the paper) belongs to the loss, so to the task. In evaluation
    no category is dropped, and the tokens of an image determine which of them are hidden.

    Drawing: see ``IterativeGenerator``.
    """

    network: BidirectionalNetwork

    def __init__(
        self,
        cells: tuple[int, ...],
        codebooks: tuple[int, ...],
        classes: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        positions: Literal['flat', 'grid'] = 'flat',
        tied: bool = True,
        label_drop: float = 0.1,
        mask_ratio: MaskRatio = 'cosine',
        steps: int = 12,
        schedule: MaskSchedule = 'cosine',
        order: Order = 'confidence',
        choice_temperature: float = 4.5,
    ) -> None:
        super().__init__(cells, codebooks, classes, label_drop, steps, schedule, order, choice_temperature)
        if mask_ratio not in (*SCHEDULES, 'mage'):
            raise ConfigError(f"mask_ratio is '{mask_ratio}'", f"Write 'mage' or one of {', '.join(SCHEDULES)}.")
        self.mask_ratio: MaskRatio = mask_ratio
        self.network = BidirectionalNetwork(
            self.tokens.cells, self.tokens.codebook_size, classes, dim, depth, heads, mlp_ratio, dropout, positions, tied
        )

    def forward(self, tokens: Tensor, condition: Condition | None) -> Predicted:
        flat = tokens.flatten(1)  # (B, L)
        drawn, category, dropped = self.prepare(flat, condition)
        hidden = hide(self._ratio(drawn[:, 0]), drawn[:, 1:])
        return Predicted(self.network(flat, hidden, category, dropped), flat, hidden)

    def _ratio(self, uniform: Tensor) -> Tensor:
        if self.mask_ratio == 'mage':
            return truncated_normal_mask_ratio(uniform)
        return hidden_share(uniform, self.mask_ratio)
