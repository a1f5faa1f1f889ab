"""The vision transformer that torchvision trained to classify ImageNet (Dosovitskiy et al. 2021), by timm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.nn.positions import resize_positions
from vq.registries import VQTeacherRegistry
from vq.teachers.keys.torchvision import vit_keys
from vq.teachers.timm_vit import TimmTeacher

FILE = 'torchvision/vit_b_16-c867db91.pth'


@VQTeacherRegistry.register_()
class ViTTeacher(TimmTeacher):
    """A supervised network: the pooled vector is the input of its classifier. The defaults are ViT-B/16.

    Position embeddings are resized bicubically with aligned corners, as by torchvision's ``interpolate_embeddings``. Needs
    the package timm; the file has the parameter names of torchvision.
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
        return resize_positions(positions, height, width, offset=0.0, align_corners=True)

    def translated(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return vit_keys(published)
