"""EVA-CLIP's image encoder, EVA02-CLIP-B/16 (Sun et al. 2023; Fang et al. 2023), by timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vq.nn.positions import resize_positions
from vq.registries import VQTeacherRegistry
from vq.teachers.clip import CLIPTeacher
from vq.teachers.keys.eva import eva_keys
from vq.teachers.transformer import Tokens, TransformerTeacher

FILE = 'eva/EVA02_CLIP_B_psz16_s8B.pt'


@VQTeacherRegistry.register_()
class EVACLIPTeacher(TransformerTeacher):
    """The pooled vector is the projected class token, ``dimension`` numbers, not normalized. Layer 'projected': the patches
    after the final norm and the same projection.

    A vision transformer with SwiGLU, norms inside of attention and MLP, absolute and rotary positions. The rotary angles of a
    grid of h x w cells are those of ``rotary_cells`` x ``rotary_cells`` cells, stretched over it. The absolute positions are
    resized bicubically without antialiasing, as EVA's authors do (``resize_evaclip_pos_embed``).

    The file is the authors' own, or that of open_clip's EVA02-B-16. Needs the package timm.
    """

    MEAN, STD = CLIPTeacher.MEAN, CLIPTeacher.STD
    named = ('projected',)

    def __init__(
        self,
        dimension: int = 512,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        rotary_cells: int = 16,
        file: str = FILE,
    ) -> None:
        self.rotary_cells = rotary_cells
        super().__init__(dimension, width, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from timm.models.eva import Eva

        return Eva(
            img_size=self.image_size,
            patch_size=self.patch_size,
            num_classes=self.dimension,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=heads,
            mlp_ratio=4 * 2 / 3,
            qkv_fused=False,
            swiglu_mlp=True,
            scale_mlp=True,
            scale_attn_inner=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(self.rotary_cells, self.rotary_cells),
            dynamic_img_size=True,
            global_pool='token',
        )

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.patch_embed.proj(x)  # (B, C, h, w)
        height, width = patches.shape[-2:]
        positions = resize_positions(network.pos_embed, height, width, offset=0)
        first = network.cls_token.expand(len(x), -1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + positions
        angles = network.rope.get_embed(shape=[height, width])
        found: dict[int, Tensor] = {}
        for number, block in enumerate(network.blocks):
            tokens = block(tokens, rope=angles)
            if number in blocks:
                found[number] = tokens
        last = network.norm(tokens)
        return Tokens(found, last, network.head(last[:, 0]))

    def select(self, name: str, tokens: Tokens) -> Tensor:
        projected: Tensor = self.network.head(tokens.last)  # type: ignore[operator]
        return projected

    def channels(self, layers: Any = 'last') -> int:
        return self.dimension if layers == 'projected' else super().channels(layers)

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return eva_keys(published)
