"""The encoder of masked autoencoders (He et al. 2022), by timm."""

from __future__ import annotations

from torch import Tensor

from vq.nn.positions import resize_positions
from vq.registries import VQTeacherRegistry
from vq.teachers.timm_vit import TimmTeacher

FILE = 'mae/mae_pretrain_vit_base.pth'


@VQTeacherRegistry.register_()
class MAETeacher(TimmTeacher):
    """All patches are seen, none is masked. The defaults are ViT-B/16.

    Position embeddings are resized bicubically to any number of patches, as by ``interpolate_pos_embed`` of MAE's authors,
    which they call once for one size. Needs the package timm.
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
        return resize_positions(positions, height, width, offset=0.0)
