"""The image encoders of SigLIP (Zhai et al. 2023) and SigLIP2 (Tschannen et al. 2025), by transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vq.registries import VQTeacherRegistry
from vq.teachers.keys.siglip import siglip_keys
from vq.teachers.transformer import Tokens, TransformerTeacher

FILE = 'siglip/siglip-base-patch16-224.safetensors'


@VQTeacherRegistry.register_()
class SigLIPTeacher(TransformerTeacher):
    """All tokens are patches: there is no class token. The pooled vector is that of the attention head, ``dimension`` numbers,
    not normalized: a learned query attends to the patches after the final norm. There is no projection.

    - ``hidden``: channels inside the MLPs; None: 4 ``dimension``. The shape-optimized 400M networks have 4304.

    The defaults are B/16 at 224 pixels; SigLIP2 has the same network at fixed sizes (not NaFlex). Positions are resized to
    images of another size bilinearly with aligned corners, as in the authors' big_vision (``resample_posemb``); transformers
    resizes them bicubically. The file has the parameter names of transformers, with or without the text half. Needs the
    package transformers.
    """

    MEAN = (0.5, 0.5, 0.5)
    STD = (0.5, 0.5, 0.5)
    prefix = 0

    def __init__(
        self,
        dimension: int = 768,
        depth: int = 12,
        heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        hidden: int | None = None,
        file: str = FILE,
    ) -> None:
        self.hidden = hidden or 4 * dimension
        super().__init__(dimension, dimension, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from transformers import SiglipVisionConfig, SiglipVisionModel

        model = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=self.width,
                intermediate_size=self.hidden,
                num_hidden_layers=self.depth,
                num_attention_heads=heads,
                image_size=self.image_size,
                patch_size=self.patch_size,
            )
        )
        network: nn.Module = getattr(model, 'vision_model', model)  # older versions have it inside of another module
        return network

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.embeddings.patch_embedding(x)  # (B, C, h, w)
        positions = stretched(network.embeddings.position_embedding.weight, *patches.shape[-2:])
        tokens = patches.flatten(2).transpose(1, 2) + positions
        found: dict[int, Tensor] = {}
        for number, layer in enumerate(network.encoder.layers):
            tokens = layer(tokens, None)
            if number in blocks:
                found[number] = tokens
        last = network.post_layernorm(tokens)
        return Tokens(found, last, network.head(last))

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return siglip_keys(published)


def stretched(positions: Tensor, height: int, width: int) -> Tensor:
    """(n * n, C) -> (height * width, C), fp32: bilinear, with the outermost cells of both grids at the same places."""
    side = round(len(positions) ** 0.5)
    plane = positions.float().t().reshape(1, -1, side, side)
    if (side, side) != (height, width):
        plane = F.interpolate(plane, (height, width), mode='bilinear', align_corners=True)
    return plane.flatten(2)[0].t()
