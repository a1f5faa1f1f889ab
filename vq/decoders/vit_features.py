"""A shallow vision transformer from code vectors to the features of a teacher: that of VQ-KD."""

from __future__ import annotations

from vq.interfaces import FeatureDecoder
from vq.nn.vit_map import ViTMap
from vq.registries import VQFeatureDecoderRegistry


@VQFeatureDecoderRegistry.register_()
class ViTFeatureDecoder(ViTMap, FeatureDecoder):
    """code vectors (B, in_channels, h, w) -> features (B, out_channels, h, w), a code is a patch.

    The defaults are the decoder of the published VQ-KD tokenizers (Peng et al. 2022, BEiT v2): one block of the base size. The
    other published depth is 3.

    - ``out_channels``: the channels of the teacher's patch map.
    - ``grid``: positions are learned for ``grid`` x ``grid`` codes. For other grids they are resized.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dim: int = 768,
        depth: int = 1,
        heads: int = 12,
        grid: int = 14,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__(in_channels, out_channels, dim, depth, heads, 1, grid, mlp_ratio)
