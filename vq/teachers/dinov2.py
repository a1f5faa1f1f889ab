"""DINOv2's vision transformers (Oquab et al. 2024), with and without registers (Darcet et al. 2024), by timm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from vq.nn.pillow_resize import resize_like_pillow
from vq.nn.positions import resize_positions
from vq.registries import VQFeatureNetworkRegistry, VQTeacherRegistry
from vq.teachers.timm_vit import TimmTeacher
from vq.teachers.transformer import TeacherNetwork

FILE = 'dinov2/dinov2_vitl14_pretrain.pth'


@VQTeacherRegistry.register_()
class DINOv2Teacher(TimmTeacher):
    """The defaults are ViT-L/14; published are ViT-S, ViT-B and ViT-L, each also with 4 ``registers``.

    Position embeddings of the published file, for 37 x 37 patches, are kept, and resized bicubically for every other number of
    patches, as in the networks of DINOv2's authors: without registers by the factor (h + 0.1) / 37, and with registers
    antialiased, by the factor h / 37. Needs the package timm.
    """

    layer_scale = 1e-5
    unused = ('mask_token',)

    def __init__(
        self,
        dimension: int = 1024,
        depth: int = 24,
        heads: int = 16,
        image_size: int = 224,
        patch_size: int = 14,
        file: str = FILE,
        registers: int = 0,
    ) -> None:
        self.prefix = 1 + registers  # read by make
        super().__init__(dimension, dimension, depth, heads, image_size, patch_size, file)

    def resized(self, positions: Tensor, height: int, width: int) -> Tensor:
        if self.prefix > 1:
            return resize_positions(positions, height, width, offset=0.0, antialias=True)
        return resize_positions(positions, height, width)

    def translated(self, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = super().translated(published)
        return {'reg_token' if name == 'register_tokens' else name: value for name, value in given.items()}


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
