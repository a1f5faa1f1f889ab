"""Masked generation by MAGE: an encoder that most hidden tokens never enter, and a decoder that fills them in."""

from __future__ import annotations

import math

from torch import Tensor

from vq.core.conditions import Condition
from vq.core.errors import ConfigError
from vq.core.records import Predicted
from vq.generators.iterative import IterativeGenerator, Order
from vq.generators.networks.mage import MAGENetwork
from vq.registries import VQGeneratorRegistry
from vq.sampling.masked import MaskSchedule, hide_first, truncated_normal_mask_ratio


@VQGeneratorRegistry.register_()
class MAGEGenerator(IterativeGenerator):
    """p(hidden tokens | visible tokens, category), each hidden token by itself: -sum_(i hidden) log p(x_i | x_visible, c).

    (Li et al. 2023, MAGE, without its contrastive loss, and with the categories and the guidance of ``MaskedGenerator``.)

    Training. A share r of the tokens of every image is hidden, r ~ N(mask_mean, mask_std^2) truncated to [mask_min, 1]. Of the
    hidden tokens, ceil(mask_min L) are dropped: the encoder reads the other L - ceil(mask_min L), as many for every image
    (the authors draw one r for a batch; here each image has its own). The decoder sees all L positions. Label smoothing (0.1
    in the paper) belongs to the loss, so to the task. In evaluation no category is dropped, and the tokens of an image
    determine which of them are hidden and which of these are dropped.

    Drawing: see ``IterativeGenerator``. The encoder reads all positions, hidden or not, as the authors' does.

    ``decoder_dim`` and ``decoder_heads``: None for those of the encoder.
    """

    network: MAGENetwork

    def __init__(
        self,
        cells: tuple[int, ...],
        codebooks: tuple[int, ...],
        classes: int,
        dim: int,
        depth: int,
        heads: int,
        decoder_depth: int = 8,
        decoder_dim: int | None = None,
        decoder_heads: int | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        label_drop: float = 0.1,
        mask_mean: float = 0.55,
        mask_std: float = 0.25,
        mask_min: float = 0.5,
        steps: int = 12,
        schedule: MaskSchedule = 'cosine',
        order: Order = 'confidence',
        choice_temperature: float = 4.5,
    ) -> None:
        super().__init__(cells, codebooks, classes, label_drop, steps, schedule, order, choice_temperature)
        if not 0 <= mask_min < 1:
            raise ConfigError(f'mask_min is {mask_min}', 'Choose a share of at least 0 and below 1; 0.5 is usual.')
        if mask_std <= 0:
            raise ConfigError(f'mask_std is {mask_std}', 'Choose a deviation above 0; 0.25 is usual.')
        self.mask_mean, self.mask_std, self.mask_min = mask_mean, mask_std, mask_min
        # rounding can put a product that is a whole number slightly above it
        self.dropped_count = math.ceil(mask_min * self.length - 1e-9)
        self.network = MAGENetwork(
            self.tokens.cells,
            self.tokens.codebook_size,
            classes,
            dim,
            depth,
            heads,
            decoder_dim or dim,
            decoder_depth,
            decoder_heads or heads,
            mlp_ratio,
            dropout,
        )

    def forward(self, tokens: Tensor, condition: Condition | None) -> Predicted:
        flat = tokens.flatten(1)  # (B, L)
        drawn, category, dropped = self.prepare(flat, condition)
        ratio = truncated_normal_mask_ratio(drawn[:, 0], self.mask_mean, self.mask_std, self.mask_min)
        order = drawn[:, 1:].argsort(dim=1, stable=True)
        hidden = hide_first(order, ratio, max(self.dropped_count, 1))
        kept = order[:, self.dropped_count :]  # the first to be hidden are the first to be dropped
        return Predicted(self.network(flat, hidden, category, dropped, kept), flat, hidden)
