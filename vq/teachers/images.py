"""Any teacher as a feature network of metrics."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vq.core.errors import ConfigError
from vq.core.records import to_float
from vq.interfaces import FeatureNetwork, Features, Teacher
from vq.nn.pillow_resize import resize_like_pillow
from vq.nn.precision import exact_matmul, no_autocast
from vq.registries import VQFeatureNetworkRegistry


@VQFeatureNetworkRegistry.register_()
class TeacherImages(FeatureNetwork):
    """The pooled vector of a teacher, in fp32. There are no logits.

    Both sides of images are resized to ``image_size`` as Pillow does (bicubic, antialiased, 8 bits; an image that is not
    square is squeezed, not cropped). ``CLIPImages`` and ``DINOv2`` have the preprocessing of CMMD's and FD-DINOv2's authors.
    """

    def __init__(self, teacher: Teacher, image_size: int) -> None:
        super().__init__()
        self.teacher, self.image_size, self.dimension = teacher, image_size, teacher.dimension
        self.requires_grad_(False)
        self.eval()

    @property
    def description(self) -> dict[str, str]:
        size, teacher = self.image_size, self.teacher
        return {
            'network': f'{type(teacher).__name__} ({teacher.dimension} features, {teacher.depth} layers)',
            'preprocessing': f'to {size} x {size} bicubic antialiased, 8 bits; then as the teacher',
            'precision': 'fp32',
        }

    @torch.no_grad()
    def forward(self, image: Tensor) -> Features:
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ConfigError(
                f'TeacherImages was given {image.dtype} of the shape {tuple(image.shape)}', 'Give uint8 images (B, 3, H, W).'
            )
        with no_autocast(image.device), exact_matmul():
            square = resize_like_pillow(image, self.image_size, self.image_size)
            return Features(self.teacher.features(to_float(square)).pooled.float())

    def pretrained_files(self) -> list[Path]:
        return self.teacher.pretrained_files()

    def load_pretrained(self) -> None:
        self.teacher.load_pretrained()
