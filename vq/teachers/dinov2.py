"""DINOv2's vision transformer (Oquab et al. 2024), by timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.nn.pillow_resize import resize_like_pillow
from vq.registries import VQFeatureNetworkRegistry, VQTeacherRegistry
from vq.teachers.transformer import TeacherNetwork, Tokens, TransformerTeacher

FILE = 'dinov2/dinov2_vitl14_pretrain.pth'
OFFSET = 0.1  # added to the number of patches when position embeddings are resized, as in the published network
UNUSED = ('mask_token',)  # for training only


@VQTeacherRegistry.register_()
class DINOv2Teacher(TransformerTeacher):
    """The pooled vector is the class token after the final norm, ``dimension`` numbers.

    The defaults are ViT-L/14. Position embeddings of the published file, for 37 x 37 patches, are kept, and resized for every
    other number of patches as DINOv2's authors do: ``resize_positions``. Needs the package timm.
    """

    MEAN = (0.485, 0.456, 0.406)  # of ImageNet
    STD = (0.229, 0.224, 0.225)

    def __init__(
        self,
        dimension: int = 1024,
        depth: int = 24,
        heads: int = 16,
        image_size: int = 224,
        patch_size: int = 14,
        file: str = FILE,
    ) -> None:
        super().__init__(dimension, dimension, depth, heads, image_size, patch_size, file)

    def make(self, heads: int) -> nn.Module:
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            img_size=self.image_size,
            patch_size=self.patch_size,
            embed_dim=self.width,
            depth=self.depth,
            num_heads=heads,
            init_values=1e-5,
            num_classes=0,
        )

    def run(self, x: Tensor, blocks: Sequence[int] = ()) -> Tokens:
        network: Any = self.network
        patches = network.patch_embed.proj(x)  # (B, C, h, w)
        positions = resize_positions(network.pos_embed, *patches.shape[-2:])
        tokens = torch.cat([network.cls_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1) + positions
        found: dict[int, Tensor] = {}
        for number, block in enumerate(network.blocks):
            tokens = block(tokens)
            if number in blocks:
                found[number] = tokens
        last = network.norm(tokens)
        return Tokens(found, last, last[:, 0])

    def renamed(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Also gives the network positions of the file's grid."""
        given = {name: value for name, value in published.items() if name not in UNUSED}
        positions, own = given.get('pos_embed'), self.network.pos_embed
        assert isinstance(own, Tensor)
        if positions is not None and positions.ndim == 3 and positions.shape[2] == own.shape[2] and _side(positions):
            self.network.pos_embed = nn.Parameter(own.new_empty(positions.shape), requires_grad=False)
        return given


@VQFeatureNetworkRegistry.register_()
class DINOv2(TeacherNetwork, DINOv2Teacher):
    """The network of FD-DINOv2 (Stein et al. 2023). There are no logits.

    Both sides of images are resized to ``image_size`` as Pillow does (bicubic, antialiased, 8 bits; an image that is not
    square is squeezed, not cropped). Images are normalised with ImageNet's mean and standard deviation. The defaults are the
    network of FD-DINOv2's definition.
    """

    @property
    def description(self) -> dict[str, str]:
        size = self.image_size
        return {
            'network': f'DINOv2 ({self.dimension} features, {self.depth} layers)',
            'preprocessing': f'to {size} x {size} bicubic antialiased, 8 bits; mean and deviation of ImageNet',
            'precision': 'fp32',
        }

    def prepare(self, image: Tensor) -> Tensor:
        return self.normalise(resize_like_pillow(image, self.image_size, self.image_size))


def resize_positions(positions: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings (1, 1 + n * n, D), the class token's first -> (1, 1 + height * width, D).

    Bicubic without antialiasing, by the factor (height + 0.1) / n and not height / n, as in published figures.
    """
    side = _side(positions)
    if (side, side) == (height, width):
        return positions
    first, rest = positions[:, :1].float(), positions[:, 1:].float()
    plane = rest.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = (height + OFFSET) / side, (width + OFFSET) / side
    plane = F.interpolate(plane, scale_factor=factors, mode='bicubic')  # (1, D, height, width)
    return torch.cat([first, plane.flatten(2).transpose(1, 2)], 1)


def _side(positions: Tensor) -> int:
    """n of positions for n * n patches and a class token; 0 if they are not for a square."""
    side = round((positions.shape[1] - 1) ** 0.5)
    return side if side**2 + 1 == positions.shape[1] else 0
