"""BEiT v2's vision transformer (Peng et al. 2022), trained to predict visual tokens of masked patches, by timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.core.errors import ConfigError
from vq.registries import VQTeacherRegistry
from vq.teachers.relative_positions import position_index, resize_bias
from vq.teachers.transformer import Tokens, TransformerTeacher

FILE = 'beitv2/beitv2_base_patch16_224_pt1k.pth'
UNUSED = ('mask_token', 'lm_head.', 'cls_pt_layers.', 'cls_pt_norm.')  # for training only
INDEX = 'relative_position_index'  # a buffer, which the size of the image determines


@VQTeacherRegistry.register_()
class BEiT2Teacher(TransformerTeacher):
    """The pooled vector is the class token after the final norm. The defaults are ViT-B/16, before any fine-tuning.

    Positions are biases of the attention, shared by all blocks. For images of another size they are interpolated over
    distances that grow geometrically, as BEiT's authors do for fine-tuning: see ``relative_positions``. Needs the package
    timm.
    """

    MEAN = (0.485, 0.456, 0.406)  # of ImageNet
    STD = (0.229, 0.224, 0.225)

    def __init__(
        self,
        dimension: int = 768,
        depth: int = 12,
        heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        file: str = FILE,
    ) -> None:
        if image_size < 3 * patch_size:
            raise ConfigError(f'BEiT2Teacher with images of {image_size} pixels', 'Give three patches a side or more.')
        super().__init__(dimension, dimension, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from timm.models.beit import Beit

        return Beit(
            img_size=self.image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=heads,
            init_values=0.1,
            use_abs_pos_emb=False,
            use_shared_rel_pos_bias=True,
            global_pool='token',
            num_classes=0,
        )

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.patch_embed.proj(x)  # (B, C, h, w)
        bias = self._bias(*patches.shape[-2:])
        tokens = torch.cat([network.cls_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        found: dict[int, Tensor] = {}
        for number, block in enumerate(network.blocks):
            tokens = block(tokens, shared_rel_pos_bias=bias)
            if number in blocks:
                found[number] = tokens
        last = network.norm(tokens)
        return Tokens(found, last, last[:, 0])

    def _bias(self, height: int, width: int) -> Tensor:
        """What attention adds to its logits (heads, 1 + h * w, 1 + h * w)."""
        positions: Any = self.network.rel_pos_bias
        side = self.image_size // self.patch_size
        if (height, width) == (side, side):
            bias: Tensor = positions()
            return bias
        table = resize_bias(positions.relative_position_bias_table, (side, side), (height, width))
        index = position_index(height, width, table.device)
        return table[index].permute(2, 0, 1)

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in published.items() if not name.startswith(UNUSED) and not name.endswith(INDEX)}
