"""A vision transformer as an encoder: that of VQ-KD."""

from __future__ import annotations

from torch import Tensor

from vq.core.errors import ConfigError
from vq.interfaces import Encoder
from vq.nn.precision import no_autocast
from vq.nn.vit_map import ViTMap
from vq.registries import VQEncoderRegistry


@VQEncoderRegistry.register_()
class ViTEncoder(ViTMap, Encoder):
    """image (B, 3, H, W) -> features (B, out_channels, H / patch, W / patch).

    The defaults are the encoder of the published VQ-KD tokenizers (Peng et al. 2022, BEiT v2): base size, 224 pixels, 14 x 14
    patches, features as wide as the codes. The last two layers compute in fp32, also under autocast, as BEiT v2's do: their
    output is what codes are searched for.

    - ``image_size``: pixels a side for which positions are learned. For other sizes, also not square, they are resized.
    """

    def __init__(
        self,
        out_channels: int = 32,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        patch: int = 16,
        image_size: int = 224,
        mlp_ratio: float = 4.0,
    ) -> None:
        if patch < 1 or image_size % patch:
            raise ConfigError(
                f'image_size is {image_size} and patch is {patch}', 'Give an image_size that is a multiple of patch.'
            )
        super().__init__(3, out_channels, dim, depth, heads, patch, image_size // patch, mlp_ratio)
        self.downsampling = patch

    def head(self, features: Tensor) -> Tensor:
        with no_autocast(features.device):
            return super().head(features.to(self.task_in.weight.dtype))
