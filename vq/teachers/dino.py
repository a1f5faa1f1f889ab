"""DINO's vision transformers (Caron et al. 2021), by timm."""

from __future__ import annotations

from torch import Tensor

from vq.nn.positions import resize_positions
from vq.registries import VQTeacherRegistry
from vq.teachers.timm_vit import TimmTeacher

FILE = 'dino/dino_vitbase16_pretrain.pth'


@VQTeacherRegistry.register_()
class DINOTeacher(TimmTeacher):
    """The defaults are ViT-B/16; published are ViT-S and ViT-B with patches of 16 and of 8 pixels.

    Position embeddings are resized bicubically, by the factor (h + 0.1) / n, as by ``interpolate_pos_encoding`` of DINO's
    authors. Needs the package timm.
    """

    def __init__(
        self,
        dimension: int = 768,
        depth: int = 12,
        heads: int = 12,
        image_size: int = 224,
        patch_size: int = 16,
        file: str = FILE,
    ) -> None:
        super().__init__(dimension, dimension, depth, heads, image_size, patch_size, file)

    def resized(self, positions: Tensor, height: int, width: int) -> Tensor:
        return resize_positions(positions, height, width)
