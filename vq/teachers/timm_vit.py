"""Plain vision transformers, by timm: tokens are a class token, registers if there are any, and patches in raster order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vq.nn.positions import square_side
from vq.teachers.transformer import Tokens, TransformerTeacher


class TimmTeacher(TransformerTeacher):
    """The pooled vector is the class token after the final norm, ``dimension`` numbers.

    Class token and patches have position embeddings, registers have none. Position embeddings keep the grid of the file, and
    ``resized`` makes those of another number of patches.
    """

    MEAN = (0.485, 0.456, 0.406)  # of ImageNet
    STD = (0.229, 0.224, 0.225)
    layer_scale: ClassVar[float | None] = None  # its initial value; None: the blocks have no layer scale
    unused: ClassVar[tuple[str, ...]] = ()  # names in the file that serve training only

    def make(self, heads: int) -> nn.Module:
        from timm.models.vision_transformer import VisionTransformer

        registers = self.prefix - 1
        network = VisionTransformer(
            img_size=self.image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=heads,
            init_values=self.layer_scale,
            reg_tokens=registers,
            num_classes=0,
        )
        positions = network.pos_embed
        assert positions is not None
        network.pos_embed = nn.Parameter(positions.detach()[:, registers:].clone())
        return network

    def resized(self, positions: Tensor, height: int, width: int) -> Tensor:
        """Position embeddings (1, 1 + n * n, D) -> (1, 1 + height * width, D), as the family's authors do."""
        raise NotImplementedError

    def translated(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the published file by timm's names. Most families have these names already."""
        return {name: value for name, value in published.items() if name not in self.unused}

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.patch_embed.proj(x)  # (B, C, h, w)
        positions = self.resized(network.pos_embed, *patches.shape[-2:])
        tokens = torch.cat([network.cls_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1) + positions
        if network.reg_token is not None:
            tokens = torch.cat([tokens[:, :1], network.reg_token.expand(len(x), -1, -1), tokens[:, 1:]], 1)
        found: dict[int, Tensor] = {}
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            if number in blocks:
                found[number] = tokens
        last = network.norm(tokens)
        return Tokens(found, last, last[:, 0])

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Also gives the network positions of the file's grid."""
        given = self.translated(published)
        positions, own = given.get('pos_embed'), self.network.pos_embed
        assert isinstance(own, Tensor)
        if positions is not None and positions.ndim == 3 and positions.shape[2] == own.shape[2] and square_side(positions):
            self.network.pos_embed = nn.Parameter(own.new_empty(positions.shape), requires_grad=False)
        return given
